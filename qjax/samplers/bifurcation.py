"""Simulated bifurcation: oscillators that fall into +-1 under a growing pump; products with the couplings only.

Goto, Tatsumura, Dixon 2019 (adiabatic); Goto et al. 2021, Science Advances 7, eabe7953 (ballistic, discrete); Kanao
and Goto 2022, Communications Physics 5, 153 (heated); arXiv 2508.17655 (generalized).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.couplings import Couplings
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import columns, streams, sweeps
from qjax.samplers.moves.spectrum import ends_of_spins


class _Prepared(NamedTuple):
    couplings: Couplings
    diagonal: jax.Array | None  # (n,), the diagonal that implicit couplings keep
    fields: jax.Array  # (n, P), h
    strength: jax.Array  # (P,), c0 with the sign of the scale
    time_step: jax.Array  # (P,), dt


class _State(NamedTuple):
    x: jax.Array  # (n, C)
    y: jax.Array  # (n, C)
    pump: jax.Array  # (n, C) of the generalized variant, else (1, C)
    best: jax.Array  # (n, C) int8 bits
    best_energy: jax.Array  # (C,)


@dataclass(frozen=True)
class Bifurcation(Sampler):
    """In spins, E/scale = const + h.s + 1/2 s'Ks. Positions x and momenta y of n oscillators per read, a pump a that
    grows evenly from 0 to 1 over num_steps:

        y += dt (-(1 - a) x - c0 (K z + h m));   x += dt y;   where |x| > 1: x = sign x, y = 0;   y += dt heat y_old

    The work is one product with the couplings per step, on all reads at once; all forms of couplings, and implicit ones
    whose diagonal is unknown get an estimate of it by eight products with random signs.
    variant: "ballistic": z = x, and m = rms(x) of the read, a reference spin that grows with the others.
        "discrete": z = sign x, m = 1. "generalized": ballistic, with a pump p of its own for each oscillator in place
        of 1 - a, from 1 to 0: p -= (1 - A x^2) p / (steps left).
    nonlinearity: A of "generalized", without unit. 0 is nearly ballistic; quality grows with A up to an edge of chaos
        and collapses beyond it. The default is near the best at strength 1 (docs/samplers.md).
    strength: c0 = strength / sqrt(lambda^2 + rms(h)^2), -lambda the smallest eigenvalue of K: for random couplings and
        strength 1 the usual 0.5 / (sqrt(n) rms K). A negative scale turns the signs of K and h.
    time_step: dt = min(time_step, 1.6 / sqrt(1 + c0 lambda_max)), which keeps the stiffest mode stable.
    heat: gamma of the heated variants, per unit of time (Kanao and Goto: 0.5 ballistic, 0.06 discrete); 0 for none.
    readout_every: steps between read-outs of the signs of x; the last step is read out too.
    return_states: "best" (lowest read-out), or "last". `initial_states`: x starts around half their spins.
    info: time_step (*batch,), the dt used. Errors: ValueError naming the hyperparameter.
    """

    num_steps: int = 1000
    variant: str = "generalized"
    time_step: float = 1.0
    strength: float = 1.0
    heat: float = 0.0
    nonlinearity: float = 0.3
    readout_every: int = 25
    return_states: str = "best"

    with_more_time: ClassVar[str] = "longer"

    def __post_init__(self) -> None:
        positive("num_steps", self.num_steps)
        positive("readout_every", self.readout_every)
        one_of("variant", self.variant, ("ballistic", "discrete", "generalized"))
        one_of("return_states", self.return_states, ("best", "last"))
        for name, value, low in (("time_step", self.time_step, 0), ("strength", self.strength, 0)):
            if not math.isfinite(value) or value <= low:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if not math.isfinite(self.heat) or self.heat < 0:
            raise ValueError(f"heat must be at least 0, got {self.heat!r}")
        if not math.isfinite(self.nonlinearity) or self.nonlinearity < 0:
            raise ValueError(f"nonlinearity must be at least 0, got {self.nonlinearity!r}")

    def length(self, task: Task) -> int:
        return -(-self.num_steps // self._every)

    @property
    def _every(self) -> int:
        return min(self.readout_every, self.num_steps)

    def prepare(self, task: Task) -> _Prepared:
        couplings = sweeps.for_products(task.qubo.couplings, task.qubo.linear.dtype)
        dtype = task.qubo.linear.dtype
        diagonal = columns.kept_diagonal(couplings, dtype)
        smallest, largest = ends_of_spins(couplings, diagonal, dtype)
        # What is minimised has the sign of the scale. K has no diagonal, so its eigenvalues add up to zero: there are
        # some of both signs unless K = 0.
        turned = task.qubo.scale < 0
        depth = jnp.maximum(jnp.where(turned, largest, -smallest), 0)
        height = jnp.maximum(jnp.where(turned, -smallest, largest), 0)
        fields = task.qubo.ising().fields.T
        peak = jnp.max(jnp.abs(fields), axis=0)
        rms = peak * jnp.sqrt(jnp.mean(jnp.square(fields / jnp.where(peak > 0, peak, 1)[None, :]), axis=0))
        size = jnp.hypot(depth, rms)
        strength = self.strength / jnp.where(size > 0, size, 1)
        stiff = jnp.sqrt(1 + strength * height)
        time_step = jnp.minimum(self.time_step, 1.6 / stiff)
        return _Prepared(couplings, diagonal, fields, strength * jnp.sign(task.qubo.scale), time_step)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        sites, dtype = jnp.arange(task.num_bits), task.qubo.linear.dtype
        x = 0.1 * (2 * streams.uniforms(task.seeds, 0, sites) - 1).astype(dtype)
        y = 0.1 * (2 * streams.uniforms(task.seeds, 1, sites) - 1).astype(dtype)
        if task.initial is not None:
            x = x + 0.5 * (2 * task.initial.astype(dtype) - 1)
        bits = (x > 0).astype(jnp.int8)
        pump = jnp.ones((task.num_bits if self.variant == "generalized" else 1, task.num_columns), dtype)
        return _State(x, y, pump, bits, jnp.full(task.num_columns, jnp.inf, dtype))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        couplings, dtype = prepared.couplings, state.x.dtype
        before, count, whole = task.substeps(t, self._every, self.num_steps)
        strength, dt = task.per_column(prepared.strength)[None, :], task.per_column(prepared.time_step)[None, :]
        fields = task.per_column(prepared.fields)

        def advance(k: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, y, pump = carry
            if self.variant == "generalized":
                left = (whole - before - k).astype(dtype)
                pump = pump - (1 - self.nonlinearity * x * x) * pump / left
            else:
                done = (before + k).astype(dtype) / jnp.maximum(whole - 1, 1).astype(dtype)
                pump = jnp.broadcast_to(1 - done, pump.shape)
            if self.variant == "discrete":
                force = columns.spin_product(couplings, prepared.diagonal, columns.signs(x)) + fields
            else:
                reference = jnp.sqrt(jnp.mean(x * x, axis=0, keepdims=True))
                force = columns.spin_product(couplings, prepared.diagonal, x) + fields * reference
            moved = y - dt * (pump * x + strength * force)
            x = x + dt * moved
            outside = jnp.abs(x) > 1
            x = jnp.clip(x, -1, 1)
            moved = jnp.where(outside, 0, moved)
            return x, moved + dt * self.heat * y if self.heat else moved, pump

        x, y, pump = lax.fori_loop(0, count, advance, (state.x, state.y, state.pump))
        if self.return_states == "last":
            return state._replace(x=x, y=y, pump=pump, best=(x > 0).astype(jnp.int8))
        energy = columns.spin_energies(couplings, prepared.diagonal, fields, columns.signs(x)) * jnp.sign(strength[0])
        lower = energy < state.best_energy

        def keep() -> jax.Array:
            return jnp.where(lower[None, :], (x > 0).astype(jnp.int8), state.best)

        best = lax.cond(jnp.any(lower), keep, lambda: state.best)
        return _State(x, y, pump, best, jnp.minimum(energy, state.best_energy))

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        return Outcome((state.best,), {}, {"time_step": prepared.time_step})
