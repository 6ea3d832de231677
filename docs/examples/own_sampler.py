"""A sampler of one's own: noisy gradient descent on the relaxed energy over the box [0, 1]^n, rounded at the end."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

import qjax
from qjax.samplers import Outcome, Sampler, streams


@dataclass(frozen=True)
class Relaxed(Sampler):
    num_steps: int = 200
    rate: float = 0.1

    def length(self, task):  # how often `step` is called
        return self.num_steps

    def prepare(self, task):  # what depends on the Qubo alone; columns are (problem, read), n x C
        return task.per_column(task.linear), jnp.sign(task.per_column(task.qubo.scale))

    def init(self, task, problem):
        return streams.uniforms(task.seeds, 0, jnp.arange(task.num_bits))

    def step(self, task, problem, t, x):
        linear, sign = problem
        slope = sign * (linear + task.qubo.couplings.matvec(x.T).T)
        noise = streams.uniforms(task.seeds, t + 1, jnp.arange(task.num_bits)) - 0.5
        heat = 1.0 - t / self.num_steps
        return jnp.clip(x - self.rate * (slope / jnp.abs(slope).max(0) - heat * noise), 0.0, 1.0)

    def finish(self, task, problem, x):  # candidate bits and diagnostics; the contract recomputes the energies
        return Outcome(((x > 0.5).astype(jnp.int8),), {}, {})


if __name__ == "__main__":
    matrix = jax.random.normal(jax.random.key(0), (200, 200))
    qubo = qjax.Qubo.from_matrix(matrix)
    for sampler in (qjax.samplers.Random(), Relaxed(), qjax.samplers.Anneal()):
        samples = sampler(jax.random.key(1), qubo, num_reads=64)  # jit, vmap, batches, shards: the contract's doing
        print(f"{type(sampler).__name__:8} lowest energy {samples.best_energy:.1f}")
