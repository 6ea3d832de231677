"""Tabu search by flips, or by moves of whole groups, with elites (Glover 1989; restarts as in the memetic search of Lu,
Glover, Hao 2010, European Journal of Operational Research 207, 1254)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import KINDS
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.moves import neighbourhood, streams

_STREAMS_PER_PHASE = 4
# Within a phase, every so many times n flips the changes and energies are computed again: 2 % of the products of 100 n
# flips, at the speed of a matmul.
_REFRESH_SWEEPS = 100


class _Prepared(NamedTuple):
    moves: neighbourhood.Neighbourhood
    choices: jax.Array  # (2, C): seeds of the streams of tenures and ties


class _State(NamedTuple):
    start: jax.Array  # (C, n) int8 in the order of the neighbourhood, where the next phase begins
    elites: jax.Array  # (E, C, n) int8
    energies: jax.Array  # (E, C), E/|scale|; infinite where there is none yet


class _Search(NamedTuple):
    state: Any  # of the neighbourhood
    until: jax.Array  # (C, marks) int32: the first step at which a mark is no longer tabu
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
    Blocks are moved as wholes (qjax.samplers.moves.exchanges): the best of all moves of all groups and of all flips of
    free bits, by the same rules; tabu is the state that a group has left. A phase is as many steps, and a new start
    mixes groups. Digits of more than 4 bits are left to single flips.
    No info. Errors: ValueError for implicit couplings without a diagonal, and for blocks on more than 8192 bits of
    couplings that are not dense.
    """

    num_sweeps: int = 100
    phase_sweeps: int = 10
    num_elites: int = 4
    perturbation: float = 0.1

    with_more_time: ClassVar[str] = "continue"
    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)
        positive("phase_sweeps", self.phase_sweeps)
        positive("num_elites", self.num_elites)
        if not 0 <= self.perturbation <= 1:
            raise ValueError(f"perturbation must be in 0 .. 1, got {self.perturbation!r}")

    def length(self, task: Task) -> int:
        return -(-self.num_sweeps // self.phase_sweeps)

    def prepare(self, task: Task) -> _Prepared:
        moves = neighbourhood.of(task.qubo, task.per_column, task.blocks)
        return _Prepared(moves, streams.split(task.seeds, jnp.zeros(1, jnp.int32)))

    def init(self, task: Task, prepared: _Prepared) -> _State:
        start = prepared.moves.load(task.first_states())
        elites = jnp.broadcast_to(start, (self.num_elites, *start.shape))
        return _State(start, elites, jnp.full((self.num_elites, task.num_columns), jnp.inf, task.qubo.linear.dtype))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        n = task.num_bits
        number = 1 + _STREAMS_PER_PHASE * t
        steps = self.phase_sweeps * n
        search = self._begin(prepared, state.start)
        order = streams.words(task.seeds, number, jnp.arange(prepared.moves.count)).T

        def move(k: jax.Array, search: _Search) -> _Search:
            return self._move(prepared, order, t * steps + k, k, search)

        def part(p: jax.Array, search: _Search) -> _Search:
            first = p * _REFRESH_SWEEPS * n
            last = jnp.minimum(first + _REFRESH_SWEEPS * n, steps)
            return lax.fori_loop(first, last, move, self._refreshed(prepared, search))

        if self.phase_sweeps <= _REFRESH_SWEEPS:
            search = lax.fori_loop(0, steps, move, search)
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
        return _State(self._restart(task, prepared, elites, energies, number), elites, energies)

    def _begin(self, prepared: _Prepared, start: jax.Array) -> _Search:
        state, energy = prepared.moves.look(start)
        until = jnp.zeros((start.shape[0], prepared.moves.marks), jnp.int32)
        return _Search(state, until, energy, start, energy)

    def _refreshed(self, prepared: _Prepared, search: _Search) -> _Search:
        """The same state, its numbers computed from its bits: moves only add to them, and rounding errors pile up."""
        state, energy = prepared.moves.look(prepared.moves.bits(search.state))
        _, best_energy = prepared.moves.look(search.best)
        return search._replace(state=state, energy=energy, best_energy=best_energy)

    def _move(self, prepared: _Prepared, order: jax.Array, step: jax.Array, k: jax.Array, search: _Search) -> _Search:
        found = prepared.moves.found(search.state, search.until, k)
        below = found.changes < (search.best_energy - search.energy)[:, None]
        changes = jnp.where((found.until <= k) | below, found.changes, jnp.inf)
        least = changes == jnp.min(changes, axis=1, keepdims=True)
        # Of equal changes the first in the order of the phase, which each step starts at another place.
        words = streams.words(prepared.choices, step, jnp.arange(2))
        place = (order + words[1][:, None]) >> 1
        index = jnp.argmin(jnp.where(least, place, jnp.uint32(2**32 - 1)), axis=1)
        n = search.best.shape[1]
        tenure = 3 + (words[0] % jnp.uint32(max(n // 10, 10))).astype(jnp.int32)
        # With blocks all moves of a read may be tabu: it waits.
        change = jnp.take_along_axis(changes, index[:, None], axis=1)[:, 0]
        found = found._replace(changes=changes)
        state, until = prepared.moves.make(search.state, found, index, search.until, k, tenure)
        energy = search.energy + jnp.where(jnp.isfinite(change), change, 0)
        lower = energy < search.best_energy

        def keep() -> jax.Array:
            return jnp.where(lower[:, None], prepared.moves.bits(state), search.best)

        best = lax.cond(jnp.any(lower), keep, lambda: search.best)
        return _Search(state, until, energy, best, jnp.minimum(energy, search.best_energy))

    def _restart(
        self, task: Task, prepared: _Prepared, elites: jax.Array, energies: jax.Array, number: jax.Array
    ) -> jax.Array:
        """Bits or groups of two elites, each from either, some drawn at random: (C, n)."""
        sites = jnp.arange(task.num_bits)
        draws = streams.words(task.seeds, number + 1, jnp.arange(2))
        # Places of elites fill from the front.
        there = jnp.maximum(jnp.sum(jnp.isfinite(energies), axis=0), 1).astype(jnp.uint32)
        reads = jnp.arange(task.num_columns, dtype=jnp.int32)
        a, b = (elites[(draws[i] % there).astype(jnp.int32), reads] for i in range(2))
        word = streams.words(task.seeds, number + 2, sites).T
        chance = streams.uniforms(task.seeds, number + 3, sites).T
        return prepared.moves.mixed(a, b, word, chance < self.perturbation, task.seeds, number)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        best = jnp.argmin(state.energies, axis=0)
        return Outcome((prepared.moves.unload(state.elites[best, jnp.arange(task.num_columns)]),), {}, {})
