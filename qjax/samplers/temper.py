"""Parallel tempering (Swendsen, Wang 1986; Hukushima, Nemoto 1996), with isoenergetic cluster moves on sparse
graphs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.energy.blocks import KINDS
from qjax.energy.couplings import Sparse
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import acceptance, block_sweeps, clusters, columns, replicas, running, streams, sweeps
from qjax.samplers.moves.temperature import between, check_betas, check_range, range_of

_FEWEST_BETAS, _MOST_BETAS = 8, 64
_CLUSTER_EVERY = 5
# Mean number of neighbours up to which cluster moves are made by default; beyond, the bits that differ are one cluster.
_FEW_NEIGHBOURS = 5


class _Prepared(NamedTuple):
    sweeper: sweeps.Sweeper
    ladders: Task  # each column as its replicas, c (K B) + k B + b
    betas: jax.Array  # (B, P)
    weights: jax.Array  # (C, B), beta * scale
    sign: jax.Array  # (C,), of the scale: that of a weight is 0 at beta = 0
    seeds: jax.Array  # (2, C (K B)): of the exchanges


class _State(NamedTuple):
    inner: Any
    energy: jax.Array  # (C, K, B), E/scale
    best: Any
    best_energy: jax.Array  # (C,), E/|scale|
    exchanged: jax.Array  # (C, B), exchanges of each pair so far


@dataclass(frozen=True)
class Temper(Sampler):
    """Each read is a ladder of replicas at inverse temperatures beta_1 < .. < beta_B. After each sweep neighbours on
    the ladder (even and odd pairs in turn) exchange their states with probability

        min(1, exp((beta_b+1 - beta_b) (E_b+1 - E_b))),     E in the units of the Qubo

    The work of a read is num_sweeps x num_betas sweeps (twice that with cluster moves).
    num_betas: B, the rungs of the ladder; None: sqrt(n), at least 8 and at most 64.
    beta_range: (hot, cold) in 1/units of E, geometric; None finds it from the Qubo.
    betas: the ladder itself, rising; overrides both.
    acceptance: "metropolis" or "heat_bath"; at beta = 0 the former only inverts states, the latter draws random ones.
    cluster_every: sweeps between isoenergetic cluster moves (qjax.samplers.moves.clusters), for which each temperature
        has two replicas; 0 for none; None: 5 on sparse couplings of few neighbours, none elsewhere. With blocks
        there are none.
    return_states: "best" (lowest seen on any rung), or "last": the final state of the rung return_rung (0 the hottest,
        -1 the coldest), which follows exp(-beta E).
    info: beta_range (*batch, 2); exchange_rates (*batch, reads, B - 1), the part of the exchanges tried that was made.
    Errors: ValueError for implicit couplings without a diagonal, and for a return_rung that the ladder does not have.
    """

    num_sweeps: int = 500
    num_betas: int | None = None
    beta_range: tuple[float, float] | None = None
    betas: tuple[float, ...] | None = None
    acceptance: str = "metropolis"
    cluster_every: int | None = None
    return_states: str = "best"
    return_rung: int = -1

    thermal: ClassVar[bool] = True
    with_more_time: ClassVar[str] = "continue"
    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)
        if self.num_betas is not None:
            positive("num_betas", self.num_betas)
        one_of("acceptance", self.acceptance, ("metropolis", "heat_bath"))
        one_of("return_states", self.return_states, ("best", "last"))
        check_range(self.beta_range)
        check_betas("betas", self.betas)
        if self.betas is not None and list(self.betas) != sorted(self.betas):
            raise ValueError(f"betas must rise, got {self.betas}")
        if self.cluster_every is not None and (not isinstance(self.cluster_every, int) or self.cluster_every < 0):
            raise ValueError(f"cluster_every must be an integer of at least 0 or None, got {self.cluster_every!r}")
        if not isinstance(self.return_rung, int):
            raise ValueError(f"return_rung must be an integer, got {self.return_rung!r}")

    def _rungs(self, task: Task) -> int:
        if self.betas is not None:
            return len(self.betas)
        if self.num_betas is not None:
            return self.num_betas
        # Energies fluctuate by about sqrt(n): with that many rungs, neighbours overlap and exchange.
        return min(max(round(math.sqrt(task.num_bits)), _FEWEST_BETAS), _MOST_BETAS)

    def _cluster_interval(self, task: Task) -> int:
        """Sweeps between cluster moves, 0 for none."""
        couplings = task.qubo.couplings
        if task.blocks is not None or not isinstance(couplings, Sparse) or not sweeps.by_classes(couplings):
            return 0
        if self.cluster_every is not None:
            return self.cluster_every
        few = columns.stored_couplings(couplings) <= _FEW_NEIGHBOURS * task.num_bits
        return _CLUSTER_EVERY if few else 0

    def length(self, task: Task) -> int:
        return self.num_sweeps

    def prepare(self, task: Task) -> _Prepared:
        rungs, dtype = self._rungs(task), task.qubo.linear.dtype
        if not -rungs <= self.return_rung < rungs:
            raise ValueError(f"return_rung must name one of the {rungs} betas, got {self.return_rung}")
        if self.betas is None:
            hot, cold = range_of(task.qubo, self.beta_range, warm=task.initial is not None, blocks=task.blocks)
            betas = between(hot, cold, rungs)
        else:
            betas = jnp.broadcast_to(jnp.asarray(self.betas, dtype)[:, None], (rungs, task.num_problems))
        count = rungs * (2 if self._cluster_interval(task) else 1)
        ladders = task.replicated(count)
        seeds = streams.split(task.seeds, count + jnp.arange(count))
        weights = task.per_column(betas * task.qubo.scale[None, :]).T
        sign = jnp.sign(task.per_column(task.qubo.scale))
        view = block_sweeps.sweeper(task.qubo, ladders.per_column, task.blocks)
        return _Prepared(view, ladders, betas, weights, sign, seeds)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        inner = prepared.sweeper.load(prepared.ladders.first_states())
        energy = prepared.sweeper.energies(inner).reshape((task.num_columns, -1, prepared.betas.shape[0]))
        best = replicas.select(prepared.sweeper.snapshot(inner), jnp.zeros(task.num_columns, jnp.int32))
        first = energy[:, 0, 0] * prepared.sign
        exchanged = jnp.zeros((task.num_columns, prepared.betas.shape[0]), energy.dtype)
        return _State(inner, energy, best, first, exchanged)

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        rule = acceptance.metropolis if self.acceptance == "metropolis" else acceptance.heat_bath
        if self.num_sweeps >= running.EVERY:
            kept, signs = (state.energy, state.best_energy), (1, prepared.sign)
            kept = running.refreshed(prepared.sweeper, t + 1, (state.inner,), state.best, kept, signs)
            state = state._replace(energy=kept[0], best_energy=kept[1])
        weights = jnp.broadcast_to(prepared.weights[:, None, :], state.energy.shape)
        inner, change = prepared.sweeper.sweep(state.inner, rule, weights.reshape(-1), prepared.ladders.seeds, t + 1)
        energy = state.energy + change.reshape(state.energy.shape)
        inner, energy, up = self._exchange(prepared, inner, energy, weights, t)
        every = self._cluster_interval(task)
        if every:

            def move(inner: Any, energy: jax.Array) -> tuple[Any, jax.Array]:
                return self._cluster(task, prepared, inner, energy, t)

            inner, energy = lax.cond((t + 1) % every == 0, move, lambda *same: same, inner, energy)
        state = state._replace(inner=inner, energy=energy, exchanged=state.exchanged + jnp.mean(up, axis=1))
        if self.return_states == "last":
            return state
        signed = (energy * prepared.sign[:, None, None]).reshape((task.num_columns, -1))
        best, lowest = replicas.keep_best(prepared.sweeper.snapshot(inner), signed, state.best, state.best_energy)
        return state._replace(best=best, best_energy=lowest)

    def _exchange(
        self, prepared: _Prepared, inner: Any, energy: jax.Array, weights: jax.Array, t: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Accepted pairs exchange states; up (C, K, B) is 1 where rung b got that of b + 1."""
        gain = (jnp.roll(weights, -1, axis=2) - weights) * (jnp.roll(energy, -1, axis=2) - energy)
        chance = jnp.log(streams.uniforms(prepared.seeds, t, jnp.zeros(1, jnp.int32))).reshape(energy.shape)
        rung = jnp.arange(energy.shape[2], dtype=t.dtype)
        paired = (rung % 2 == t % 2) & (rung < rung.size - 1)
        up = paired[None, None, :] & (chance.astype(gain.dtype) < gain)
        down = jnp.roll(up, 1, axis=2)

        def swapped(x: jax.Array) -> jax.Array:
            wide = x.reshape((-1, *energy.shape))
            moved = jnp.where(down[None], jnp.roll(wide, 1, axis=3), wide)
            return jnp.where(up[None], jnp.roll(wide, -1, axis=3), moved).reshape(x.shape)

        return jax.tree.map(swapped, inner), swapped(energy).reshape(energy.shape), up.astype(energy.dtype)

    def _cluster(
        self, task: Task, prepared: _Prepared, inner: Any, energy: jax.Array, t: jax.Array
    ) -> tuple[Any, jax.Array]:
        """One isoenergetic move between the two replicas of every rung."""
        couplings = task.qubo.couplings
        assert isinstance(couplings, Sparse)
        wide = inner.reshape((-1, *energy.shape))
        a, b = (wide[:, :, k].reshape((wide.shape[0], -1)) for k in range(2))
        seeds = prepared.seeds.reshape((2, *energy.shape))[:, :, 0].reshape((2, -1))
        a, b = clusters.exchange(couplings, a, b, seeds, self.num_sweeps + t)
        joined = jnp.stack([x.reshape((-1, *energy[:, 0].shape)) for x in (a, b)], axis=2).reshape(inner.shape)
        return joined, prepared.sweeper.energies(joined, often=True).reshape(energy.shape)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        ends = jnp.stack([prepared.betas[0], prepared.betas[-1]], axis=1)
        # Even pairs are tried first, and once more than odd ones where the number of sweeps is odd.
        tried = (self.num_sweeps + 1 - np.arange(prepared.betas.shape[0] - 1) % 2) // 2
        exchanged = state.exchanged[:, :-1]
        rates = {"exchange_rates": exchanged / jnp.asarray(np.maximum(tried, 1), exchanged.dtype)[None, :]}
        chosen = state.best
        if self.return_states == "last":
            place = jnp.full(task.num_columns, self.return_rung % prepared.betas.shape[0])
            chosen = replicas.select(prepared.sweeper.snapshot(state.inner), place)
        return Outcome((prepared.sweeper.unload(chosen),), rates, {"beta_range": ends})
