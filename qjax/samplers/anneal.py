"""Simulated annealing (Kirkpatrick, Gelatt, Vecchi 1983) by sequential single flips over all reads at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import KINDS
from qjax.energy.finder import Found
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import acceptance, found_sweeps, running, swaps, sweeps
from qjax.samplers.moves.temperature import between, check_betas, check_range, range_of

# Two states of a group may differ by next to nothing, and at no temperature of the range does it take the lower one.
_QUENCH = 1e6


class _Prepared(NamedTuple):
    sweeper: sweeps.Sweeper
    betas: jax.Array  # (T, P)
    quenched: bool = False  # whether the last sweep is at zero temperature


class _State(NamedTuple):
    inner: Any
    energy: jax.Array  # (C,) E/|scale|, up to a constant: that of the start at first, the offset from a refresh on
    best: Any
    best_energy: jax.Array  # (C,), up to the same constant


@dataclass(frozen=True)
class Anneal(Sampler):
    """num_sweeps sweeps of single flips at inverse temperatures beta_1 .. beta_T. A flip of bit i is accepted with

        "metropolis"  min(1, exp(-beta_t dE))            dE = scale (1 - 2x_i) f_i,     f = linear + Mx
        "heat_bath"   1 / (1 + exp(beta_t dE))

    In each sweep every bit has one turn, in all reads at once: one bit after another on dense, Gram and implicit
    couplings, a colour class at a time on sparse ones. The work of a read is num_sweeps x n flips proposed.
    beta_range: (hot, cold) in 1/units of E; None finds it from the Qubo (qjax.samplers.moves.temperature), with a
        colder hot end where `initial_states` are given, so that a warm start is not melted; with `blocks`, the last
        sweep is then at zero temperature.
    beta_schedule_type: "geometric" or "linear" from hot to cold.
    beta_schedule: the betas themselves, num_sweeps spread evenly over them; overrides both.
    acceptance: the rule above. At beta = 0 "metropolis" only inverts states, "heat_bath" draws random ones.
    fixed_cardinality: k keeps k ones in each state by exchanges of unlike bits (qjax.samplers.moves.swaps), up to 8192
        bits; `initial_states` with other numbers of ones get or lose some at random.
    return_states: "best" (lowest seen after any sweep), or "last": at one fixed beta these follow exp(-beta E).
    info: beta_range (*batch, 2), the first and the last beta.
    Errors: ValueError for implicit couplings without a diagonal; with fixed_cardinality, for k > n and for n > 8192.
    """

    num_sweeps: int = 1000
    beta_range: tuple[float, float] | None = None
    beta_schedule_type: str = "geometric"
    beta_schedule: tuple[float, ...] | None = None
    acceptance: str = "metropolis"
    fixed_cardinality: int | None = None
    return_states: str = "best"

    thermal: ClassVar[bool] = True
    with_more_time: ClassVar[str] = "longer"
    blocks: ClassVar[tuple[str, ...]] = KINDS
    adds_moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)
        one_of("beta_schedule_type", self.beta_schedule_type, ("geometric", "linear"))
        one_of("acceptance", self.acceptance, ("metropolis", "heat_bath"))
        one_of("return_states", self.return_states, ("best", "last"))
        check_range(self.beta_range, geometric=self.beta_schedule_type == "geometric")
        check_betas("beta_schedule", self.beta_schedule)
        swaps.check_cardinality(self.fixed_cardinality)

    def length(self, task: Task) -> int:
        return self.num_sweeps

    def prepare(self, task: Task) -> _Prepared:
        swaps.check_cardinality(self.fixed_cardinality, task.num_bits)
        if self.fixed_cardinality is not None:
            if task.blocks is not None and not isinstance(task.blocks, Found):
                raise ValueError("fixed_cardinality and blocks were both given: say it by qjax.blocks.choose")
            return _Prepared(swaps.Swaps(task.qubo, task.per_column), self._betas(task))
        quenched = task.blocks is not None and self.beta_range is None and self.beta_schedule is None
        sweeper = found_sweeps.sweeper(task.qubo, task.per_column, task.blocks)
        return _Prepared(sweeper, self._betas(task), quenched and self.return_states == "best" and self.num_sweeps > 1)

    def _betas(self, task: Task) -> jax.Array:
        dtype, shape = task.qubo.linear.dtype, (self.num_sweeps, task.num_problems)
        if self.beta_schedule is not None:
            which = jnp.arange(self.num_sweeps) * len(self.beta_schedule) // self.num_sweeps
            return jnp.broadcast_to(jnp.asarray(self.beta_schedule, dtype)[which][:, None], shape)
        hot, cold = range_of(task.qubo, self.beta_range, task.initial is not None, self.fixed_cardinality, task.blocks)
        return between(hot, cold, self.num_sweeps, self.beta_schedule_type)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        bits = task.first_states()
        if self.fixed_cardinality is not None:
            bits = swaps.with_ones(bits, self.fixed_cardinality, task.seeds, self.num_sweeps + 1)
        inner = prepared.sweeper.load(bits)
        energy = jnp.zeros(task.num_columns, task.qubo.linear.dtype)
        return _State(inner, energy, prepared.sweeper.snapshot(inner), energy)

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        rule = acceptance.metropolis if self.acceptance == "metropolis" else acceptance.heat_bath
        betas, number = prepared.betas[t], task.steps_before(t) + 1
        if prepared.quenched:
            betas = betas * jnp.where(t == self.num_sweeps - 1, _QUENCH, 1).astype(betas.dtype)
        weights = task.per_column(betas * task.qubo.scale)
        inner, change = prepared.sweeper.sweep(state.inner, rule, weights, task.seeds, number)
        if self.return_states == "last":
            return state._replace(inner=inner)
        sign = jnp.sign(task.per_column(task.qubo.scale))
        energy, best_energy = state.energy, state.best_energy
        if task.repeats is not None or self.num_sweeps >= running.EVERY:
            energy, best_energy = running.refreshed(
                prepared.sweeper, number, (state.inner,), state.best, (energy, best_energy), (sign, sign)
            )
        energy = energy + change * sign
        lower = energy < best_energy
        new = prepared.sweeper.snapshot(inner)

        def keep() -> Any:
            return jax.tree.map(lambda a, b: jnp.where(lower[None, :], a, b), new, state.best)

        best = lax.cond(jnp.any(lower), keep, lambda: state.best)
        return _State(inner, energy, best, jnp.minimum(energy, best_energy))

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        last = prepared.sweeper.unload(prepared.sweeper.snapshot(state.inner))
        ends = jnp.stack([prepared.betas[0], prepared.betas[-1]], axis=1)
        if self.return_states == "last":
            return Outcome((last,), {}, {"beta_range": ends})
        return Outcome((prepared.sweeper.unload(state.best), last), {}, {"beta_range": ends})
