"""The seconds of one run in a process whose runs share compiled programs: each run is charged what it uses, once.

account = Account()
value = account.call("anneal", function, *args)        compiled ahead of time, then run and booked
value = account.run("data", function, *args)           run as it stands
ledger = account.close()                               what was not booked becomes "other"
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments.harness.pieces import in_pieces
from qjax import Ledger, Refine, Refined, programs
from qjax.descend.refine import Compiled

_refiners: dict[Any, tuple[Compiled, float]] = {}


class Account:
    """Books calls in a ledger. A program that an earlier run compiled is charged its seconds all the same.

    notes: what the run's row reports besides its result (JSON-ready, repeating bit for bit).
    repeated: seconds spent again, uncharged, because a process was killed.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = Ledger() if ledger is None else ledger
        self.notes: dict[str, Any] = {}
        self.repeated = 0.0
        self._start = time.perf_counter()
        self._before = self.ledger.total
        self._waited = 0.0  # seconds really waited for compilers, which need not be those charged; seconds aside
        self._charged: dict[int, tuple[Any, float]] = {}  # by id: of a program that lives no longer, another has it

    def run(self, phase: str, function: Callable[..., Any], *args: Any) -> Any:
        """function(*args), its seconds booked under `phase`, those `aside` in it left out."""
        waited = self._waited
        value, spent = Ledger().run(phase, function, *args)
        self.ledger = self.ledger.add(phase, spent.total - (self._waited - waited))
        return value

    @property
    def seconds(self) -> float:
        """Those of the run until now, booked or not: what a watch beside it would show."""
        return max(self.ledger.total, self.ledger.total + self._unbooked())

    def call(
        self, phase: str, function: Callable[..., Any], *args: Any, compiler_options: dict[str, Any] | None = None
    ) -> Any:
        """The same, jitted; function must be hashable and equal where it computes the same."""
        return self.run(phase, self.program(function, *args, compiler_options=compiler_options), *args)

    def program(
        self, function: Callable[..., Any], *args: Any, compiler_options: dict[str, Any] | None = None
    ) -> Callable[..., Any]:
        """The compiled function, for arguments of these shapes; its compilation is charged."""
        start = time.perf_counter()
        program, seconds = programs.compiled(function, *args, compiler_options=compiler_options)
        self._charge(program, seconds, time.perf_counter() - start)
        return program

    def refine(
        self,
        refine: Refine,
        key: jax.Array,
        params: Any,
        data: Any,
        num_steps: int,
        callback: Any = None,
        phase: str = "refine",
        state: Any = None,
        compiler_options: dict[str, Any] | None = None,
        folder: Path | None = None,
        gathered: list[Any] | None = None,
    ) -> Any:
        """The training loop's `Refined`; equal loops on equal shapes share one program.

        folder: where it keeps checkpoints, and goes on from those of a process that was killed (`harness.pieces`), with
        what the callback had gathered, for JSON, in the list of this name.
        """
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((params, data, state)))
        start = time.perf_counter()
        known = refine, shapes, tuple(sorted((compiler_options or {}).items()))
        if known not in _refiners:
            program = refine.compile(params, data, state, compiler_options)
            _refiners[known] = program, time.perf_counter() - start
        program, seconds = _refiners[known]
        self._charge(program, seconds, time.perf_counter() - start)
        if folder is None:
            return self.run(phase, partial(program, state=state), key, params, data, num_steps, callback)
        loop = partial(_loop, partial(program, key, params, data, state=state))
        heard = callback or (lambda *seen: None)
        kept = [] if gathered is None else gathered
        return in_pieces(self, loop, num_steps, refine.chunk_size, heard, phase, folder, kept)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The seconds inside are not the run's, and are booked nowhere."""
        start = time.perf_counter()
        yield
        self.leave_out(time.perf_counter() - start)

    def leave_out(self, seconds: float) -> None:
        """These seconds, which have passed, are not the run's, and are booked nowhere."""
        self._waited += seconds

    def standing(self, phase: str, seconds: float) -> Ledger:
        """The ledger as if `seconds` of a call that is under way were booked by now, and the rest as "other"."""
        return self.ledger.add(phase, seconds).add("other", max(self._unbooked() - seconds, 0.0))

    def resume(self, ledger: Ledger, repeated: float) -> None:
        """Goes on from the ledger of an earlier process, which had come as far as this one. What this one has spent is
        `repeated`, beside what processes in between had; the programs that it has compiled are charged already.
        """
        self.repeated = repeated + self.seconds
        self.ledger, self._before = ledger, ledger.total
        self._start, self._waited = time.perf_counter(), 0.0
        self._charged = {key: (program, 0.0) for key, (program, _) in self._charged.items()}

    def close(self) -> Ledger:
        """The ledger, with what passed between the booked calls as "other"."""
        self.ledger = self.ledger.add("other", max(self._unbooked(), 0.0))
        return self.ledger

    def _unbooked(self) -> float:
        booked = self.ledger.total - self._before - sum(seconds for _, seconds in self._charged.values())
        return time.perf_counter() - self._start - self._waited - booked

    def _charge(self, program: Any, seconds: float, waited: float) -> None:
        self._waited += waited
        if id(program) not in self._charged:
            self._charged[id(program)] = program, seconds
            self.ledger = self.ledger.add("compile", seconds)


def _loop(compiled: Callable[..., Refined], num_steps: int, callback: Any, folder: Path) -> Refined:
    # A checkpoint at the end of every piece, and none before.
    return compiled(num_steps=num_steps, callback=callback, checkpoint=folder, checkpoint_every=math.inf)
