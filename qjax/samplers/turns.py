"""Who has the next chunk of a wall-clock budget, and how long it is: the turns of qjax.samplers.within.

Most budgets have one runner, the sampler itself. `auto` has as many as it may choose from, the best of the pilot first.
The leader is the runner that last lowered the lowest energy. It has the turn as long as its chunks do. After one that
does not, another has a turn if its work, that turn's included, is then at most 1/3 of the leader's so far; 1/6 after a
turn that lowered nothing, 1/9 after two, and so on. Under `auto` a schedule is lengthened only while that lowers the
mean energy of a chunk, at the end to all that is left where the lowest fell as well. After that it restarts, as long
as the last chunk that gained.
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
    would leave less than this many times its length takes all that is left; gained: repeats of the last chunk that
    lowered the mean; settled: whether a longer one no longer did; failures: its turns beside a leader, in vain."""

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
    gained: int = 1
    settled: bool = False
    failures: int = 0

    def ended(self, repeats: int, seconds: float, mean: float, lowered: bool, growth: float) -> None:
        """Books a chunk, whose reads have this mean energy; lowered: whether it lowered the lowest of all chunks."""
        self.total += repeats
        self.seconds = seconds / repeats
        gains = mean < self.mean and not self.settled
        self.stretch = growth + 1 if gains and lowered and self.restarts else 1.0
        self.mean = mean
        if self.extension != "longer":
            return
        if gains or not self.restarts:
            self.gained, self.repeats = repeats, min(math.ceil(repeats * growth), 2**30)
        else:
            self.settled, self.repeats = True, self.gained

    def fits(self, left: float, pace: float) -> int:
        """The repeats of a chunk that is expected to end within `left` seconds, at most those wanted. pace: seconds
        of a unit of work, for a runner without a chunk."""
        if left <= 0 or (self.extension == "once" and self.total):
            return 0
        seconds = self.seconds if self.seconds is not None else pace * self.work
        most = left / max(seconds, 1e-9)
        if self.extension != "longer":
            return int(most >= 1)
        # Where longer schedules still lower both, one run of all that is left beats a doubling and a short rest.
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
        elif now is not self.leader:
            now.failures += 1
        order = sorted(self.runners, key=lambda r: (r is not now if lowered else False, self._counted(r)))
        assert now.seconds is not None
        for runner in order:
            if repeats := runner.fits(left, now.seconds / now.work):
                return runner, repeats
        return now, 0

    def _counted(self, runner: Runner) -> float:
        if runner is self.leader:
            return runner.total * runner.work
        return _HANDICAP * (1 + runner.failures) * (runner.total + runner.repeats) * runner.work


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
