"""A quadratic fitted to a black box over a region: the smoothed landscape.

Probes x_k ~ N(0, sigma^2) around r, gradients g_k and values v_k of the objective at r + x_k, C = cov(x),
D = cov(x, g):

    H = sym(C^-1 D),    g(r) = mean g - H mean x,    c: the model's mean over the probes is the values' mean

which by Stein's identity estimates the gradient and Hessian of the objective smoothed by that Gaussian. The noise
of H is shrunk towards its isotropic part m I, m = tr H / d, by the share of |H - m I|^2 that noise alone would
give, as in Ledoit and Wolf 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from qjax.formulate.curvature import Matrix
from qjax.formulate.leaves import Leaves, floating, names, replace, select
from qjax.formulate.quadratic import Quadratic


def fitted(
    key: jax.Array,
    objective: Callable[..., jax.Array],
    params: Any,
    *data: Any,
    radius: Any,
    num_samples: int,
    leaves: Sequence[str] | None = None,
    batch_size: int = 1000,
    shrinkage: float | None = None,
) -> Quadratic:
    """A Quadratic centred at params with a dense H on the chosen leaves, from values and gradients at random probes.

    objective(params, *data) -> scalar, differentiable; radius: sigma of the probes, a scalar or a dict of scalars or
    arrays by leaf name; num_samples is rounded up to whole batches and must exceed the number d of parameters;
    shrinkage in [0, 1], None: estimated. Probes are drawn inside a scan: memory is batch_size d + 3 d^2 numbers.
    Errors: ValueError for too few samples, a radius that is not positive, a shrinkage outside [0, 1], or a leaf that is
    not floating-point.
    """
    centre = floating(select(params, names(params) if leaves is None else leaves))
    flat, unravel = jax.flatten_util.ravel_pytree(centre)
    size = flat.shape[0]
    if num_samples <= size + 1:
        raise ValueError(f"num_samples must exceed the number of parameters + 1 = {size + 1}, got {num_samples}")
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must be in [0, 1], got {shrinkage}")
    by_leaf = radius if isinstance(radius, dict) else dict.fromkeys(centre, radius)
    spread = {
        name: jnp.broadcast_to(jnp.asarray(by_leaf[name], leaf.dtype), leaf.shape) for name, leaf in centre.items()
    }
    sigma = jax.flatten_util.ravel_pytree(spread)[0]
    if not isinstance(sigma, jax.core.Tracer) and not bool(jnp.all(sigma > 0)):
        raise ValueError("radius must be positive")
    num_batches = -(-num_samples // min(batch_size, num_samples))

    def value(point: jax.Array) -> jax.Array:
        return objective(replace(params, unravel(point)), *data)

    probe = partial(_probe, jax.vmap(jax.value_and_grad(value)), flat, sigma, min(batch_size, num_samples))
    sums, _ = jax.lax.scan(probe, _zero_sums(size, flat.dtype), jax.random.split(key, num_batches))
    count = num_batches * min(batch_size, num_samples)
    constant, slope, matrix = _regression(sums, count, shrinkage)
    # Back from whitened coordinates u = x / sigma.
    gradient: Leaves = unravel(slope / sigma)
    return Quadratic(centre, constant, gradient, Matrix(matrix / (sigma[:, None] * sigma[None, :])))


def fitted_from(
    points: jax.Array, values: jax.Array, gradients: jax.Array, params: Any, *, shrinkage: float | None = None
) -> Quadratic:
    """`fitted` from given probes: points and gradients (S, d) on the leaves of params, sorted by name and flattened;
    values (S,)."""
    centre = floating(select(params, names(params)))
    flat, unravel = jax.flatten_util.ravel_pytree(centre)
    if points.shape != gradients.shape or points.shape[1:] != flat.shape or values.shape != points.shape[:1]:
        raise ValueError(
            f"points and gradients must have shape (S, {flat.size}) and values (S,), got {points.shape}, "
            f"{gradients.shape}, {values.shape}"
        )
    sums = _add(_zero_sums(flat.shape[0], flat.dtype), points - flat[None, :], values, gradients)
    constant, slope, matrix = _regression(sums, points.shape[0], shrinkage)
    return Quadratic(centre, constant, unravel(slope), Matrix(matrix))


def _zero_sums(size: int, dtype: Any) -> tuple[jax.Array, ...]:
    vector, matrix, scalar = jnp.zeros(size, dtype), jnp.zeros((size, size), dtype), jnp.zeros((), dtype)
    return scalar, vector, vector, matrix, matrix, scalar


def _add(sums: tuple[jax.Array, ...], u: jax.Array, v: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """Sums of v, u, g, uu', ug', |g|^2 over probes u, g (S, d), v (S,)."""
    outer = partial(jnp.matmul, precision="highest")
    new = v.sum(), u.sum(0), g.sum(0), outer(u.T, u), outer(u.T, g), (g**2).sum()
    return tuple(a + b for a, b in zip(sums, new, strict=True))


def _probe(
    value_and_grad: Any, flat: jax.Array, sigma: jax.Array, batch: int, sums: tuple[jax.Array, ...], key: jax.Array
) -> tuple[tuple[jax.Array, ...], None]:
    u = jax.random.normal(key, (batch, flat.shape[0]), flat.dtype)
    v, g = value_and_grad(flat[None, :] + sigma[None, :] * u)
    return _add(sums, u, v, g * sigma[None, :]), None


def _regression(sums: tuple[jax.Array, ...], count: int, shrinkage: float | None) -> tuple[jax.Array, ...]:
    """Value and slope at u = 0 and H, in the coordinates of the sums."""
    mean_v, mean_u, mean_g, uu, ug, gg = (term / count for term in sums)
    size = mean_u.shape[0]
    eye = jnp.eye(size, dtype=mean_u.dtype)
    c = uu - mean_u[:, None] * mean_u[None, :]
    d = ug - mean_u[:, None] * mean_g[None, :]
    raw = jax.scipy.linalg.solve(c, d, assume_a="pos")
    h = 0.5 * (raw + raw.T)
    level = jnp.trace(h) / size
    residual = jnp.maximum(gg - (mean_g**2).sum() - (raw * d).sum(), 0.0)
    # A symmetrised entry of H carries half the variance residual / (S var(u)) that a plain one has; there are d of
    # them a row.
    noise = residual * size / (2 * count * jnp.trace(c) / size)
    excess = ((h - level * eye) ** 2).sum()
    smallest: Any = jnp.finfo(h.dtype)  # type: ignore[no-untyped-call]
    estimate = jnp.clip(noise / jnp.maximum(excess, float(smallest.tiny)), 0.0, 1.0)
    share = estimate if shrinkage is None else shrinkage
    h = level * eye + (1 - share) * (h - level * eye)
    slope = mean_g - jnp.matmul(h, mean_u, precision="highest")
    value = mean_v - jnp.vdot(slope, mean_u, precision="highest") - 0.5 * (h * uu).sum()
    return value, slope, h
