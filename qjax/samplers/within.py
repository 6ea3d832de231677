"""A wall-clock budget for any sampler: jitted chunks until the seconds are spent, the best of each read kept.

    samples = within(Anneal(num_sweeps=100), seconds=10)(key, qubo, num_reads=128)

Chunk k draws from fold_in(key, k). The sampler's `with_more_time` says what a chunk is:

    longer      (anneal, bifurcation, mean_field) the schedule with each step made 1, 2, 4, ... times, in the last chunk
                as often as the remaining seconds allow; one compiled program for all lengths
    continue    (tabu, temper, decompose) the same call again, from the states of the chunk before
    restart     (greedy, population, path_integral, qaoa, random) the same call again, from new states
    once        (exact) one chunk

`auto` does what the sampler that it chooses does. Host samplers, and wrappers such as `qjax.annealers.Noisy`, get
longer by a field num_sweeps or num_steps that holds a number, unless their own `with_more_time` is "restart" or "once";
without such a field they restart. So a chunk of a quantum processor is a whole call, with all of its submissions.

A call of a host sampler may have been paid for. Where one fails, what came back, in it and before, is returned, with
the error under `info["error"]`; it is raised only where some problem of the call has no read at all. An error tells
what its call had received by an attribute `samples`: `Samples` with infinite energies of problems without a read.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_static

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.contract import Sampler
from qjax.samplers.samples import Samples
from qjax.samplers.sharded import Sharded

_clock = time.perf_counter
_LENGTHS = ("num_sweeps", "num_steps")


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
    starts. The first chunk, the sampler as it stands, always runs in full; a further one only where it is expected to
    end in time, judged by the seconds of the one before. Bits depend on the clock, unlike those of the sampler itself.

    info: seconds, spent (a sampler's own table of seconds is kept instead); compile_seconds, before; chunks, their
    number; sweeps (or steps: the sampler's num_sweeps or num_steps added up over the chunks; chunks where it has
    neither), made by each read; chunk_seconds (chunks,), when each ended; chunk_lowest (*batch, chunks), the lowest
    energy by then; the last chunk's info by problem, but tables and the sampler's `counts` added up over all; the info
    by read of the chunk that a read is from; and error, a `Failure`, where a call failed.
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
        extension, sweeps = self._extension(qubo, num_reads, blocks)
        began = _clock()
        first = jax.random.fold_in(key, 0)
        if not self.sampler.is_host:
            # A wrapper, which cannot make zero steps, makes a whole run.
            warm = self._chunk(first, qubo, num_reads, states, 0, blocks)
            if extension == "continue":
                # Chunks that have states to start from are another program than the first one.
                warm = self._chunk(first, qubo, num_reads, warm.bits, 0, blocks)
            jax.block_until_ready(warm)
        start = _clock()
        compiled, before, repeats, total_repeats = start - began, 0.0, 1, 0
        best: _Best | None = None
        failure: Failure | None = None
        ends: list[float] = []
        lowest: list[np.ndarray] = []
        call_info: dict[str, Any] = {}
        while repeats:
            own = jax.random.fold_in(key, len(ends))
            samples, failure = self._attempt(own, qubo, num_reads, states, repeats, blocks)
            if samples is None or (best is None and np.isinf(np.asarray(samples.energies)).any()):
                assert failure is not None
                if best is None:
                    raise failure.error
                break
            best = _lower(best, samples)
            call_info = _added_up(call_info, samples.call_info, getattr(self.sampler, "counts", frozenset()))
            lowest.append(best.ranks.min(axis=-1))
            if extension == "continue":
                states = samples.bits
            now = _clock() - start
            total_repeats += repeats
            ends.append(now)
            repeats = 0 if failure else self._next(extension, repeats, now - before, self.seconds - now)
            before = now
        assert best is not None
        info = {
            "seconds": np.float64(ends[-1]),
            **{name: value for name, value in call_info.items() if name != "seconds" or isinstance(value, dict)},
            **best.read_info,
            "compile_seconds": np.float64(compiled),
            "chunks": np.int64(len(ends)),
            "sweeps": np.int64(total_repeats * sweeps),
            "chunk_seconds": np.array(ends),
            "chunk_lowest": np.stack(lowest, axis=-1),
        }
        if failure is not None:
            info["error"] = failure
        return Samples(jnp.asarray(best.bits), jnp.asarray(best.energies), info, frozenset(best.read_info))

    def _extension(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> tuple[str, int]:
        """(what a further chunk is, sweeps of the first chunk)."""
        if isinstance(self.sampler, Sampler | Sharded):
            works = self.sampler.algorithm_for(qubo, num_reads, blocks)
            return works.with_more_time, next((getattr(works, name) for name in _LENGTHS if hasattr(works, name)), 1)
        wanted, length = getattr(self.sampler, "with_more_time", "longer"), _length(self.sampler)
        extension = "longer" if length is not None and wanted == "longer" else "restart"
        return "once" if wanted == "once" else extension, 1 if length is None else length[1]

    def _attempt(
        self, key: jax.Array, qubo: Qubo, num_reads: int, states: Any, repeats: int, blocks: Blocks | None
    ) -> tuple[Samples | None, Failure | None]:
        """(what came back, the failure or None) of a chunk; a sampler that is not on the host raises instead."""
        if not self.sampler.is_host:
            return self._chunk(key, qubo, num_reads, states, repeats, blocks), None
        try:
            return self._chunk(key, qubo, num_reads, states, repeats, blocks), None
        except Exception as error:
            # An error within a piece of a problem speaks of that piece, not of this call.
            came = None if isinstance(self.sampler, Sampler) else getattr(error, "samples", None)
            if came is not None and came.bits.shape != (*qubo.batch_shape, num_reads, qubo.num_bits):
                came = None
            return came, Failure(error)

    def _chunk(
        self, key: jax.Array, qubo: Qubo, num_reads: int, states: Any, repeats: int, blocks: Blocks | None
    ) -> Samples:
        if isinstance(self.sampler, Sampler | Sharded):
            samples: Samples = self.sampler.repeated(key, qubo, num_reads, states, jnp.int32(repeats), blocks)
            return samples
        longer, length = self.sampler, _length(self.sampler)
        if length is not None and repeats > 1:
            longer = replace(longer, **{length[0]: repeats * length[1]})
        also = {} if blocks is None else {"blocks": blocks}
        answered: Samples = longer(key, qubo, num_reads, states, **also)
        return answered

    def _next(self, extension: str, repeats: int, took: float, left: float) -> int:
        """How often each step of the next chunk is made; 0: there is no further chunk."""
        if extension == "once" or left <= 0:
            return 0
        fits = left * repeats / max(took, 1e-9)
        if extension != "longer":
            return int(fits >= 1)
        return int(min(math.ceil(repeats * self.growth), fits, 2**30))


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


def _length(sampler: Any) -> tuple[str, int] | None:
    """The field that says how long a sampler runs, and its number; None where there is none."""
    for name in (field.name for field in fields(sampler) if field.init) if is_dataclass(sampler) else ():
        value = getattr(sampler, name)
        if name in _LENGTHS and isinstance(value, int) and value > 0:
            return name, value
    return None


def _lower(best: _Best | None, samples: Samples) -> _Best:
    """Of each read the state of lower energy, with the info that both chunks have."""
    info = {name: np.asarray(value) for name, value in samples.read_info.items()}
    new = _Best(np.asarray(samples.bits), np.asarray(samples.energies), info)
    if best is None:
        return new
    lower = new.ranks < best.ranks

    def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(lower.reshape((*lower.shape, *(1,) * (a.ndim - lower.ndim))), a, b)

    shared = {name: chosen(value, best.read_info[name]) for name, value in info.items() if name in best.read_info}
    return _Best(chosen(new.bits, best.bits), chosen(new.energies, best.energies), shared)


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
