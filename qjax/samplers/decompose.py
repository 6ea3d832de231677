"""Decomposition: a problem too large for a sampler, by pieces of a size that suits it (qbsolv: Booth, Reinhardt, Roy
2017; the energy-impact decomposer of dwave-hybrid)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.energy.blocks import KINDS, Blocks
from qjax.energy.couplings import Dense, Gram, Implicit, Sparse
from qjax.energy.couplings import zero_diagonal as without_diagonal
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.samplers.anneal import Anneal
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.moves import columns, streams
from qjax.samplers.moves.rows import listed

# How far S grows along a graph; bits beyond are taken by their energy impact alone.
_RADIUS = 32


class _Prepared(NamedTuple):
    linear: jax.Array  # (n, C), the couplings' diagonal moved in
    diagonal: jax.Array | None  # (n,), the diagonal that implicit couplings keep
    scale: jax.Array  # (C,)
    lists: tuple[jax.Array, jax.Array] | None  # (n, k) neighbours and couplings, of sparse ones


class _State(NamedTuple):
    x: jax.Array  # (n, C) 0/1
    fields: jax.Array  # (n, C), linear + Mx
    visited: jax.Array  # (n, C): already chosen in this pass over the bits


class _Piece(NamedTuple):
    """Which bits make a piece: `count` groups of every family, and some free bits.

    groups  (G, b) bits of each family's groups; the free bits come last, as groups of one
    counts  how many groups of each are in a piece
    blocks  those of the piece, whose bits are in the order of `chosen`; None without blocks
    """

    groups: tuple[jax.Array, ...]
    counts: tuple[int, ...]
    blocks: Blocks | None

    @staticmethod
    def of(task: Task, size: int) -> _Piece:
        n, blocks = task.num_bits, Blocks() if task.blocks is None else task.blocks
        part = min(size / n, 1.0)
        groups, counts, families, first = [], [], [], 0
        held = jnp.zeros(n, bool)
        for family in blocks.families:
            of_family = jnp.asarray(family.groups)
            counts.append(max(round(part * of_family.shape[0]), 1))
            shape = (counts[-1], *family.indices.shape[1:])
            families.append(replace(family, indices=first + np.arange(math.prod(shape), dtype=np.int32).reshape(shape)))
            first += math.prod(shape)
            groups.append(of_family)
            held = held.at[of_family.reshape(-1)].set(True)
        free = n - blocks.num_bits
        if free:
            groups.append(jnp.nonzero(~held, size=free)[0][:, None])
            counts.append(max(round(part * free), 1))
        return _Piece(tuple(groups), tuple(counts), Blocks(tuple(families)) if families else None)

    @property
    def size(self) -> int:
        return sum(count * int(groups.shape[1]) for groups, count in zip(self.groups, self.counts, strict=True))

    def chosen(self, score: jax.Array) -> jax.Array:
        """The bits (C, size) of the groups of lowest score (n, C), that of a group being its lowest bit's."""
        found = []
        for groups, count in zip(self.groups, self.counts, strict=True):
            lowest = jnp.min(score[groups], axis=1)
            found.append(groups[lax.top_k(-lowest.T, count)[1]].reshape((score.shape[1], -1)))
        return jnp.concatenate(found, axis=1)


@dataclass(frozen=True)
class Decompose(Sampler):
    """Each of num_rounds rounds takes `size` bits S of each read, holds the others, and gives what depends on S,

        E(x_S) / scale = b.x_S + 1/2 x_S' M_SS x_S + const,     b = (linear + Mx)_S - M_SS x_S,

    to `sampler`, all of its reads starting from the current x_S. The lowest state found replaces x_S unless it is
    worse, so no energy rises.
    S are the bits of the least change (1 - 2x_i) f_i by a flip among those that the current pass has not chosen yet; a
    pass chooses every bit. On sparse couplings S grows around the one of least change, the nearest bits of the graph
    first: bits far apart would be separate problems.
    With blocks S are whole groups, of each family and of the free bits in proportion, at least one of each; `sampler`
    is given the blocks of the piece, and states outside them are not taken.
    sampler: any qjax sampler; with a host sampler (a QPU of `size` bits) this runs on the host, too, else inside jit.
    size: bits of a piece. num_rounds: pieces per read. sub_reads: reads of `sampler` per piece.
    The cost of a round on implicit couplings is `size` products, on Gram couplings that of a (size, size) Gram matrix,
    for each read. No info.
    Errors: ValueError for implicit couplings without a diagonal; those of `sampler`.
    """

    sampler: Any = field(default_factory=lambda: Anneal(num_sweeps=50))
    size: int = 128
    num_rounds: int = 50
    sub_reads: int = 4

    with_more_time: ClassVar[str] = "continue"
    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("size", self.size)
        positive("num_rounds", self.num_rounds)
        positive("sub_reads", self.sub_reads)
        if not callable(self.sampler) or not hasattr(self.sampler, "is_host"):
            raise ValueError(f"sampler must be a qjax sampler, got {type(self.sampler).__name__}")
        object.__setattr__(self, "is_host", bool(self.sampler.is_host))

    def length(self, task: Task) -> int:
        return self.num_rounds

    def prepare(self, task: Task) -> _Prepared:
        linear, diagonal = columns.zero_diagonal_terms(task.qubo)
        couplings = task.qubo.couplings
        lists = listed(couplings) if isinstance(couplings, Sparse) else None
        return _Prepared(task.per_column(linear), diagonal, task.per_column(task.qubo.scale), lists)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        x = task.first_states().astype(prepared.linear.dtype)
        return _State(x, _fields(task, prepared, x), jnp.zeros(x.shape, bool))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        n, piece = task.num_bits, _Piece.of(task, self.size)
        visited = state.visited & ~jnp.all(state.visited, axis=0, keepdims=True)
        chosen = self._chosen(task, prepared, t, state, visited, piece)  # (C, size)
        reads = jnp.arange(task.num_columns)[:, None]
        among = _among(task.qubo.couplings, prepared, chosen)
        old = state.x.T[reads, chosen]
        linear = state.fields.T[reads, chosen] - _times(among, old)
        words = streams.words(task.seeds, t + 1, jnp.arange(2)).T
        keys = jax.random.wrap_key_data(words, impl="threefry2x32")
        new, lowest = self._solved(keys, linear, among, prepared.scale, old, piece.blocks)
        before = prepared.scale * jnp.sum((linear + 0.5 * _times(among, old)) * old, axis=1)
        kept = jnp.where((lowest <= before)[:, None], new.astype(old.dtype), old)
        x = state.x.T.at[reads, chosen].set(kept).T
        marked = jnp.zeros((task.num_columns, n), bool).at[reads, chosen].set(True).T
        return _State(x, _fields(task, prepared, x), visited | marked)

    def _chosen(
        self, task: Task, prepared: _Prepared, t: jax.Array, state: _State, visited: jax.Array, piece: _Piece
    ) -> jax.Array:
        impact = (1 - 2 * state.x) * state.fields * jnp.sign(prepared.scale)[None, :]
        peak = jnp.max(jnp.abs(impact), axis=0, keepdims=True)
        # Between 0 and 1/2; visited bits come after all others.
        score = 0.25 + 0.25 * impact / jnp.where(peak > 0, peak, 1)
        score = jnp.where(visited, score + 4.0 * _RADIUS, score)
        couplings = task.qubo.couplings
        if isinstance(couplings, Sparse) and piece.size < task.num_bits:
            # Step numbers that nothing else uses: the first bits have 0, the keys 1 .. num_rounds.
            step = self.num_rounds + 1 + t
            noise = streams.uniforms(task.seeds, step, jnp.arange(task.num_bits)).astype(score.dtype)
            score = score + _distances(couplings, jnp.argmin(score + 1e-3 * noise, axis=0)).astype(score.dtype)
        return piece.chosen(score)

    def _solved(
        self,
        keys: jax.Array,
        linear: jax.Array,
        among: jax.Array,
        scale: jax.Array,
        old: jax.Array,
        blocks: Blocks | None,
    ) -> tuple[jax.Array, jax.Array]:
        """(bits (C, size), energies (C,)) of the best read for every column's problem."""

        def one(key: jax.Array, linear: jax.Array, among: jax.Array, scale: jax.Array, old: jax.Array) -> Any:
            qubo = Qubo(jnp.zeros((), linear.dtype), linear, Dense(among), scale, Labels.range(linear.shape[0]))
            start = old[None].astype(jnp.int8)
            if blocks is None:
                samples = self.sampler(key, qubo, self.sub_reads, start)
                return samples.best_bits, samples.best_energy
            samples = self.sampler(key, qubo, self.sub_reads, start, blocks=blocks)
            kept = jnp.asarray(samples.info["feasible"]).any()
            return samples.best_bits, jnp.where(kept, samples.best_energy, jnp.inf)

        if not self.is_host:
            solved: tuple[jax.Array, jax.Array] = jax.vmap(one)(keys, linear, among, scale, old)
            return solved
        answers = [one(keys[c], linear[c], among[c], scale[c], old[c]) for c in range(linear.shape[0])]
        bits, energies = zip(*answers, strict=True)
        return jnp.stack(bits), jnp.stack(energies)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        return Outcome((state.x,), {}, {})


def _fields(task: Task, prepared: _Prepared, x: jax.Array) -> jax.Array:
    image = columns.apply(task.qubo.couplings, x)
    return prepared.linear + (image if prepared.diagonal is None else image - prepared.diagonal[:, None] * x)


def _times(among: jax.Array, x: jax.Array) -> jax.Array:
    """M_SS x_S for every column, (C, s, s) and (C, s)."""
    return jnp.einsum("cij,cj->ci", among, x, precision="highest")


def _among(couplings: Any, prepared: _Prepared, chosen: jax.Array) -> jax.Array:
    """M_SS (C, s, s) for the bits chosen (C, s), with a zero diagonal."""
    count, size = chosen.shape
    reads, dtype = jnp.arange(count)[:, None], prepared.linear.dtype
    match couplings:
        case Dense(matrix):
            return matrix[chosen[:, :, None], chosen[:, None, :]].astype(dtype)
        case Gram(factor):
            parts = jnp.moveaxis(factor[:, chosen], 0, 1).astype(dtype)  # (C, N, s)
            return jax.vmap(without_diagonal)(jnp.einsum("cki,ckj->cij", parts, parts, precision="highest"))
        case Implicit():
            units = jnp.zeros((count * size, couplings.size), dtype)
            units = units.at[jnp.arange(count * size), chosen.reshape(-1)].set(1.0)
            rows = couplings.matvec(units).reshape((count, size, -1))
            return jax.vmap(without_diagonal)(jax.vmap(lambda r, s: r[:, s])(rows, chosen))
        case _:
            assert prepared.lists is not None
            sites, weights = prepared.lists
            # The place of each bit in S; all others share a last column, which is cut off.
            place = jnp.full((count, couplings.size), size).at[reads, chosen].set(jnp.arange(size)[None, :])
            at = jax.vmap(lambda p, s: p[sites[s]])(place, chosen)  # (C, s, k)
            table = jnp.zeros((count, size, size + 1), dtype)
            terms = weights[chosen].astype(dtype)
            return table.at[reads[:, :, None], jnp.arange(size)[None, :, None], at].add(terms)[:, :, :size]


def _distances(couplings: Sparse, start: jax.Array) -> jax.Array:
    """Steps along the graph from the bit start (C,) of each column to each bit, (n, C), at most _RADIUS."""
    here = (jnp.arange(couplings.size)[:, None] == start[None, :])[couplings.order]

    def grow(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reached, distance = carry
        near = columns.stack([columns.neighbour_any(reached, index) for index in couplings.neighbours]) | reached
        return near, jnp.where(near & ~reached, k + 1, distance)

    distance = jnp.where(here, jnp.int32(0), jnp.int32(_RADIUS))
    return lax.fori_loop(jnp.int32(0), jnp.int32(_RADIUS - 1), grow, (here, distance))[1][couplings.position]
