"""The seconds of one run whose programs other runs of the process share: every compilation is charged, and only once.

account = Account(data_seconds)
value = account.call("anneal", function, *args)        compiled ahead of time, then run and booked
ledger = account.close()                               what was not booked becomes "other"
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from qjax import Ledger, Refine, programs

_refiners: dict[Any, tuple[Any, float]] = {}


class Account:
    """Books calls. A program that an earlier run compiled is charged its seconds all the same."""

    def __init__(self, data_seconds: float) -> None:
        self.ledger = Ledger().add("data", data_seconds)
        self._start = time.perf_counter()
        self._compiling = 0.0  # seconds really waited for compilers, which need not be those charged
        self._charged: dict[int, float] = {}

    def call(self, phase: str, function: Callable[..., Any], *args: Any) -> Any:
        """function(*args), jitted; function must be hashable and equal where it computes the same."""
        start = time.perf_counter()
        program, seconds = programs.compiled(function, *args)
        self._charge(program, seconds, time.perf_counter() - start)
        value, self.ledger = self.ledger.run(phase, program, *args)
        return value

    def refine(self, refine: Refine, key: jax.Array, params: Any, data: Any, num_steps: int, callback: Any) -> Any:
        """The training loop's `Refined`; equal loops on equal shapes share one program."""
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((params, data)))
        start = time.perf_counter()
        if (refine, shapes) not in _refiners:
            program = refine.compile(params, data)
            _refiners[refine, shapes] = program, time.perf_counter() - start
        program, seconds = _refiners[refine, shapes]
        self._charge(program, seconds, time.perf_counter() - start)
        value, self.ledger = self.ledger.run("refine", program, key, params, data, num_steps, callback)
        return value

    def close(self) -> Ledger:
        """The ledger, with what passed between the booked calls as "other"."""
        phases = self.ledger.phases
        work = sum(seconds for phase, seconds in phases.items() if phase not in ("data", "compile"))
        between = time.perf_counter() - self._start - self._compiling - work
        return self.ledger.add("other", max(between, 0.0))

    def _charge(self, program: Any, seconds: float, waited: float) -> None:
        self._compiling += waited
        # Programs live as long as the process, so that their ids are their names.
        if id(program) not in self._charged:
            self._charged[id(program)] = seconds
            self.ledger = self.ledger.add("compile", seconds)
