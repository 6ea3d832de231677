"""The hybrid on black boxes with a known minimum: two formulations from values, gradients and Hessian products.

GlassHybrid    the Hessian at the box's centre, each coordinate's sign a bit: one annealed round, then Adam
FittedHybrid   a quadratic fitted to gradients at random probes, coordinates in fixed point: rounds that re-centre and
               shrink by the measured fidelity, then Adam
Continuous     the same fits, each followed to its continuous minimiser instead of being annealed

The rounds are those of `qjax.hybrid`; its parts are compiled apart, once for all instances of a shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

import qjax
from experiments.harness.account import Account
from experiments.landscapes.baselines import cosine_adam, summed
from experiments.landscapes.functions import Data, Landscape, Objective
from qjax.descend.refine import Refine
from qjax.formulate.curvature import Matrix
from qjax.formulate.quadratic import Quadratic
from qjax.hybrid import Sample, formulated, next_radius, picked
from qjax.rounds import Problem, Round
from qjax.samplers.samples import Samples

Params = dict[str, jax.Array]
Loss: TypeAlias = Callable[[Params, Data], jax.Array]


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

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        probe_key, key = jax.random.split(key)
        starts = problem.starts(probe_key, self.num_probes)
        program = Refine(summed(problem.objective), cosine_adam(0.1 * problem.half_width, self.num_probe_steps))
        ends = account.refine(program, jax.random.key(0), starts, problem.data, self.num_probe_steps, phase="formulate")
        radius = float(jnp.mean(jnp.abs(ends.params)))
        params = {"x": jnp.zeros(problem.size)}
        outcome = _round(self, _named(problem.objective), problem, key, params, radius, "always", account)
        return _finish(self, problem, outcome, account)

    def formulation(self, objective: Objective) -> Callable[..., Any]:
        """formulate(params, radius, key, data) -> (Quadratic, Encoding)."""

        def formulate(params: Params, radius: jax.Array, key: jax.Array, data: Data) -> Any:
            quadratic = qjax.hessian(_named(objective), params, data)
            return quadratic, qjax.encode(params, {"x": qjax.Sign(step=radius)})

        return formulate


@dataclass(frozen=True)
class FittedHybrid:
    """Fixed-point coordinates of `bits` bits around the current point under a quadratic fitted to gradients.

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

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        params, radius = {"x": jnp.zeros(problem.size)}, problem.half_width
        loss = self.basin(problem)
        for index in range(self.num_rounds):
            round_key = jax.random.fold_in(key, index)
            outcome = _round(self, loss, problem, round_key, params, radius, "better", account)
            params = outcome.params
            radius = next_radius(radius, bool(outcome.accepted), float(outcome.ratio))
        return _finish(self, problem, outcome, account)

    def formulation(self, objective: Objective) -> Callable[..., Any]:
        """formulate(params, radius, key, data, half_width) -> (Quadratic, Encoding)."""
        quadratic = self.fit(objective)

        def formulate(params: Params, radius: jax.Array, key: jax.Array, data: Data) -> Any:
            step = 2 * radius / (2**self.bits - 1)
            encoding = qjax.encode(params, {"x": qjax.FixedPoint(self.bits, step, around="current")})
            return quadratic(params, radius, key, data), encoding

        return formulate

    def fit(self, objective: Objective) -> Callable[..., Quadratic]:
        """quadratic(params, radius, key, data): probes keep to the geometric mean of grid and box, so that the grid
        shrinks faster than they do."""

        def quadratic(params: Params, radius: jax.Array, key: jax.Array, data: Data) -> Quadratic:
            sigma = 0.5 * jnp.sqrt(radius * data["half_width"])
            return qjax.fitted(key, _named(objective), params, data, radius=sigma, num_samples=self.num_samples)

        return quadratic

    def basin(self, problem: Landscape) -> Loss:
        """The height of the basin that a point lies in: f after num_basin_steps of Adam."""
        return _basin(problem.objective, self.num_basin_steps, self.learning_rate * problem.half_width)


@dataclass(frozen=True)
class Continuous:
    """The control without bits: the fits of `hybrid`, each followed to its continuous minimiser inside the box."""

    hybrid: FittedHybrid

    def __call__(self, key: jax.Array, problem: Landscape, account: Account) -> jax.Array:
        params, radius = {"x": jnp.zeros(problem.size)}, problem.half_width
        fit, judge = _fit(self.hybrid, problem.objective), _judged(self.hybrid.basin(problem))
        data = _boxed(problem)
        for index in range(self.hybrid.num_rounds):
            fit_key = jax.random.fold_in(jax.random.fold_in(key, index), 1)
            quadratic = account.call("formulate", fit, params, jnp.float32(radius), fit_key, data)
            params, taken, ratio = account.call("decode", judge, params, quadratic, data)
            radius = next_radius(radius, bool(taken), float(ratio))
        return _descended(self.hybrid, problem, params, account)


def stationary(quadratic: Quadratic) -> Params:
    """r - (H + damping I)^-1 g, damped where H is not positive definite: the minimiser, or a step off a saddle."""
    assert isinstance(quadratic.curvature, Matrix)
    levels = jnp.linalg.eigvalsh(quadratic.curvature.matrix)
    damping = jnp.maximum(0.0, 1e-3 * levels[-1] - 1.1 * levels[0])
    matrix = quadratic.curvature.matrix + damping * jnp.eye(levels.shape[0], dtype=levels.dtype)
    return {"x": quadratic.centre["x"] - jnp.linalg.solve(matrix, quadratic.gradient["x"])}


Hybrid: TypeAlias = GlassHybrid | FittedHybrid


def _round(
    hybrid: Hybrid,
    loss: Loss,
    problem: Landscape,
    key: jax.Array,
    params: Params,
    radius: float,
    accept: Literal["better", "always"],
    account: Account,
) -> Round:
    """`qjax.outer_round` in its three parts, each compiled and booked."""
    # Without the sampler, the parts are those of every control as well.
    bare, data = replace(hybrid, sampler=None), _boxed(problem)
    width = jnp.asarray(radius, jnp.zeros(0).dtype)
    formulate = _formulate(bare, problem.objective)
    parts = account.call("formulate", formulate, params, width, jax.random.fold_in(key, 1), data)
    if getattr(hybrid, "start", "annealed") == "rounded":
        samples = account.call("anneal", _nearest, parts)
    else:
        sample = Sample(hybrid.sampler, hybrid.num_reads)
        samples = account.call("anneal", sample, key, *sample.given(parts, None))
    return account.call("decode", _pick(loss, hybrid.num_candidates, accept), params, parts, samples, data)


def _finish(hybrid: Hybrid, problem: Landscape, outcome: Round, account: Account) -> jax.Array:
    found = outcome.to_dict()
    account.notes |= {name: found[name] for name in ("fidelity", "feasible")}
    account.notes["sampled_energies"] = found["energies_read"][:1024]
    return _descended(hybrid, problem, outcome.params, account)


def _descended(hybrid: Hybrid, problem: Landscape, params: Params, account: Account) -> jax.Array:
    optimizer = cosine_adam(hybrid.learning_rate * problem.half_width, hybrid.num_steps)
    program = Refine(_named(problem.objective), optimizer)
    end: jax.Array = account.refine(program, jax.random.key(0), params, problem.data, hybrid.num_steps).params["x"]
    return end


def _boxed(problem: Landscape) -> Data:
    return problem.data | {"half_width": jnp.asarray(problem.half_width, jnp.zeros(0).dtype)}


def _nearest(problem: Problem) -> Samples:
    """One sample: the grid state nearest to the fit's continuous minimiser."""
    bits = problem.encoding.nearest(stationary(problem.quadratic))[None, :]
    return Samples(bits, problem.qubo.energies(bits), {})


# Cached, so that all instances of one shape share their compiled programs.


@functools.cache
def _named(objective: Objective) -> Loss:
    return lambda params, data: objective(params["x"], data)


@functools.cache
def _formulate(hybrid: Hybrid, objective: Objective) -> Callable[..., Problem]:
    build = hybrid.formulation(objective)

    def formulate(params: Params, radius: jax.Array, key: jax.Array, data: Data) -> Problem:
        return formulated(lambda params, _: build(params, radius, key, data), params, 0.0)

    return formulate


@functools.cache
def _fit(hybrid: FittedHybrid, objective: Objective) -> Callable[..., Quadratic]:
    return hybrid.fit(objective)


@functools.cache
def _pick(loss: Loss, num_candidates: int, accept: Literal["better", "always"]) -> Callable[..., Round]:
    def pick(params: Params, parts: Problem, samples: Samples, data: Data) -> Round:
        return picked(lambda params: loss(params, data), params, parts, samples, num_candidates, accept)

    return pick


@functools.cache
def _judged(loss: Loss) -> Callable[..., tuple[Params, jax.Array, jax.Array]]:
    def judge(params: Params, quadratic: Quadratic, data: Data) -> tuple[Params, jax.Array, jax.Array]:
        moved = {"x": jnp.clip(stationary(quadratic)["x"], -data["half_width"], data["half_width"])}
        before, after = loss(params, data), loss(moved, data)
        predicted = quadratic(params) - quadratic(moved)
        ratio = (before - after) / jnp.where(predicted == 0, jnp.ones_like(predicted), predicted)
        chosen = {"x": jnp.where(after < before, moved["x"], params["x"])}
        return chosen, after < before, ratio

    return judge


@functools.cache
def _basin(objective: Objective, num_steps: int, learning_rate: float) -> Loss:
    optimizer = optax.adam(learning_rate)
    loss = _named(objective)

    def height(params: Params, data: Data) -> jax.Array:
        def step(_: jax.Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
            params, state = carry
            slope = jax.grad(loss)(params, data)
            # optax mixes integer counts with floats, which a strict promotion refuses.
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(slope, state)
            return optax.apply_updates(params, updates), state

        params, _ = jax.lax.fori_loop(0, num_steps, step, (params, optimizer.init(params)))
        return loss(params, data)

    return height
