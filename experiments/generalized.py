"""Generalised bifurcation: every oscillator has a pump of its own, which falls slower where the oscillator is large.

    p -= (1 - A x^2) p / (steps left);   y += dt (-p x - c0 (K x + h rms x));   x += dt y;   walls as in `Bifurcation`

Source: arXiv 2508.17655. On planted Wishart glasses near alpha = 1 a read succeeds several times as often as ballistic
bifurcation and hundreds of times as often as the discrete one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers import columns
from qjax.samplers.bifurcation import Bifurcation
from qjax.samplers.contract import Outcome, Task


class _State(NamedTuple):
    x: jax.Array  # (n, C)
    y: jax.Array  # (n, C)
    pump: jax.Array  # (n, C), from 1 to 0
    best: jax.Array  # (n, C) int8 bits
    best_energy: jax.Array  # (C,)


@dataclass(frozen=True)
class Generalized(Bifurcation):
    """nonlinearity: A. 0 is ballistic bifurcation; quality grows up to an edge of chaos, 1.5 on Wishart glasses, and
    collapses beyond. Couplings without a diagonal of their own (all but implicit ones); strength and the rest as in
    `Bifurcation`.
    """

    variant: str = "ballistic"
    strength: float = 0.9
    nonlinearity: float = 1.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.nonlinearity) or self.nonlinearity < 0:
            raise ValueError(f"nonlinearity must be at least 0, got {self.nonlinearity!r}")
        if self.variant != "ballistic" or self.heat:
            raise ValueError("generalised bifurcation is ballistic and not heated")

    def init(self, task: Task, problem: Any) -> Any:
        start = super().init(task, problem)
        return _State(start.x, start.y, jnp.ones_like(start.x), start.best, start.best_energy)

    def step(self, task: Task, problem: Any, t: jax.Array, state: Any) -> Any:
        couplings, dtype = task.qubo.couplings, state.x.dtype
        strength, dt = task.spread(problem.strength)[None, :], task.spread(problem.time_step)[None, :]
        fields = task.spread(problem.fields)
        num_steps = self.length(task) * self.readout_every

        def advance(k: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, y, pump = carry
            left = (num_steps - t * self.readout_every - k).astype(dtype)
            pump = pump - (1 - self.nonlinearity * x * x) * pump / left
            reference = jnp.sqrt(jnp.mean(x * x, axis=0, keepdims=True))
            y = y - dt * (pump * x + strength * (0.25 * columns.apply(couplings, x) + fields * reference))
            x = x + dt * y
            y = jnp.where(jnp.abs(x) > 1, 0, y)
            return jnp.clip(x, -1, 1), y, pump

        x, y, pump = lax.fori_loop(0, self.readout_every, advance, (state.x, state.y, state.pump))
        spins = jnp.where(x > 0, jnp.ones_like(x), -jnp.ones_like(x))
        force = 0.125 * columns.apply(couplings, spins) + fields
        energy = jnp.sum(force * spins, axis=0) * jnp.sign(strength[0])
        lower = energy < state.best_energy
        best = jnp.where(lower[None, :], (x > 0).astype(jnp.int8), state.best)
        return _State(x, y, pump, best, jnp.minimum(energy, state.best_energy))

    def finish(self, task: Task, problem: Any, state: Any) -> Outcome:
        return Outcome((state.best,), {}, {"time_step": problem.time_step})
