"""A wall-clock budget for any sampler: jitted chunks until the seconds are spent, the best of each read kept.

    samples = within(Anneal(num_sweeps=100), seconds=10)(key, qubo, num_reads=128)

Chunk k draws from fold_in(key, k). The sampler's `with_more_time` says what a chunk is:

    longer      (anneal, bifurcation, mean_field) the schedule with each step made 1, 2, 4, ... times, in the last chunk
                as often as the remaining seconds allow; one compiled program for all lengths
    continue    (tabu, temper, decompose) the same call again, from the states of the chunk before
    restart     (greedy, population, path_integral, qaoa, random) the same call again, from new states
    once        (exact) one chunk

`auto` goes from one of its samplers to another, each by its own rule, and restarts schedules that gain no more by being
longer (qjax.samplers.turns). Host samplers, and wrappers such as `qjax.annealers.Noisy`, get longer by a field
num_sweeps or num_steps that holds a number, unless their own `with_more_time` is "restart" or "once"; without such a
field they restart. So a chunk of a quantum processor is a whole call, with all of its submissions.

A call of a host sampler may have been paid for. Where one fails, what came back, in it and before, is returned, with
the error under `info["error"]`; it is raised only where some problem of the call has no read at all. An error tells
what its call had received by an attribute `samples`: `Samples` with infinite energies of problems without a read.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_static

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.auto import Auto, row_of
from qjax.samplers.contract import Sampler
from qjax.samplers.portfolio import Entrant, can_race, race
from qjax.samplers.samples import Samples
from qjax.samplers.sharded import Sharded
from qjax.samplers.turns import Runner, Turns, extension, length

_clock = time.perf_counter


@register_static
@dataclass(frozen=True)
class Failure:
    """Why a call ended early, under `info["error"]`: an exception, as a pytree without leaves."""

    error: Exception

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True)
class Within:
    """`sampler` for `seconds` of wall-clock. growth: a chunk is at most this many times as long as the one before.

    Compilation is outside the budget: the programs of all chunks are compiled (and run for no step) before the clock
    starts; the pilot of `auto` is inside. The first chunk, the sampler as it stands, always runs in full; a further one
    only where it is expected to end in time, judged by the seconds of the one before. Bits depend on the clock, unlike
    those of the sampler itself.

    info: seconds, spent (a sampler's own table of seconds is kept instead); compile_seconds, before; chunks, their
    number; sweeps (or steps: the sampler's num_sweeps or num_steps added up over the chunks; chunks where it has
    neither), made by each read; chunk_seconds (chunks,), when each ended; chunk_lowest (*batch, chunks), the lowest
    energy by then; the last chunk's info by problem, but tables and the sampler's `counts` added up over all; the info
    by read of the chunk that a read is from; choice, tried and given, of `auto` after a pilot; and error, a `Failure`,
    where a call failed.
    Errors: ValueError for seconds that are not positive, growth below 1, or no qjax sampler.
    """

    sampler: Any
    seconds: float
    growth: float = 2.0
    is_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.sampler) or not hasattr(self.sampler, "is_host"):
            raise ValueError(f"sampler must be a qjax sampler, got {type(self.sampler).__name__}")
        if not math.isfinite(self.seconds) or self.seconds <= 0:
            raise ValueError(f"seconds must be positive, got {self.seconds!r}")
        if not math.isfinite(self.growth) or self.growth < 1:
            raise ValueError(f"growth must be at least 1, got {self.growth!r}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The kinds of blocks that the sampler keeps by its moves."""
        return tuple(getattr(self.sampler, "blocks", ()))

    @property
    def adds_moves(self) -> bool:
        """Whether the sampler moves groups that were found."""
        return bool(getattr(self.sampler, "adds_moves", False))

    def __call__(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int = 64,
        initial_states: Any = None,
        blocks: Blocks | None = None,
    ) -> Samples:
        """As the sampler's own call. Errors: its own where nothing came back; ValueError where the call is traced."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, qubo, initial_states, blocks))):
            raise ValueError("within spends wall-clock time and cannot be traced: call it outside jit and vmap")
        check_blocks(key, qubo, num_reads, initial_states, blocks)
        key, num_reads, states = check_call(key, qubo, num_reads, initial_states)
        began = _clock()
        if blocks is None and isinstance(self.sampler, Sampler | Sharded):
            blocks = self.sampler.found(qubo)
        entrants = self._entrants(key, qubo, states, blocks)
        runners = [self._runner(entrant, qubo, num_reads, states, blocks) for entrant in entrants]
        if len(entrants) > 1:
            race(entrants, key, qubo, num_reads, states)
        for runner in runners:
            self._warm(runner, jax.random.fold_in(key, 0), qubo, num_reads)
        start = _clock()
        compiled, before = start - began, 0.0
        looked: dict[str, Any] = {}
        if len(entrants) > 1:
            raced = race(entrants, key, qubo, num_reads, states)
            names = [entrant.name for entrant in raced.entrants]
            runners.sort(key=lambda runner: names.index(runner.name))
            looked = {"tried": raced.tried}
            before = _clock() - start
        turns = Turns(runners)
        best: _Best | None = None
        failure: Failure | None = None
        ends: list[float] = []
        lowest: list[np.ndarray] = []
        call_info: dict[str, Any] = {}
        now, repeats = runners[0], 1
        while repeats:
            samples, failure = self._attempt(now, jax.random.fold_in(key, len(ends)), qubo, num_reads, repeats)
            if samples is None or (best is None and np.isinf(np.asarray(samples.energies)).any()):
                assert failure is not None
                if best is None:
                    raise failure.error
                break
            best, lowered = _lower(best, samples)
            call_info = _added_up(call_info, samples.call_info, getattr(self.sampler, "counts", frozenset()))
            lowest.append(best.ranks.min(axis=-1))
            if now.extension == "continue":
                now.states = samples.bits
            ends.append(_clock() - start)
            now.ended(repeats, ends[-1] - before, float(np.mean(samples.energies)), lowered, self.growth)
            before = ends[-1]
            now, repeats = (now, 0) if failure else turns.next(now, lowered, self.seconds - before)
        assert best is not None
        if looked:
            given = {runner.name: np.float64(runner.total * runner.sweeps) for runner in runners}
            looked |= {"given": given, "choice": np.int32(row_of(qubo, blocks))}
        info = {
            "seconds": np.float64(ends[-1]),
            **{name: value for name, value in call_info.items() if name != "seconds" or isinstance(value, dict)},
            **best.read_info,
            **looked,
            "compile_seconds": np.float64(compiled),
            "chunks": np.int64(len(ends)),
            "sweeps": np.int64(sum(runner.total * runner.sweeps for runner in runners)),
            "chunk_seconds": np.array(ends),
            "chunk_lowest": np.stack(lowest, axis=-1),
        }
        if failure is not None:
            info["error"] = failure
        return Samples(jnp.asarray(best.bits), jnp.asarray(best.energies), info, frozenset(best.read_info))

    def _auto(self) -> Auto | None:
        sampler = self.sampler.sampler if isinstance(self.sampler, Sharded) else self.sampler
        return sampler if isinstance(sampler, Auto) else None

    def _entrants(
        self, key: jax.Array, qubo: Qubo, states: jax.Array | None, blocks: Blocks | None
    ) -> tuple[Entrant, ...]:
        """Who takes turns: those that `auto` chooses from, or the sampler alone."""
        auto = self._auto()
        if auto is None or not can_race(key, qubo, states):
            return (Entrant("", self.sampler),)
        entrants = auto.entrants(qubo, blocks)
        return entrants if len(entrants) > 1 else (Entrant("", self.sampler),)

    def _runner(
        self, entrant: Entrant, qubo: Qubo, num_reads: int, states: jax.Array | None, blocks: Blocks | None
    ) -> Runner:
        sampler: Any = entrant.sampler
        if entrant.name and isinstance(self.sampler, Sharded):
            sampler = replace(self.sampler, sampler=sampler)
        kind, sweeps = extension(sampler, qubo, num_reads, blocks)
        work = entrant.work * sweeps
        return Runner(entrant.name, sampler, kind, sweeps, work, self._auto() is not None, states, blocks)

    def _warm(self, runner: Runner, key: jax.Array, qubo: Qubo, num_reads: int) -> None:
        """Compiles the programs of a runner, by runs of no step; a wrapper, which has none, makes a whole one."""
        if runner.sampler.is_host:
            return
        warm = self._chunk(runner, key, qubo, num_reads, 0)
        if runner.extension == "continue":
            # Chunks that have states to start from are another program than the first one.
            warm = self._chunk(replace(runner, states=warm.bits), key, qubo, num_reads, 0)
        jax.block_until_ready(warm)

    def _attempt(
        self, runner: Runner, key: jax.Array, qubo: Qubo, num_reads: int, repeats: int
    ) -> tuple[Samples | None, Failure | None]:
        """(what came back, the failure or None) of a chunk; a sampler that is not on the host raises instead."""
        if not runner.sampler.is_host:
            return self._chunk(runner, key, qubo, num_reads, repeats), None
        try:
            return self._chunk(runner, key, qubo, num_reads, repeats), None
        except Exception as error:
            # An error within a piece of a problem speaks of that piece, not of this call.
            came = None if isinstance(self.sampler, Sampler) else getattr(error, "samples", None)
            if came is not None and came.bits.shape != (*qubo.batch_shape, num_reads, qubo.num_bits):
                came = None
            return came, Failure(error)

    def _chunk(self, runner: Runner, key: jax.Array, qubo: Qubo, num_reads: int, repeats: int) -> Samples:
        sampler = runner.sampler
        if isinstance(sampler, Sampler | Sharded):
            samples: Samples = sampler.repeated(key, qubo, num_reads, runner.states, jnp.int32(repeats), runner.blocks)
            return samples
        found = length(sampler)
        if found is not None and repeats > 1:
            sampler = replace(sampler, **{found[0]: repeats * found[1]})
        also = {} if runner.blocks is None else {"blocks": runner.blocks}
        answered: Samples = sampler(key, qubo, num_reads, runner.states, **also)
        return answered


def within(sampler: Any, seconds: float, growth: float = 2.0) -> Within:
    """`Within(sampler, seconds, growth)`: the sampler repeated until `seconds` of wall-clock are spent.

    Errors: ValueError for seconds that are not positive, growth below 1, or no qjax sampler.
    """
    return Within(sampler, seconds, growth)


class _Best(NamedTuple):
    """The best of each read so far, on the host, so that nothing is compiled."""

    bits: np.ndarray
    energies: np.ndarray
    read_info: dict[str, np.ndarray]

    @property
    def ranks(self) -> np.ndarray:
        """The energies, infinite for reads that are known to break their blocks."""
        return np.where(self.read_info.get("feasible", True), self.energies, np.inf)


def _lower(best: _Best | None, samples: Samples) -> tuple[_Best, bool]:
    """(of each read the state of lower energy, with the info that both chunks have; whether the lowest of a problem
    is lower than before)."""
    info = {name: np.asarray(value) for name, value in samples.read_info.items()}
    new = _Best(np.asarray(samples.bits), np.asarray(samples.energies), info)
    if best is None:
        return new, True
    lower = new.ranks < best.ranks

    def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(lower.reshape((*lower.shape, *(1,) * (a.ndim - lower.ndim))), a, b)

    shared = {name: chosen(value, best.read_info[name]) for name, value in info.items() if name in best.read_info}
    lowered = bool((new.ranks.min(axis=-1) < best.ranks.min(axis=-1)).any())
    return _Best(chosen(new.bits, best.bits), chosen(new.energies, best.energies), shared), lowered


def _added_up(before: dict[str, Any], now: dict[str, Any], counts: frozenset[str]) -> dict[str, Any]:
    """The info of two calls: tables, and the numbers under `counts`, summed; of anything else the later one."""
    merged = {**before, **now}
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            merged[name] = {k: np.float64(old.get(k, 0.0) + new.get(k, 0.0)) for k in sorted(old.keys() | new.keys())}
        elif name in counts:
            merged[name] = old + new
    return merged
