"""A wall-clock budget for any sampler: jitted chunks until the seconds are spent, the best of each read kept.

    samples = within(Anneal(num_sweeps=100), seconds=10)(key, qubo, num_reads=128)

Chunk k draws from fold_in(key, k). The sampler's `with_more_time` says what a chunk is:

    longer      (anneal, bifurcation, mean_field) the schedule with each step made 1, 2, 4, ... times, in the last chunk
                as often as the remaining seconds allow; one compiled program for all lengths
    continue    (tabu, temper, decompose) the same call again, from the states of the chunk before
    restart     (greedy, population, path_integral, qaoa, random) the same call again, from new states
    once        (exact) one chunk

`auto` does what the sampler that it chooses does. Host samplers, and wrappers such as `qjax.annealers.Noisy`, get
longer by their field num_sweeps, num_steps or timeout where they have one, else they restart.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.contract import Sampler
from qjax.samplers.samples import Samples
from qjax.samplers.sharded import Sharded

_clock = time.perf_counter
_LENGTHS = ("num_sweeps", "num_steps", "timeout")


@dataclass(frozen=True)
class Within:
    """`sampler` for `seconds` of wall-clock. growth: a chunk is at most this many times as long as the one before.

    Compilation is outside the budget: the programs of all chunks are compiled (and run for no step) before the clock
    starts. The first chunk, the sampler as it stands, always runs in full; a further one only where it is expected to
    end in time, judged by the seconds of the one before. Bits depend on the clock, unlike those of the sampler itself.

    info: seconds, spent; compile_seconds, before; chunks, their number; sweeps (or steps: the sampler's num_sweeps or
    num_steps added up over the chunks; chunks where it has neither), made by each read; chunk_seconds (chunks,), when
    each ended; chunk_lowest (*batch, chunks), the lowest energy by then; the last chunk's info by problem; and the info
    by read of the chunk that a read is from.
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
        """As the sampler's own call. Errors: its own, and ValueError where the call is traced."""
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
        ends: list[float] = []
        lowest: list[np.ndarray] = []
        while repeats:
            samples = self._chunk(jax.random.fold_in(key, len(ends)), qubo, num_reads, states, repeats, blocks)
            best = _lower(best, samples)
            lowest.append(best.ranks.min(axis=-1))
            if extension == "continue":
                states = samples.bits
            now = _clock() - start
            total_repeats += repeats
            ends.append(now)
            repeats = self._next(extension, repeats, now - before, self.seconds - now)
            before = now
        assert best is not None
        info = {
            **samples.call_info,
            **best.read_info,
            "seconds": np.float64(ends[-1]),
            "compile_seconds": np.float64(compiled),
            "chunks": np.int64(len(ends)),
            "sweeps": np.int64(total_repeats * sweeps),
            "chunk_seconds": np.array(ends),
            "chunk_lowest": np.stack(lowest, axis=-1),
        }
        return Samples(jnp.asarray(best.bits), jnp.asarray(best.energies), info, samples.by_read)

    def _extension(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> tuple[str, int]:
        """(what a further chunk is, sweeps of the first chunk)."""
        if isinstance(self.sampler, Sampler | Sharded):
            works = self.sampler.algorithm_for(qubo, num_reads, blocks)
            return works.with_more_time, next((getattr(works, name) for name in _LENGTHS if hasattr(works, name)), 1)
        length = next((name for name in _LENGTHS if hasattr(self.sampler, name)), None)
        return ("restart", 1) if length is None else ("longer", getattr(self.sampler, length))

    def _chunk(
        self, key: jax.Array, qubo: Qubo, num_reads: int, states: Any, repeats: int, blocks: Blocks | None
    ) -> Samples:
        if isinstance(self.sampler, Sampler | Sharded):
            samples: Samples = self.sampler.repeated(key, qubo, num_reads, states, jnp.int32(repeats), blocks)
            return samples
        name = next((name for name in _LENGTHS if hasattr(self.sampler, name)), None)
        longer = self.sampler
        if name is not None and repeats > 1:
            longer = replace(longer, **{name: repeats * getattr(longer, name)})
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


def _lower(best: _Best | None, samples: Samples) -> _Best:
    """Of each read the state of lower energy, with its info."""
    info = {name: np.asarray(value) for name, value in samples.read_info.items()}
    new = _Best(np.asarray(samples.bits), np.asarray(samples.energies), info)
    if best is None:
        return new
    lower = new.ranks < best.ranks

    def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(lower.reshape((*lower.shape, *(1,) * (a.ndim - lower.ndim))), a, b)

    merged: _Best = jax.tree.map(chosen, new, best)
    return merged
