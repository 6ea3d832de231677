"""Classical searches for a global minimum: Adam, Adam and L-BFGS from many starts, CMA-ES, spectral rounding, and Adam
on the relaxed QUBO.

A method is a frozen dataclass of its settings, called as

    point = method(key, problem, account)        (n,); the account takes the seconds by phase

It sees `problem.objective` with its data (values, gradients, Hessian products) and the box in which searches start;
lengths are numbers of steps, starts or evaluations, so that a repeated run gives the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.account import Account
from experiments.landscapes.functions import Data, Landscape, Objective
from qjax.descend.refine import Refine
from qjax.energy.qubo import Qubo
from qjax.samplers.samples import Samples


class Method(Protocol):
    """A row of the synthetic tables: how it searches."""

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array: ...


@dataclass(frozen=True)
class Adam:
    """Adam with a cosine schedule to zero from num_starts uniform points of the box; the lowest end counts.

    learning_rate is in units of the box's half width.
    """

    num_starts: int = 1
    num_steps: int = 500
    learning_rate: float = 0.1

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        starts = problem.starts(key, self.num_starts)
        return descended(problem, starts, self.num_steps, self.learning_rate, account)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B with JAX gradients from num_starts uniform points of the box; the lowest end counts."""

    num_starts: int = 1
    num_steps: int = 300

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        from scipy.optimize import minimize

        starts = problem.starts(key, self.num_starts)
        slope = account.program(_slope(problem.objective), starts[0], problem.data)

        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = slope(jnp.asarray(x, starts.dtype), problem.data)
            return float(value), np.asarray(gradient, np.float64)

        def search() -> jax.Array:
            ends = [
                minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": self.num_steps})
                for start in np.asarray(starts, np.float64)
            ]
            return jnp.asarray(min(ends, key=lambda end: float(end.fun)).x, starts.dtype)

        return account.run("refine", search)


@dataclass(frozen=True)
class CMAES:
    """CMA-ES (package `cma`), restarted with a doubled population until num_evaluations values are used.

    Hansen 2016; restarts as in Auger and Hansen 2005. sigma0 is in units of the box's half width.
    """

    num_evaluations: int = 10_000
    sigma0: float = 0.5

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        import cma

        starts = problem.starts(key, _RESTARTS)
        # cma takes 0 for "seed by the clock".
        seeds = 1 + np.asarray(jax.random.randint(jax.random.fold_in(key, 1), (_RESTARTS,), 0, 2**30))
        # Every population is a multiple of the first one: one program evaluates them all, slice by slice.
        base = int(4 + 3 * np.log(problem.size))
        evaluate = account.program(_values(problem.objective), starts[:1].repeat(base, 0), problem.data)

        def values_of(points: list[np.ndarray]) -> np.ndarray:
            batches = np.stack(points).astype(starts.dtype).reshape(-1, base, problem.size)
            return np.concatenate([np.asarray(evaluate(jnp.asarray(b), problem.data), np.float64) for b in batches])

        def search() -> jax.Array:
            spent, restart = 0, 0
            best, least = np.asarray(starts[0]), np.inf
            while spent < self.num_evaluations:
                options = {
                    "seed": int(seeds[restart]),
                    "popsize": base * 2**restart,
                    "verbose": -9,
                    "verb_log": 0,
                }
                start = np.asarray(starts[restart], np.float64)
                evolution = cma.CMAEvolutionStrategy(start, self.sigma0 * problem.half_width, options)
                while spent < self.num_evaluations and not evolution.stop():
                    points = evolution.ask()
                    values = values_of(points)
                    evolution.tell(points, values.tolist())
                    spent += len(points)
                    if values.min() < least:
                        best, least = np.asarray(points[int(values.argmin())]), values.min()  # type: ignore[call-overload, unused-ignore]
                restart = min(restart + 1, _RESTARTS - 1)
            return jnp.asarray(best, starts.dtype)

        return account.run("refine", search)


@dataclass(frozen=True)
class Spectral:
    """Signs of the num_vectors lowest eigenvectors of the Hessian at the box's centre, then Adam from all of them.

    The Hessian comes from n products. For a glass with alpha >= 1 the lowest eigenvector alone is the answer.
    """

    num_vectors: int = 16
    num_steps: int = 500
    learning_rate: float = 0.02

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        vectors = account.call("formulate", _eigenvectors(problem.objective, problem.size), problem.data)
        signs = jnp.where(vectors[:, : self.num_vectors].T > 0, 1.0, -1.0)
        starts = 0.5 * problem.half_width * signs
        return descended(problem, starts, self.num_steps, self.learning_rate, account)


@dataclass(frozen=True)
class Relaxed:
    """Adam on E(sigmoid(theta)) from small random theta, rounded: a sampler, so that it takes the annealer's place.

    learning_rate and spread are in units of theta. The control for what gradient descent alone makes of the same QUBO.
    """

    num_steps: int = 1000
    learning_rate: float = 0.1
    spread: float = 0.1

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        if initial_states is not None:
            raise ValueError("initial_states: the relaxation starts from small random values")
        bits = _relaxed(self, key, qubo, num_reads)
        return Samples(bits, qubo.energies(bits), {})


def descended(
    problem: Landscape, starts: jax.Array, num_steps: int, learning_rate: float, account: Account
) -> jax.Array:
    """Adam from every start (S, n) at once, cosine to zero; the end point of lowest f, (n,).

    Adam is elementwise, so that the sum of f over the starts trains each as if it were alone.
    """
    program = Refine(summed(problem.objective), cosine_adam(learning_rate * problem.half_width, num_steps))
    ends = account.refine(program, jax.random.key(0), starts, problem.data, num_steps).params
    return account.call("evaluate", lowest(problem.objective), ends, problem.data)


# Cached, so that equal settings give the same functions and compile once.


@functools.cache
def cosine_adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam with a cosine schedule from learning_rate to zero."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))


@functools.cache
def summed(objective: Objective) -> Callable[[jax.Array, Data], jax.Array]:
    """loss(points (S, n), data) = sum of f over the points."""

    def loss(points: jax.Array, data: Data) -> jax.Array:
        return jnp.sum(jax.vmap(objective, in_axes=(0, None))(points, data))

    return loss


_RESTARTS = 10


@functools.cache
def lowest(objective: Objective) -> Callable[[jax.Array, Data], jax.Array]:
    """best(points (S, n), data): the point of lowest f, (n,)."""

    def best(points: jax.Array, data: Data) -> jax.Array:
        return points[jnp.nanargmin(jax.vmap(objective, in_axes=(0, None))(points, data))]

    return best


@functools.cache
def _values(objective: Objective) -> Callable[[jax.Array, Data], jax.Array]:
    return jax.vmap(objective, in_axes=(0, None))


@functools.cache
def _slope(objective: Objective) -> Callable[[jax.Array, Data], tuple[jax.Array, jax.Array]]:
    return jax.value_and_grad(objective)


@functools.cache
def _eigenvectors(objective: Objective, size: int) -> Callable[[Data], jax.Array]:
    def vectors(data: Data) -> jax.Array:
        centre = jnp.zeros(size)

        def product(v: jax.Array) -> jax.Array:
            image: jax.Array = jax.jvp(lambda x: jax.grad(objective)(x, data), (centre,), (v,))[1]
            return image

        return jnp.linalg.eigh(jax.vmap(product)(jnp.eye(size)))[1]

    return vectors


@functools.partial(jax.jit, static_argnums=(0, 3))
def _relaxed(settings: Relaxed, key: jax.Array, qubo: Qubo, num_reads: int) -> jax.Array:
    shape = (*qubo.batch_shape, num_reads, qubo.num_bits)
    theta = settings.spread * jax.random.normal(key, shape, qubo.linear.dtype)
    # Adam does not see the scale of E; the sum trains every read alone.
    optimizer = cosine_adam(settings.learning_rate, settings.num_steps)

    def energy(theta: jax.Array) -> jax.Array:
        return jnp.sum(qubo.energies(jax.nn.sigmoid(theta)))

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
        theta, state = carry
        slope = jax.grad(energy)(theta)
        # optax mixes integer counts with floats, which a strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(slope, state)
        return (theta + updates, state), None

    (theta, _), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), None, length=settings.num_steps)
    return (theta > 0).astype(jnp.int8)
