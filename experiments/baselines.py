"""Classical searches for a global minimum: Adam, Adam and L-BFGS from many starts, CMA-ES, spectral rounding, and Adam
on the relaxed QUBO.

A method is a frozen dataclass of its settings, called as

    answer = method(key, problem, ledger)        answer.point (n,), answer.ledger with the seconds by phase

It sees `problem.objective` with its data (values, gradients, Hessian products) and the box in which searches start;
lengths are numbers of steps, starts or evaluations, so that a repeated run gives the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.landscapes import Data, Landscape, Objective
from qjax.ledger import Ledger
from qjax.qubo import Qubo
from qjax.refine import Refine
from qjax.samplers.samples import Samples


class Answer(NamedTuple):
    """point (n,), the ledger, and what else the row reports (JSON-ready, repeats bit for bit)."""

    point: jax.Array
    ledger: Ledger
    notes: Mapping[str, Any] = MappingProxyType({})


class Method(Protocol):
    """What every row of the synthetic tables is."""

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer: ...


@dataclass(frozen=True)
class Adam:
    """Adam with a cosine schedule to zero from num_starts uniform points of the box; the lowest end counts.

    learning_rate is in units of the box's half width.
    """

    num_starts: int = 1
    num_steps: int = 500
    learning_rate: float = 0.1

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        starts = problem.starts(key, self.num_starts)
        return descended(problem, starts, self.num_steps, self.learning_rate, ledger)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B with JAX gradients from num_starts uniform points of the box; the lowest end counts."""

    num_starts: int = 1
    num_steps: int = 300

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        from scipy.optimize import minimize

        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = _value_and_grad(problem.objective, jnp.asarray(x, dtype), problem.data)
            return float(value), np.asarray(slope, np.float64)

        def search() -> jax.Array:
            ends = [
                minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": self.num_steps})
                for start in np.asarray(starts, np.float64)
            ]
            return jnp.asarray(min(ends, key=lambda end: float(end.fun)).x, dtype)

        starts = problem.starts(key, self.num_starts)
        dtype = starts.dtype
        return Answer(*ledger.run("refine", search))


@dataclass(frozen=True)
class CMAES:
    """CMA-ES (package `cma`), restarted with a doubled population until num_evaluations values are used.

    Hansen 2016; restarts as in Auger and Hansen 2005. sigma0 is in units of the box's half width.
    """

    num_evaluations: int = 10_000
    sigma0: float = 0.5

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        import cma

        def search() -> jax.Array:
            spent, restart = 0, 0
            best, lowest = np.asarray(starts[0]), np.inf
            while spent < self.num_evaluations:
                options = {
                    "seed": int(seeds[restart]),
                    "popsize": int(4 + 3 * np.log(problem.size)) * 2**restart,
                    "verbose": -9,
                    "verb_log": 0,
                }
                start = np.asarray(starts[restart], np.float64)
                evolution = cma.CMAEvolutionStrategy(start, self.sigma0 * problem.half_width, options)
                while spent < self.num_evaluations and not evolution.stop():
                    points = evolution.ask()
                    batch = jnp.asarray(np.stack(points), starts.dtype)
                    values = np.asarray(_values(problem.objective, batch, problem.data), np.float64)
                    evolution.tell(points, values.tolist())
                    spent += len(points)
                    if values.min() < lowest:
                        best, lowest = np.asarray(points[int(values.argmin())]), values.min()
                restart = min(restart + 1, _RESTARTS - 1)
            return jnp.asarray(best, starts.dtype)

        starts = problem.starts(key, _RESTARTS)
        # cma takes 0 for "seed by the clock".
        seeds = 1 + np.asarray(jax.random.randint(jax.random.fold_in(key, 1), (_RESTARTS,), 0, 2**30))
        return Answer(*ledger.run("refine", search))


@dataclass(frozen=True)
class Spectral:
    """Signs of the num_vectors lowest eigenvectors of the Hessian at the box's centre, then Adam from all of them.

    The Hessian comes from n products. For a glass with alpha >= 1 the lowest eigenvector alone is the answer.
    """

    num_vectors: int = 16
    num_steps: int = 500
    learning_rate: float = 0.02

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        def rounded() -> jax.Array:
            centre = jnp.zeros(problem.size)
            vectors = _eigenvectors(problem.objective, centre, problem.data)[:, : self.num_vectors]
            return jnp.where(vectors.T > 0, 1.0, -1.0) * 0.5 * problem.half_width

        starts, ledger = ledger.run("formulate", rounded)
        return descended(problem, starts, self.num_steps, self.learning_rate, ledger)


@dataclass(frozen=True)
class Relaxed:
    """Adam on E(sigmoid(theta)) from small random theta, rounded: a sampler, so that it takes the annealer's place.

    learning_rate and spread are in units of theta. It is no QUBO heuristic of note; it is what gradient descent makes
    of the same QUBO.
    """

    num_steps: int = 1000
    learning_rate: float = 0.1
    spread: float = 0.1

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        if initial_states is not None:
            raise ValueError("initial_states: the relaxation starts from small random values")
        bits = _relaxed(self, key, qubo, num_reads)
        return Samples(bits, qubo.energies(bits), {})


def descended(problem: Landscape, starts: jax.Array, num_steps: int, learning_rate: float, ledger: Ledger) -> Answer:
    """Adam from every start (S, n) at once, cosine to zero; the end point of lowest f, (n,).

    Adam is elementwise, so that the sum of f over the starts trains each as if it were alone.
    """
    program = Refine(summed(problem.objective), cosine_adam(learning_rate * problem.half_width, num_steps))

    def search() -> jax.Array:
        ends = program(jax.random.key(0), starts, problem.data, num_steps).params
        values = _values(problem.objective, ends, problem.data)
        return ends[jnp.nanargmin(values)]

    return Answer(*ledger.run("refine", search))


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


@functools.partial(jax.jit, static_argnums=0)
def _values(objective: Objective, points: jax.Array, data: Data) -> jax.Array:
    values: jax.Array = jax.vmap(objective, in_axes=(0, None))(points, data)
    return values


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(objective: Objective, point: jax.Array, data: Data) -> tuple[jax.Array, jax.Array]:
    value, slope = jax.value_and_grad(objective)(point, data)
    return value, slope


@functools.partial(jax.jit, static_argnums=0)
def _eigenvectors(objective: Objective, point: jax.Array, data: Data) -> jax.Array:
    def product(v: jax.Array) -> jax.Array:
        image: jax.Array = jax.jvp(lambda x: jax.grad(objective)(x, data), (point,), (v,))[1]
        return image

    matrix = jax.vmap(product)(jnp.eye(point.shape[0], dtype=point.dtype))
    vectors: jax.Array = jnp.linalg.eigh(matrix)[1]
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
        updates, state = optimizer.update(jax.grad(energy)(theta), state)
        return (theta + updates, state), None

    (theta, _), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), None, length=settings.num_steps)
    return (theta > 0).astype(jnp.int8)
