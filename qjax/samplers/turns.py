"""Who has the next chunk of a wall-clock budget, and how long it is: the turns of qjax.samplers.within.

Most budgets have one runner, the sampler itself. `auto` has as many as it may choose from, the best of the pilot first.
The leader is the runner that last lowered the lowest energy. It has the turn as long as its chunks do; then the turn is
that of the runner with the least work so far, that of the others counted `_HANDICAP` times. Under `auto` a schedule is
lengthened only while that lowers the mean energy of a chunk, at the end to all that is left; after that it restarts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.contract import Sampler
from qjax.samplers.sharded import Sharded

_LENGTHS = ("num_sweeps", "num_steps")
_HANDICAP = 3.0


@dataclass
class Runner:
    """A sampler and what its chunks came to. sweeps: of a chunk of one repeat; work: of the same, in units that all
    runners share; repeats: of the next chunk, wanted; seconds: of one repeat, by the last chunk; stretch: a chunk that
    would leave less than this many times its length takes all that is left."""

    name: str
    sampler: Any
    extension: str
    sweeps: int
    work: float = 1.0
    restarts: bool = False
    states: Any = None
    blocks: Blocks | None = None
    repeats: int = 1
    total: int = 0
    seconds: float | None = None
    mean: float = math.inf
    stretch: float = 1.0

    def ended(self, repeats: int, seconds: float, mean: float, growth: float) -> None:
        """Books a chunk, whose reads have this mean energy."""
        self.total += repeats
        self.seconds = seconds / repeats
        gains = mean < self.mean
        if self.extension == "longer" and (gains or not self.restarts):
            self.repeats = min(math.ceil(repeats * growth), 2**30)
        self.stretch = growth + 1 if gains and self.restarts else 1.0
        self.mean = mean

    def fits(self, left: float, pace: float) -> int:
        """The repeats of a chunk that is expected to end within `left` seconds, at most those wanted. pace: seconds
        of a unit of work, for a runner without a chunk."""
        if left <= 0 or (self.extension == "once" and self.total):
            return 0
        seconds = self.seconds if self.seconds is not None else pace * self.work
        most = left / max(seconds, 1e-9)
        if self.extension != "longer":
            return int(most >= 1)
        # Where a longer schedule gains, one run of all that is left beats another doubling and a short rest.
        return int(most if most < self.stretch * self.repeats else self.repeats)


class Turns:
    """The runners of one budget, the best first."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.runners = list(runners)
        self.leader = self.runners[0]

    def next(self, now: Runner, lowered: bool, left: float) -> tuple[Runner, int]:
        """(who has the next chunk, its repeats; 0: there is none), after a chunk of `now`."""
        if lowered:
            self.leader = now
        order = sorted(self.runners, key=lambda r: (r is not now if lowered else False, self._counted(r)))
        assert now.seconds is not None
        for runner in order:
            if repeats := runner.fits(left, now.seconds / now.work):
                return runner, repeats
        return now, 0

    def _counted(self, runner: Runner) -> float:
        return runner.total * runner.work * (1 if runner is self.leader else _HANDICAP)


def extension(sampler: Any, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> tuple[str, int]:
    """(what a further chunk is, sweeps of the first chunk)."""
    if isinstance(sampler, Sampler | Sharded):
        works = sampler.algorithm_for(qubo, num_reads, blocks)
        return works.with_more_time, next((getattr(works, name) for name in _LENGTHS if hasattr(works, name)), 1)
    wanted, found = getattr(sampler, "with_more_time", "longer"), length(sampler)
    kind = "longer" if found is not None and wanted == "longer" else "restart"
    return "once" if wanted == "once" else kind, 1 if found is None else found[1]


def length(sampler: Any) -> tuple[str, int] | None:
    """The field that says how long a sampler runs, and its number; None where there is none."""
    for name in (field.name for field in fields(sampler) if field.init) if is_dataclass(sampler) else ():
        value = getattr(sampler, name)
        if name in _LENGTHS and isinstance(value, int) and value > 0:
            return name, value
    return None
