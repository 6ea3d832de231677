"""One-flip tabu search with elites (Glover 1989; restarts as in the memetic search of Lu, Glover, Hao 2010, European
Journal of Operational Research 207, 1254)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.moves import columns, streams
from qjax.samplers.moves.rows import Rows

_STREAMS_PER_PHASE = 4
# Within a phase, every so many times n flips the changes and energies are computed again: 2 % of the products of 100 n
# flips, at the speed of a matmul.
_REFRESH_SWEEPS = 100


class _Prepared(NamedTuple):
    rows: Rows
    linear: jax.Array  # (C, n)
    sign: jax.Array  # (C, 1), of the scale
    flips: jax.Array  # (2, C): seeds of the streams of tenures and ties


class _State(NamedTuple):
    start: jax.Array  # (C, n) int8, where the next phase begins
    elites: jax.Array  # (E, C, n) int8
    energies: jax.Array  # (E, C), E/|scale|; infinite where there is none yet


class _Search(NamedTuple):
    d: jax.Array  # (C, n), 1 - 2x
    gaps: jax.Array  # (C, n), change of E/|scale| by each flip
    free_at: jax.Array  # (C, n) int32: the first step at which the bit may flip again
    energy: jax.Array  # (C,)
    best: jax.Array  # (C, n) int8
    best_energy: jax.Array  # (C,)


@dataclass(frozen=True)
class Tabu(Sampler):
    """Each step flips, in each read, the bit of the smallest change that is allowed:

        change   dE/scale = (1 - 2x_i) f_i,     f = linear + Mx
        allowed  bits that are not tabu, and those whose flip leads below the lowest energy of the phase
        tabu     the bit just flipped, for min(3 + U, n/4) steps, U uniform in 0 .. max(n/10, 10) - 1

    Equal changes are decided at random. A phase is phase_sweeps x n flips. Its best state joins the read's elites if it
    is lower than the highest of them and not among them yet. The next phase starts from two elites, drawn at random:
    each bit from either, and some bits drawn at random.
    num_sweeps: the work of a read is num_sweeps x n flips, rounded up to whole phases; each passes over n changes.
    phase_sweeps: the length of a phase, in units of n flips.
    num_elites: states kept per read.
    perturbation: the part of the bits that are drawn at random in a new start, 0 to 1.
    No info. Errors: ValueError for implicit couplings without a diagonal.
    """

    num_sweeps: int = 100
    phase_sweeps: int = 10
    num_elites: int = 4
    perturbation: float = 0.1

    with_more_time: ClassVar[str] = "continue"

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)
        positive("phase_sweeps", self.phase_sweeps)
        positive("num_elites", self.num_elites)
        if not 0 <= self.perturbation <= 1:
            raise ValueError(f"perturbation must be in 0 .. 1, got {self.perturbation!r}")

    def length(self, task: Task) -> int:
        return -(-self.num_sweeps // self.phase_sweeps)

    def prepare(self, task: Task) -> _Prepared:
        linear, _ = columns.zero_diagonal_terms(task.qubo)
        sign = jnp.sign(task.per_column(task.qubo.scale))[:, None]
        return _Prepared(
            Rows(task.qubo.couplings),
            task.per_column(linear).T,
            sign,
            streams.split(task.seeds, jnp.zeros(1, jnp.int32)),
        )

    def init(self, task: Task, prepared: _Prepared) -> _State:
        bits = task.initial
        if bits is None:
            bits = streams.random_bits(task.seeds, 0, jnp.arange(task.num_bits))
        start = bits.T.astype(jnp.int8)
        elites = jnp.broadcast_to(start, (self.num_elites, *start.shape))
        return _State(start, elites, jnp.full((self.num_elites, task.num_columns), jnp.inf, prepared.linear.dtype))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        n, sites = task.num_bits, jnp.arange(task.num_bits)
        number = 1 + _STREAMS_PER_PHASE * t
        flips = self.phase_sweeps * n
        search = self._begin(task, prepared, state.start, number)
        order = streams.words(task.seeds, number, sites).T

        def flip(k: jax.Array, search: _Search) -> _Search:
            return self._flip(prepared, order, t * flips + k, k, search)

        def part(p: jax.Array, search: _Search) -> _Search:
            first = p * _REFRESH_SWEEPS * n
            last = jnp.minimum(first + _REFRESH_SWEEPS * n, flips)
            return lax.fori_loop(first, last, flip, self._refreshed(prepared, search))

        if self.phase_sweeps <= _REFRESH_SWEEPS:
            search = lax.fori_loop(0, flips, flip, search)
        else:
            search = lax.fori_loop(0, -(-self.phase_sweeps // _REFRESH_SWEEPS), part, search)
        best, energy = search.best, search.best_energy
        # Compared by bits: energies added up along different paths differ by rounding, and copies would become elites.
        known = jnp.any(jnp.all(state.elites == best[None], axis=2) & jnp.isfinite(state.energies), axis=0)
        worst = jnp.argmax(state.energies, axis=0)
        enters = (
            (jnp.arange(self.num_elites)[:, None] == worst[None, :])
            & (energy[None, :] < state.energies)
            & ~known[None, :]
        )
        elites = jnp.where(enters[:, :, None], best[None], state.elites)
        energies = jnp.where(enters, energy[None, :], state.energies)
        return _State(self._restart(task, elites, energies, number), elites, energies)

    def _begin(self, task: Task, prepared: _Prepared, start: jax.Array, number: jax.Array) -> _Search:
        x = start.astype(prepared.linear.dtype)
        gaps, energy = self._looked_at(prepared, x)
        return _Search(1 - 2 * x, gaps, jnp.zeros(x.shape, jnp.int32), energy, start, energy)

    def _looked_at(self, prepared: _Prepared, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(changes by each flip (C, n), energies (C,)) of states x (C, n), in E/|scale|."""
        image = prepared.rows.image(x)
        gaps = (1 - 2 * x) * (image + prepared.linear) * prepared.sign
        return gaps, jnp.sum(x * (0.5 * image + prepared.linear), axis=1) * prepared.sign[:, 0]

    def _refreshed(self, prepared: _Prepared, search: _Search) -> _Search:
        """The same state, its numbers computed from its bits: flips only add to them, and rounding errors pile up."""
        gaps, energy = self._looked_at(prepared, (1 - search.d) / 2)
        _, best_energy = self._looked_at(prepared, search.best.astype(search.d.dtype))
        return search._replace(gaps=gaps, energy=energy, best_energy=best_energy)

    def _flip(self, prepared: _Prepared, order: jax.Array, step: jax.Array, k: jax.Array, search: _Search) -> _Search:
        n = search.d.shape[1]
        below = search.gaps < (search.best_energy - search.energy)[:, None]
        allowed = (search.free_at <= k) | below
        changes = jnp.where(allowed, search.gaps, jnp.inf)
        least = changes == jnp.min(changes, axis=1, keepdims=True)
        # Of equal changes the first in the order of the phase, which each step starts at another place.
        words = streams.words(prepared.flips, step, jnp.arange(2))
        place = (order + words[1][:, None]) >> 1
        index = jnp.argmin(jnp.where(least, place, jnp.uint32(2**32 - 1)), axis=1)
        here = jnp.arange(n)[None, :] == index[:, None]
        old = jnp.take_along_axis(search.d, index[:, None], axis=1)
        gap = jnp.take_along_axis(search.gaps, index[:, None], axis=1)
        rows = prepared.rows.rows(index, here.astype(old.dtype))
        gaps = jnp.where(here, -search.gaps, search.gaps + search.d * rows * (old * prepared.sign))
        d = jnp.where(here, -search.d, search.d)
        tenure = jnp.minimum(3 + (words[0] % jnp.uint32(max(n // 10, 10))).astype(jnp.int32), n // 4)
        free_at = jnp.where(here, (k + 1 + tenure)[:, None], search.free_at)
        energy = search.energy + gap[:, 0]
        lower = energy < search.best_energy

        def keep() -> jax.Array:
            return jnp.where(lower[:, None], (d < 0).astype(jnp.int8), search.best)

        best = lax.cond(jnp.any(lower), keep, lambda: search.best)
        return _Search(d, gaps, free_at, energy, best, jnp.minimum(energy, search.best_energy))

    def _restart(self, task: Task, elites: jax.Array, energies: jax.Array, number: jax.Array) -> jax.Array:
        """Bits of two elites, each from either, some drawn at random: (C, n)."""
        sites = jnp.arange(task.num_bits)
        draws = streams.words(task.seeds, number + 1, jnp.arange(2))
        # Places of elites fill from the front.
        there = jnp.maximum(jnp.sum(jnp.isfinite(energies), axis=0), 1).astype(jnp.uint32)
        reads = jnp.arange(task.num_columns, dtype=jnp.int32)
        a, b = (elites[(draws[i] % there).astype(jnp.int32), reads] for i in range(2))
        word = streams.words(task.seeds, number + 2, sites).T
        mixed = jnp.where(word >> 31 == 1, a, b)
        chance = streams.uniforms(task.seeds, number + 3, sites).T
        redrawn = chance < self.perturbation
        return jnp.where(redrawn, (word & 1).astype(jnp.int8), mixed)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        best = jnp.argmin(state.energies, axis=0)
        return Outcome((state.elites[best, jnp.arange(task.num_columns)].T,), {}, {})
