"""Uniformly random bits: the control that any annealer must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from qjax.samplers.contract import Outcome, Sampler, Task
from qjax.samplers.moves import streams


@dataclass(frozen=True)
class Random(Sampler):
    """P(x_i = 1) = 1/2, independently for all bits of all reads, whatever the Qubo.

    All forms of couplings; `initial_states` are not used; no info. Errors: those of the call's arguments.
    """

    def length(self, task: Task) -> int:
        return 0

    def prepare(self, task: Task) -> Any:
        return None

    def init(self, task: Task, prepared: Any) -> jax.Array:
        return streams.random_bits(task.seeds, 0, jnp.arange(task.num_bits))

    def step(self, task: Task, prepared: Any, t: jax.Array, state: jax.Array) -> jax.Array:
        return state

    def finish(self, task: Task, prepared: Any, state: jax.Array) -> Outcome:
        return Outcome((state,), {}, {})
