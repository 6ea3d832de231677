"""The free-energy machine (Shen et al. 2025, Nature Computational Science 5, 322): a mean-field anneal by an
optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from qjax.energy.couplings import Couplings
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import columns, streams, sweeps
from qjax.samplers.moves.spectrum import ends_of_spins


class _Prepared(NamedTuple):
    optimizer: optax.GradientTransformation
    couplings: Couplings
    diagonal: jax.Array | None  # (n,), the diagonal that implicit couplings keep
    fields: jax.Array  # (n, C), h
    strength: jax.Array  # (1, C), c0 with the sign of the scale


class _State(NamedTuple):
    v: jax.Array  # (n, C)
    inner: Any  # of the optimiser, columns last
    best: jax.Array  # (n, C) int8 bits
    best_energy: jax.Array  # (C,)


@dataclass(frozen=True)
class MeanField(Sampler):
    """In spins, E/scale = const + h.s + 1/2 s'Ks. Independent spins of means m = tanh(v) have the free energy

        F = c0 (h.m + 1/2 m'Km) - T sum_i S(m_i),     dF/dv = (c0 (K m + h) + T v) (1 - m^2)

    An optax optimiser descends it, in each read for itself, over num_steps steps while T falls geometrically.
    c0 = 1 / sqrt(lambda^2 + rms(h)^2), -lambda the smallest eigenvalue of K (a negative scale turns the signs of K and
    h): m leaves zero near T = 1. The work is one product with the couplings per step: all forms, 10^6 bits and more.
    optimizer: the name of an optax optimiser that takes a learning rate, or any GradientTransformation (then
        learning_rate is not used; keep one instance, since another one compiles again).
    learning_rate: of the named optimiser, in units of v.
    temperature_range: T at the first and the last step, in units of c0 E/scale.
    readout_every: steps between read-outs of the signs of v; the last step is read out too.
    return_states: "best" (lowest read-out), or "last". `initial_states`: v starts around 1 for 1 and -1 for 0.
    No info. Errors: ValueError naming the hyperparameter.
    """

    num_steps: int = 1000
    optimizer: Any = "rmsprop"
    learning_rate: float = 0.05
    temperature_range: tuple[float, float] = (1.0, 0.01)
    readout_every: int = 25
    return_states: str = "best"

    with_more_time: ClassVar[str] = "longer"

    def __post_init__(self) -> None:
        positive("num_steps", self.num_steps)
        positive("readout_every", self.readout_every)
        one_of("return_states", self.return_states, ("best", "last"))
        if not isinstance(self.optimizer, optax.GradientTransformation) and not (
            isinstance(self.optimizer, str) and callable(getattr(optax, self.optimizer, None))
        ):
            raise ValueError(f"optimizer must be an optax optimizer or the name of one, got {self.optimizer!r}")
        if not math.isfinite(self.learning_rate) or self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        ends = self.temperature_range
        if not (isinstance(ends, tuple) and len(ends) == 2 and all(math.isfinite(t) and t > 0 for t in ends)):
            raise ValueError(f"temperature_range must be (hot, cold), both positive, got {ends!r}")

    def length(self, task: Task) -> int:
        return -(-self.num_steps // self._every)

    @property
    def _every(self) -> int:
        return min(self.readout_every, self.num_steps)

    def prepare(self, task: Task) -> _Prepared:
        dtype = task.qubo.linear.dtype
        couplings = sweeps.for_products(task.qubo.couplings, dtype)
        diagonal = columns.kept_diagonal(couplings, dtype)
        smallest, largest = ends_of_spins(couplings, diagonal, dtype)
        fields = task.qubo.ising().fields.T
        peak = jnp.max(jnp.abs(fields), axis=0)
        rms = peak * jnp.sqrt(jnp.mean(jnp.square(fields / jnp.where(peak > 0, peak, 1)[None, :]), axis=0))
        depth = jnp.maximum(jnp.where(task.qubo.scale < 0, largest, -smallest), 0)
        size = jnp.hypot(depth, rms)
        strength = jnp.sign(task.qubo.scale) / jnp.where(size > 0, size, 1)
        optimizer = self.optimizer
        if isinstance(optimizer, str):
            optimizer = getattr(optax, optimizer)(self.learning_rate)
        return _Prepared(optimizer, couplings, diagonal, task.per_column(fields), task.per_column(strength)[None, :])

    def init(self, task: Task, prepared: _Prepared) -> _State:
        dtype = task.qubo.linear.dtype
        v = 0.1 * (2 * streams.uniforms(task.seeds, 0, jnp.arange(task.num_bits)) - 1).astype(dtype)
        if task.initial is not None:
            v = v + (2 * task.initial.astype(dtype) - 1)
        # One optimiser state per column, so that none mixes reads (as a norm over all of them would).
        inner = jax.vmap(prepared.optimizer.init, in_axes=1, out_axes=-1)(v)
        return _State(v, inner, (v > 0).astype(jnp.int8), jnp.full(task.num_columns, jnp.inf, dtype))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        dtype = state.v.dtype
        before, count, whole = task.substeps(t, self._every, self.num_steps)
        update = jax.vmap(prepared.optimizer.update, in_axes=-1, out_axes=-1)
        hot, cold = (math.log(end) for end in self.temperature_range)

        def advance(k: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            v, inner = carry
            done = (before + k).astype(dtype) / jnp.maximum(whole - 1, 1).astype(dtype)
            temperature = jnp.exp(hot + done * (cold - hot))
            m = jnp.tanh(v)
            pull = columns.spin_product(prepared.couplings, prepared.diagonal, m) + prepared.fields
            gradient = (prepared.strength * pull + temperature * v) * (1 - m * m)
            # Optax promotes dtypes in silence, which a program that embeds this may forbid.
            with jax.numpy_dtype_promotion("standard"):
                change, inner = update(gradient, inner, v)
            return v + change, inner

        v, inner = lax.fori_loop(0, count, advance, (state.v, state.inner))
        bits = (v > 0).astype(jnp.int8)
        if self.return_states == "last":
            return state._replace(v=v, inner=inner, best=bits)
        energy = columns.spin_energies(prepared.couplings, prepared.diagonal, prepared.fields, columns.signs(v))
        energy = energy * jnp.sign(prepared.strength[0])
        lower = energy < state.best_energy
        best = lax.cond(jnp.any(lower), lambda: jnp.where(lower[None, :], bits, state.best), lambda: state.best)
        return _State(v, inner, best, jnp.minimum(energy, state.best_energy))

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        return Outcome((state.best,), {}, {})
