"""Where the seconds went: an immutable account of a run's phases.

    total = sum over phases of seconds[phase]

Every phase is wall-clock, and phases never overlap, so they add up to the total. What a quantum processor reports about
itself (programming, anneal per read, readout, ...) overlaps with our wall-clock and is kept in a table of its own.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, Self, TypeVar

import jax
import numpy as np

from qjax.spelling import unknown

PHASES = (
    "data",
    "compile",
    "formulate",
    "embed",
    "program",
    "wait",
    "anneal",
    "readout",
    "decode",
    "refine",
    "evaluate",
    "other",
)

P = ParamSpec("P")
T = TypeVar("T")
Table = tuple[tuple[str, float], ...]
_wait: Callable[[Any], Any] = jax.block_until_ready


@dataclass(frozen=True)
class Ledger:
    """Seconds by phase (`booked`) and seconds that a QPU reported (`reported`), as sorted tables of (name, seconds).

    A ledger does not change: every method that books returns a new one.

        samples, ledger = ledger.run("anneal", sampler, key, qubo)
    """

    booked: Table = ()
    reported: Table = ()

    def __post_init__(self) -> None:
        for phase, seconds in self.booked:
            _check_phase(phase)
            _check_seconds(phase, seconds)
        for name, seconds in self.reported:
            _check_seconds(name, seconds)

    def add(self, phase: str, seconds: float) -> Self:
        """Book `seconds` (finite, >= 0) under `phase`; an unknown phase is a ValueError that names the nearest one."""
        _check_phase(phase)
        return replace(self, booked=_added(self.booked, phase, seconds))

    def report(self, name: str, seconds: float) -> Self:
        """Book `seconds` that a processor reported about itself; they do not count in the total."""
        return replace(self, reported=_added(self.reported, name, seconds))

    def run(self, phase: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, Self]:
        """Call `fn`, wait until every array in its result is ready, and book the seconds.

        Arrays in the arguments are waited for before the clock starts, so that earlier asynchronous work is not booked.
        """
        _check_phase(phase)
        _wait((args, kwargs))
        start = time.perf_counter()
        value: T = _wait(fn(*args, **kwargs))
        return value, self.add(phase, time.perf_counter() - start)

    def sample(self, sampler: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, Self]:
        """Call a sampler and book its seconds.

        Where its `info["seconds"]` is a table of seconds by phase, those are booked, and the rest as "other". Otherwise
        `info["compile_seconds"]`, where there are any, are booked as "compile", and the rest as "anneal".
        `info["reported"]` goes to the reported table.
        """
        value, timed = Ledger().run("anneal", sampler, *args, **kwargs)
        info = getattr(value, "info", {})
        ledger, rest = self, timed.total
        for name, seconds in info.get("reported", {}).items():
            ledger = ledger.report(name, float(np.sum(seconds)))
        table, left = info.get("seconds"), "other"
        if not isinstance(table, Mapping):  # None, or a single number: the time budget of `within`
            table, left = {"compile": info["compile_seconds"]} if "compile_seconds" in info else {}, "anneal"
        for phase, seconds in table.items():
            ledger = ledger.add(phase, float(np.sum(seconds)))
            rest -= float(np.sum(seconds))
        return value, ledger.add(left, max(rest, 0.0))

    def compile(self, jitted: Any, *args: Any, **kwargs: Any) -> tuple[Any, Self]:
        """Lower and compile `jitted` for these arguments (arrays or shapes) ahead of time, booked as "compile".

        Returns the executable, which takes the arguments that are not static.
        """
        start = time.perf_counter()
        compiled = jitted.lower(*args, **kwargs).compile()
        return compiled, self.add("compile", time.perf_counter() - start)

    def balance(self, elapsed: float) -> Self:
        """Book as "other" what the total lacks of `elapsed` seconds of wall-clock.

        Errors: ValueError where the phases add up to more than `elapsed` (by over a millisecond and 0.1 %), which means
        that something was booked twice.
        """
        _check_seconds("elapsed", elapsed)
        missing = elapsed - self.total
        if missing < -(1e-3 + 1e-3 * elapsed):
            raise ValueError(f"the phases add up to {self.total:.6f} s, more than the elapsed {elapsed:.6f} s")
        return self.add("other", max(missing, 0.0))

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, in the order of a run; phases that were never booked are left out."""
        booked = dict(self.booked)
        return {phase: booked[phase] for phase in PHASES if phase in booked}

    @property
    def total(self) -> float:
        """Seconds of all phases together."""
        return math.fsum(seconds for _, seconds in self.booked)

    def __getitem__(self, phase: str) -> float:
        """Seconds booked under `phase`, 0.0 where there are none."""
        _check_phase(phase)
        return dict(self.booked).get(phase, 0.0)

    def __add__(self, other: "Ledger") -> Self:
        """The ledger of two runs, one after the other: seconds of the same name are added."""
        merged = self
        for phase, seconds in other.booked:
            merged = merged.add(phase, seconds)
        for name, seconds in other.reported:
            merged = merged.report(name, seconds)
        return merged

    def to_dict(self) -> dict[str, Any]:
        """A record that JSON can hold; `from_dict` inverts it exactly."""
        return {"phases": self.phases, "total": self.total, "reported": dict(self.reported)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Errors: ValueError where a part is missing or phases do not add up to the total."""
        try:
            phases, total, reported = record["phases"], float(record["total"]), record["reported"]
            ledger = cls(
                tuple(sorted((str(name), float(seconds)) for name, seconds in phases.items())),
                tuple(sorted((str(name), float(seconds)) for name, seconds in reported.items())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger's record: {error!r}") from error
        if not math.isclose(ledger.total, total, rel_tol=1e-9, abs_tol=1e-9):
            raise ValueError(f"a ledger's record says {total} s in total, and its phases add up to {ledger.total} s")
        return ledger

    def __str__(self) -> str:
        """One line per phase, with its seconds and their share of the total."""
        total = self.total
        lines = [f"{phase:<10}{s:>10.3f} s{s / total if total else 0.0:>8.1%}" for phase, s in self.phases.items()]
        lines.append(f"{'total':<10}{total:>10.3f} s")
        lines += [f"reported {name}: {s:.6f} s" for name, s in self.reported]
        return "\n".join(lines)


def _added(table: Table, name: str, seconds: float) -> Table:
    _check_seconds(name, seconds)
    sums = dict(table)
    sums[name] = sums.get(name, 0.0) + float(seconds)
    return tuple(sorted(sums.items()))


def _check_phase(phase: str) -> None:
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)


def _check_seconds(name: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds >= 0.0):
        raise ValueError(f"{name}: seconds must be finite and not negative, got {seconds!r}")
