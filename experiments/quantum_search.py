"""The hybrid on black boxes with a known minimum: two formulations from values, gradients and Hessian products.

GlassHybrid    the Hessian at the box's centre, each coordinate's sign a bit: one annealed round, then Adam
FittedHybrid   a quadratic fitted to gradients at random probes, coordinates in fixed point: rounds that re-centre and
               shrink by the measured fidelity, then Adam
Continuous     the same fits, each followed to its continuous minimiser instead of being annealed
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

import qjax
from experiments.baselines import Answer, cosine_adam, summed
from experiments.controls import Given
from experiments.landscapes import Data, Landscape, Objective
from qjax.curvature import Matrix
from qjax.encodings import Encoding
from qjax.hybrid import Problem, Trained, next_radius
from qjax.ledger import Ledger
from qjax.quadratic import Quadratic
from qjax.refine import Refine, Refined

Params = dict[str, jax.Array]


@dataclass(frozen=True)
class GlassHybrid:
    """w = radius s, s in {-1, 1}^n, under the Hessian of f at the centre of the box; sign patterns picked by f.

    radius: the mean |w| where num_probes descents from the box end, of num_probe_steps gradient steps each. The
    Hessian's diagonal (the hills between the wells) is a constant on signs and drops out.
    """

    sampler: Any
    num_reads: int = 128
    num_candidates: int = 8
    num_probes: int = 4
    num_probe_steps: int = 100
    num_steps: int = 300
    learning_rate: float = 0.01

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        probe_key, key = jax.random.split(key)
        starts = problem.starts(probe_key, self.num_probes)
        program = Refine(summed(problem.objective), cosine_adam(0.1 * problem.half_width, self.num_probe_steps))

        def well_radius() -> float:
            ends = program(probe_key, starts, problem.data, self.num_probe_steps).params
            return float(jnp.mean(jnp.abs(ends)))

        def formulate(params: Params, radius: float) -> tuple[Quadratic, Encoding]:
            quadratic = qjax.hessian(_named(problem.objective), params, problem.data)
            return quadratic, qjax.encode(params, {"x": qjax.Sign(step=radius)})

        radius, ledger = ledger.run("formulate", well_radius)
        trained = qjax.hybrid(
            key,
            functools.partial(_value(problem.objective), data=problem.data),
            {"x": jnp.zeros(problem.size)},
            formulate,
            self.sampler,
            num_reads=self.num_reads,
            num_candidates=self.num_candidates,
            radius=radius,
            accept="always",
            descend=_descent(problem, self.num_steps, self.learning_rate),
            ledger=ledger,
        )
        return Answer(trained.params["x"], trained.ledger, notes(trained))


@dataclass(frozen=True)
class FittedHybrid:
    """Fixed-point coordinates of `bits` bits around the present point under a quadratic fitted to gradients.

    A round: num_samples probes of f of standard deviation half sqrt(radius * half width), `qjax.fitted`, a grid of
    +- radius, anneal, and the candidate whose descent of num_basin_steps ends lowest. The first radius is the box's.
    start: "annealed", or "rounded" for the control that rounds the fit's continuous minimiser to the grid.
    """

    sampler: Any
    num_rounds: int = 4
    num_samples: int = 40_000
    bits: int = 6
    num_reads: int = 32
    num_candidates: int = 8
    num_basin_steps: int = 50
    num_steps: int = 500
    learning_rate: float = 0.004
    start: str = "annealed"

    def __post_init__(self) -> None:
        if self.start not in ("annealed", "rounded"):
            raise ValueError(f"start must be annealed or rounded, got {self.start!r}")

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        fit_key, key = jax.random.split(key)
        count = itertools.count()

        def formulate(params: Params, radius: float) -> tuple[Quadratic, Encoding]:
            quadratic = fit(self, problem, params, jax.random.fold_in(fit_key, next(count)), radius)
            step = 2 * radius / (2**self.bits - 1)
            return quadratic, qjax.encode(params, {"x": qjax.FixedPoint(self.bits, step, around="present")})

        def nearest(key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
            quadratic, encoding = problem.quadratic, problem.encoding
            state = encoding.nearest(stationary(quadratic))
            return jnp.broadcast_to(state, (num_reads, encoding.num_bits))

        rounded = self.start == "rounded"
        trained = qjax.hybrid(
            key,
            functools.partial(basin(problem, self.num_basin_steps, self.learning_rate), data=problem.data),
            {"x": jnp.zeros(problem.size)},
            formulate,
            Given() if rounded else self.sampler,
            num_rounds=self.num_rounds,
            num_reads=1 if rounded else self.num_reads,
            num_candidates=self.num_candidates,
            radius=problem.half_width,
            propose=nearest if rounded else None,
            descend=_descent(problem, self.num_steps, self.learning_rate),
            ledger=ledger,
        )
        return Answer(trained.params["x"], trained.ledger, notes(trained))


@dataclass(frozen=True)
class Continuous:
    """The control without bits: the fits of `hybrid`, each followed to its continuous minimiser inside the box."""

    hybrid: FittedHybrid

    def __call__(self, key: jax.Array, problem: Landscape, ledger: Ledger) -> Answer:
        fit_key, key = jax.random.split(key)
        loss = functools.partial(
            basin(problem, self.hybrid.num_basin_steps, self.hybrid.learning_rate), data=problem.data
        )
        params, radius = {"x": jnp.zeros(problem.size)}, problem.half_width
        before, ledger = ledger.run("decode", loss, params)
        for index in range(self.hybrid.num_rounds):
            quadratic, ledger = ledger.run(
                "formulate", fit, self.hybrid, problem, params, jax.random.fold_in(fit_key, index), radius
            )
            target, ledger = ledger.run("anneal", stationary, quadratic)
            moved = {"x": jnp.clip(target["x"], -problem.half_width, problem.half_width)}
            after, ledger = ledger.run("decode", loss, moved)
            taken = bool(after < before)
            ratio = float((before - after) / jnp.maximum(quadratic(params) - quadratic(moved), 1e-30))
            radius = next_radius(radius, taken, ratio)
            params, before = (moved, after) if taken else (params, before)
        descend = _descent(problem, self.hybrid.num_steps, self.hybrid.learning_rate)
        refined, ledger = ledger.run("refine", descend, key, params)
        return Answer(refined.params["x"], ledger)


def fit(hybrid: FittedHybrid, problem: Landscape, params: Params, key: jax.Array, radius: float) -> Quadratic:
    """The fit of one round. Probes keep to the geometric mean of grid and box: the grid shrinks faster than they do."""
    sigma = 0.5 * (radius * problem.half_width) ** 0.5
    return _fitted(problem.objective, hybrid.num_samples, params, key, sigma, problem.data)


@jax.jit
def stationary(quadratic: Quadratic) -> Params:
    """r - (H + damping I)^-1 g, damped where H is not positive definite: the minimiser, or a step off a saddle."""
    assert isinstance(quadratic.curvature, Matrix)
    levels = jnp.linalg.eigvalsh(quadratic.curvature.matrix)
    damping = jnp.maximum(0.0, 1e-3 * levels[-1] - 1.1 * levels[0])
    matrix = quadratic.curvature.matrix + damping * jnp.eye(levels.shape[0], dtype=levels.dtype)
    return {"x": quadratic.centre["x"] - jnp.linalg.solve(matrix, quadratic.gradient["x"])}


def basin(problem: Landscape, num_steps: int, learning_rate: float) -> Callable[..., jax.Array]:
    """loss(params, data): f after num_steps of Adam, the height of the basin that a point lies in."""
    return _basin(problem.objective, num_steps, learning_rate * problem.half_width)


def notes(trained: Trained) -> dict[str, Any]:
    """What the row of a hybrid run reports of its last round."""
    last = trained.rounds[-1]
    return {
        "fidelity": float(last.fidelity),
        "feasible": float(last.feasible),
        "sampled_energies": [float(energy) for energy in last.energies_read[:1024]],
    }


def _descent(problem: Landscape, num_steps: int, learning_rate: float) -> Callable[[jax.Array, Params], Refined]:
    program = Refine(_named(problem.objective), cosine_adam(learning_rate * problem.half_width, num_steps))
    return lambda key, params: program(key, params, problem.data, num_steps)


# Cached, so that all instances of one shape share their compiled programs.


@functools.cache
def _named(objective: Objective) -> Callable[[Params, Data], jax.Array]:
    return lambda params, data: objective(params["x"], data)


@functools.cache
def _value(objective: Objective) -> Callable[..., jax.Array]:
    return jax.jit(_named(objective))


@functools.cache
def _basin(objective: Objective, num_steps: int, learning_rate: float) -> Callable[..., jax.Array]:
    optimizer = optax.adam(learning_rate)
    loss = _named(objective)

    @jax.jit
    def height(params: Params, data: Data) -> jax.Array:
        def step(_: jax.Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, data), state)
            return optax.apply_updates(params, updates), state

        params, _ = jax.lax.fori_loop(0, num_steps, step, (params, optimizer.init(params)))
        return loss(params, data)

    return height


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fitted(
    objective: Objective, num_samples: int, params: Params, key: jax.Array, sigma: jax.Array, data: Data
) -> Quadratic:
    return qjax.fitted(_named(objective), params, key, data, radius=sigma, num_samples=num_samples)
