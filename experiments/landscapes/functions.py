"""Objectives with a known global minimum, shown to the methods only as values, gradients and Hessian products.

glass        f(w) = a sum_i (w_i^2 - 1)^2 + 1/2 w'Jw,  J = WW'/(n-1), W (n, alpha n) Gaussian with columns orthogonal to
             a planted t in {-1, 1}^n: J is positive semidefinite and Jt = 0, so f >= 0 with equality at w = +-t for
             every a > 0 (Wishart planting, its diagonal kept: Hamze, Raymond, Pattison, Biswas, Katzgraber 2020)
the others   f(x) = sum_i or product of terms in z = R (x - s), R a random rotation, s the minimum, drawn uniformly from
             0.8 of the box; every one is shifted so that its minimum is 0

Data and objective are apart, so that all instances of one shape share one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Data = dict[str, jax.Array]
Objective = Callable[[jax.Array, Data], jax.Array]

TOLERANCE = 1e-6
_STYBLINSKI = float(np.min(np.roots([4.0, 0.0, -32.0, 5.0]).real))


@dataclass(frozen=True, eq=False)
class Landscape:
    """One instance. objective(x (n,), data) -> scalar >= minimum; searches start inside [-half_width, half_width]^n.

    scale: the mean of f over that box minus its minimum, the unit in which a gap f - f* is judged.
    """

    name: str
    size: int
    half_width: float
    objective: Objective
    data: Data
    scale: float
    optimum: np.ndarray
    minimum: float = 0.0

    def gap(self, point: Any) -> float:
        """f(point) - f*, in units of the scale."""
        value = _evaluate(self.objective, jnp.asarray(point), self.data)
        return (float(value) - self.minimum) / self.scale

    def solved(self, gap: float) -> bool:
        """Whether a gap in units of the scale counts as the global minimum."""
        return gap <= TOLERANCE

    def starts(self, key: jax.Array, count: int) -> jax.Array:
        """Uniform points of the box, (count, n)."""
        return _uniform(key, count, self.size, self.half_width)


def glass(size: int, alpha: float, height: float, seed: int) -> Landscape:
    """The planted double-well glass with a = height. Errors: ValueError for anything that is not positive."""
    columns = round(alpha * size)
    if size < 1 or columns < 1 or height <= 0:
        raise ValueError(f"a glass needs positive size, alpha and height, got {size}, {alpha}, {height}")
    # The coupling matrix is the same for every height: the grid over a compares like with like.
    planted, couplings = wishart_couplings(size, columns, np.random.default_rng([1, size, round(1000 * alpha), seed]))
    data = {
        "couplings": jnp.asarray(couplings, jnp.zeros(0).dtype),
        "height": jnp.asarray(height, jnp.zeros(0).dtype),
    }
    name = f"glass-n{size}-alpha{alpha:g}-a{height:g}"
    return _scaled(name, size, 2.0, glass_value, data, planted)


def wishart_couplings(size: int, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(t in {-1, 1}^n, J (n, n) with its diagonal): J = WW'/(n - 1) is positive semidefinite and Jt = 0."""
    planted = rng.choice([-1.0, 1.0], size)
    factor = rng.normal(size=(size, columns))
    factor -= np.outer(planted, planted @ factor) / size
    return planted, factor @ factor.T / (size - 1)


def function(kind: str, size: int, seed: int) -> Landscape:
    """A shifted and rotated test function. Errors: ValueError for an unknown kind or fewer than 2 dimensions."""
    if kind not in FUNCTIONS:
        raise ValueError(f"unknown function {kind!r}; there are {', '.join(FUNCTIONS)}")
    if size < 2:
        raise ValueError(f"a rotated function needs at least 2 dimensions, got {size}")
    separable, half_width = FUNCTIONS[kind]
    rng = np.random.default_rng([2, size, list(FUNCTIONS).index(kind), seed])
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    optimum = rng.uniform(-0.8, 0.8, size) * half_width
    dtype = jnp.zeros(0).dtype
    data = {"rotation": jnp.asarray(rotation, dtype), "optimum": jnp.asarray(optimum, dtype)}
    return _scaled(f"{kind}-d{size}", size, half_width, separable, data, optimum)


def glass_value(w: jax.Array, data: Data) -> jax.Array:
    """a sum (w^2 - 1)^2 + 1/2 w'Jw."""
    pull = 0.5 * jnp.vdot(w, jnp.matmul(data["couplings"], w, precision="highest"))
    return data["height"] * jnp.sum((w * w - 1) ** 2) + pull


def rastrigin(x: jax.Array, data: Data) -> jax.Array:
    """sum z^2 + 10 (1 - cos 2 pi z)."""
    z = _rotated(x, data)
    return jnp.sum(z * z + 10 * (1 - jnp.cos(2 * jnp.pi * z)))


def ackley(x: jax.Array, data: Data) -> jax.Array:
    """20 (1 - exp(-0.2 rms z)) + e (1 - exp(mean cos 2 pi z - 1)), in the form that keeps its digits near 0."""
    z = _rotated(x, data)
    square = jnp.mean(z * z)
    # The cone's tip has no gradient: the square root is kept off zero, there and in its derivative.
    radius = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    ripple = jnp.mean(jnp.cos(2 * jnp.pi * z) - 1)
    return -20 * jnp.expm1(-0.2 * radius) - jnp.e * jnp.expm1(ripple)


def griewank(x: jax.Array, data: Data) -> jax.Array:
    """sum z^2 / 4000 + 1 - prod cos(z_i / sqrt i)."""
    z = _rotated(x, data)
    order = jnp.sqrt(1.0 + jnp.arange(z.shape[0], dtype=z.dtype))
    return jnp.sum(z * z) / 4000 + 1 - jnp.prod(jnp.cos(z / order))


def levy(x: jax.Array, data: Data) -> jax.Array:
    """sin^2(pi w_1) + sum (w - 1)^2 (1 + 10 sin^2(pi w + 1)) + (w_d - 1)^2 (1 + sin^2(2 pi w_d)),  w = 1 + z/4."""
    u = _rotated(x, data) / 4
    w = 1 + u
    inner = jnp.sum(u[:-1] ** 2 * (1 + 10 * jnp.sin(jnp.pi * w[:-1] + 1) ** 2))
    return jnp.sin(jnp.pi * w[0]) ** 2 + inner + u[-1] ** 2 * (1 + jnp.sin(2 * jnp.pi * w[-1]) ** 2)


def styblinski_tang(x: jax.Array, data: Data) -> jax.Array:
    """1/2 sum (y^4 - 16 y^2 + 5 y) minus its minimum, y = z + m with m = -2.9035 the deeper of the two wells.

    Expanded in z around that well, so that no digits are lost to the constant.
    """
    z, m = _rotated(x, data), _STYBLINSKI
    return 0.5 * jnp.sum(z * z * (z * z + 4 * m * z + (6 * m * m - 16)))


def _rotated(x: jax.Array, data: Data) -> jax.Array:
    return jnp.matmul(data["rotation"], x - data["optimum"], precision="highest")


FUNCTIONS: dict[str, tuple[Objective, float]] = {
    "rastrigin": (rastrigin, 5.12),
    "ackley": (ackley, 32.768),
    "griewank": (griewank, 600.0),
    "levy": (levy, 10.0),
    "styblinski-tang": (styblinski_tang, 5.0),
}


def _scaled(
    name: str, size: int, half_width: float, objective: Objective, data: Data, optimum: np.ndarray
) -> Landscape:
    points = np.random.default_rng(0).uniform(-half_width, half_width, (256, size))
    values = _evaluate_many(objective, jnp.asarray(points, jnp.zeros(0).dtype), data)
    return Landscape(name, size, half_width, objective, data, float(jnp.mean(values)), optimum)


def _evaluate(objective: Objective, point: jax.Array, data: Data) -> jax.Array:
    value: jax.Array = _evaluate_many(objective, point[None, :], data)[0]
    return value


@partial(jax.jit, static_argnums=(1, 2, 3))
def _uniform(key: jax.Array, count: int, size: int, half_width: float) -> jax.Array:
    points: jax.Array = jax.random.uniform(key, (count, size), minval=-half_width, maxval=half_width)
    return points


@partial(jax.jit, static_argnums=0)
def _evaluate_many(objective: Objective, points: jax.Array, data: Data) -> jax.Array:
    values: jax.Array = jax.vmap(objective, in_axes=(0, None))(points, data)
    return values
