"""Population annealing (Hukushima, Iba 2003; Machta 2010, Phys. Rev. E 82, 026704): a cooled population, resampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import KINDS, Blocks
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import acceptance, block_sweeps, replicas, running, streams, sweeps
from qjax.samplers.moves.temperature import between, check_betas, check_range, range_of

# The first weights lead from beta = 0 to the hot end: few replicas would survive a jump to that of an anneal.
_HOT_PART = 1 / 4


class _Prepared(NamedTuple):
    sweeper: sweeps.Sweeper
    members: Task  # each column as its population, c S + s
    betas: jax.Array  # (T, P)


class _State(NamedTuple):
    inner: Any
    energy: jax.Array  # (C, S), E/scale - offset
    log_partition: jax.Array  # (C,), without the offset
    effective: jax.Array  # (C,), the smallest effective fraction of the population so far
    best: Any
    best_energy: jax.Array  # (C,), E/|scale|


@dataclass(frozen=True)
class Population(Sampler):
    """Each read is a population of S = population_size replicas, uniform at first (beta_0 = 0). At each beta_t

        weights    w_s = exp(-(beta_t - beta_t-1) E_s),     ln Z(beta_t) = ln Z(beta_t-1) + ln mean_s w_s
        resample   S parents by systematic resampling: w_s / mean w copies of s, rounded up or down at random
        sweep      sweeps_per_beta sweeps at beta_t

    The work of a read is num_betas x sweeps_per_beta x population_size sweeps.
    num_betas, beta_range, beta_schedule_type: as many betas from hot to cold, (hot, cold) in 1/units of E, spaced
        "geometric" or "linear"; a beta_range of None is found from the Qubo.
    beta_schedule: the betas themselves, rising; overrides all three.
    acceptance: "metropolis" or "heat_bath" (qjax.samplers.moves.acceptance).
    return_states: "best" (lowest seen of any replica), or "last": a replica drawn from the final population, which
        follows exp(-beta E) up to a bias of order 1/population_size.
    info: log_partition (*batch, reads), an estimate of ln sum_x exp(-beta E(x)) at the last beta, whose exp is unbiased
        over reads (without `initial_states`); effective_fraction (*batch, reads), the smallest
        (sum w)^2 / (S sum w^2); beta_range (*batch, 2).
    Errors: ValueError for implicit couplings without a diagonal.
    """

    num_betas: int = 100
    sweeps_per_beta: int = 2
    population_size: int = 64
    beta_range: tuple[float, float] | None = None
    beta_schedule_type: str = "geometric"
    beta_schedule: tuple[float, ...] | None = None
    acceptance: str = "metropolis"
    return_states: str = "best"

    thermal: ClassVar[bool] = True
    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("num_betas", self.num_betas)
        positive("sweeps_per_beta", self.sweeps_per_beta)
        positive("population_size", self.population_size)
        one_of("beta_schedule_type", self.beta_schedule_type, ("geometric", "linear"))
        one_of("acceptance", self.acceptance, ("metropolis", "heat_bath"))
        one_of("return_states", self.return_states, ("best", "last"))
        check_range(self.beta_range, geometric=self.beta_schedule_type == "geometric")
        check_betas("beta_schedule", self.beta_schedule)
        if self.beta_schedule is not None and list(self.beta_schedule) != sorted(self.beta_schedule):
            raise ValueError(f"beta_schedule must rise, got {self.beta_schedule}")

    def length(self, task: Task) -> int:
        return self.num_betas if self.beta_schedule is None else len(self.beta_schedule)

    def prepare(self, task: Task) -> _Prepared:
        members = task.replicated(self.population_size)
        if self.beta_schedule is None:
            hot, cold = range_of(task.qubo, self.beta_range, warm=task.initial is not None, blocks=task.blocks)
            if self.beta_range is None:
                hot = _HOT_PART * hot
            betas = between(hot, cold, self.num_betas, self.beta_schedule_type)
        else:
            betas = jnp.asarray(self.beta_schedule, task.qubo.linear.dtype)[:, None]
            betas = jnp.broadcast_to(betas, (len(self.beta_schedule), task.num_problems))
        return _Prepared(block_sweeps.sweeper(task.qubo, members.per_column, task.blocks), members, betas)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        inner = prepared.sweeper.load(prepared.members.first_states())
        energy = prepared.sweeper.energies(inner).reshape((task.num_columns, -1))
        first = replicas.select(prepared.sweeper.snapshot(inner), jnp.zeros(task.num_columns, jnp.int32))
        blocks = Blocks() if task.blocks is None else task.blocks
        log_partition = jnp.full(task.num_columns, blocks.log_count(task.num_bits), energy.dtype)
        return _State(inner, energy, log_partition, jnp.ones_like(log_partition), first, energy[:, 0] * _sign(task))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        rule = acceptance.metropolis if self.acceptance == "metropolis" else acceptance.heat_bath
        scale = task.per_column(task.qubo.scale)
        weights = task.per_column(prepared.betas[t]) * scale
        before = jnp.where(t > 0, task.per_column(prepared.betas[jnp.maximum(t - 1, 0)]), 0) * scale
        logs = -(weights - before)[:, None] * state.energy
        largest = jnp.max(logs, axis=1, keepdims=True)
        relative = jnp.exp(logs - largest)
        total = jnp.sum(relative, axis=1)
        size = self.population_size
        log_partition = state.log_partition + largest[:, 0] + jnp.log(total / size)
        effective = total**2 / (size * jnp.sum(relative**2, axis=1))

        parents = _systematic(relative, streams.uniforms(task.seeds, t, jnp.zeros(1, jnp.int32))[0])
        energy = jnp.take_along_axis(state.energy, parents, axis=1)
        columns = (jnp.arange(task.num_columns, dtype=parents.dtype)[:, None] * size + parents).reshape(-1)
        inner = jax.tree.map(lambda x: jnp.take(x, columns, axis=1), state.inner)

        def sweep(k: jax.Array, carry: tuple[Any, running.Kept]) -> tuple[Any, running.Kept]:
            inner, kept = carry
            number = t * self.sweeps_per_beta + k + 1
            if self.length(task) * self.sweeps_per_beta >= running.EVERY:
                kept = running.refreshed(prepared.sweeper, number, (inner,), state.best, kept, (1, _sign(task)))
            inner, change = prepared.sweeper.sweep(
                inner, rule, jnp.repeat(weights, size), prepared.members.seeds, number
            )
            return inner, (kept[0] + change.reshape(energy.shape), kept[1])

        inner, (energy, best_energy) = lax.fori_loop(
            0, self.sweeps_per_beta, sweep, (inner, (energy, state.best_energy))
        )
        state = state._replace(
            inner=inner,
            energy=energy,
            log_partition=log_partition,
            effective=jnp.minimum(effective, state.effective),
            best_energy=best_energy,
        )
        if self.return_states == "last":
            return state
        signed = energy * _sign(task)[:, None]
        best, lowest = replicas.keep_best(prepared.sweeper.snapshot(inner), signed, state.best, state.best_energy)
        return state._replace(best=best, best_energy=lowest)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        offset = task.per_column(prepared.betas[-1] * task.qubo.scale * task.qubo.offset)
        info = {"log_partition": state.log_partition - offset, "effective_fraction": state.effective}
        chosen = state.best
        if self.return_states == "last":
            # Copies of one parent stand side by side, so a fixed place would not be a fair draw.
            word = streams.words(task.seeds, self.length(task), jnp.zeros(1, jnp.int32))[0]
            place = (word % jnp.uint32(self.population_size)).astype(jnp.int32)
            chosen = replicas.select(prepared.sweeper.snapshot(state.inner), place)
        ends = jnp.stack([prepared.betas[0], prepared.betas[-1]], axis=1)
        return Outcome((prepared.sweeper.unload(chosen),), info, {"beta_range": ends})


def _systematic(weights: jax.Array, offsets: jax.Array) -> jax.Array:
    """Parents (C, S) for weights (C, S): those at (offset + k) / S of the summed weights, offset (C,) in (0, 1).

    The numbers of copies are added up in fixed point, which is exact: float32 sums of 10^6 replicas would be off by up
    to 1/16 of a copy.
    """
    size = weights.shape[1]
    one = 2 ** (30 - size.bit_length())  # the sum, S copies but for rounding, fits int32
    copies = jnp.round(weights / jnp.sum(weights, axis=1, keepdims=True) * (size * one)).astype(jnp.int32)
    first = jnp.floor(offsets * one).astype(jnp.int32)
    marks = jnp.arange(size, dtype=jnp.int32)[None, :] * one + first[:, None]
    place = jax.vmap(partial(jnp.searchsorted, side="right"))(jnp.cumsum(copies, axis=1), marks)
    return jnp.minimum(place, size - 1).astype(jnp.int32)


def _sign(task: Task) -> jax.Array:
    return jnp.sign(task.per_column(task.qubo.scale))
