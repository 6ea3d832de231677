"""A quadratic fitted to a black box over a region: a model of the objective smoothed by a Gaussian.

With probes u_k ~ N(0, sigma^2), k = 1 .. S, around the centre r, gradients g_k and values v_k of the objective at
r + u_k, C = cov(u) (d, d) and D = cov(u, g) (d, d):

    H = sym(C^-1 D),    g(r) = mean g - H mean u,    c such that the mean of q over the probes is mean v

By Stein's identity these estimate the Hessian, gradient and value of the objective smoothed by that Gaussian.

Because H is noisy, it is shrunk towards its isotropic part m I, m = tr H / d: H <- m I + (1 - s) (H - m I). The
shrinkage s is the part of |H - m I|^2 that noise alone would give (Ledoit and Wolf 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from qjax.formulate.curvature import Matrix
from qjax.formulate.leaves import Leaves, cast, floating, names, replace, select, wide, widened
from qjax.formulate.quadratic import Quadratic
from qjax.formulate.solve import solve


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
    """A Quadratic centred at params with a dense H (d, d) on the chosen leaves, from values and gradients at probes.

    objective(params, *data) -> scalar, differentiable, which gets what has less than 32 bits in float32;
    leaves: the chosen ones, None for all, d parameters together;
    radius: sigma of the probes, a scalar, or a dict by leaf name of scalars or arrays that broadcast to the leaf;
    num_samples: the number S of probes, rounded up to whole batches, at least d + 2; shrinkage: s in [0, 1], None to
    estimate it. Probes are drawn batch by batch inside a scan: memory is batch_size d + 3 d^2 numbers, and
    batch_size times what one value and gradient of the objective takes.
    Errors: ValueError for too few samples, a radius that is not positive, a shrinkage outside [0, 1], or a leaf that is
    not floating-point.
    """
    params, data = widened((params, data))
    own = floating(select(params, names(params) if leaves is None else leaves))
    centre = wide(own)
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
        return objective(replace(params, cast(unravel(point), own)), *data).astype(point.dtype)

    probe = partial(_probe, jax.vmap(jax.value_and_grad(value)), flat, sigma, min(batch_size, num_samples))
    # The sums are those of whitened coordinates u / sigma, in which C is near I.
    sums, _ = jax.lax.scan(probe, _zero_sums(size, flat.dtype), jax.random.split(key, num_batches))
    count = num_batches * min(batch_size, num_samples)
    constant, slope, matrix = _regression(sums, count, shrinkage)
    # Back from whitened coordinates.
    gradient: Leaves = unravel(slope / sigma)
    return Quadratic(centre, constant, gradient, Matrix(matrix / (sigma[:, None] * sigma[None, :])))


def fitted_from(
    points: jax.Array, values: jax.Array, gradients: jax.Array, params: Any, *, shrinkage: float | None = None
) -> Quadratic:
    """`fitted` from given probes.

    points (S, d): the leaves of params at each probe, sorted by name and flattened (`ravel_pytree`); values (S,) and
    gradients (S, d) of the objective there. Errors: ValueError for other shapes, fewer than d + 2 points, or concrete
    ones that lie in fewer than d dimensions.
    """
    centre = wide(floating(select(params, names(params))))
    flat, unravel = jax.flatten_util.ravel_pytree(centre)
    points, values, gradients = (jnp.asarray(array, flat.dtype) for array in (points, values, gradients))
    if points.shape != gradients.shape or points.shape[1:] != flat.shape or values.shape != points.shape[:1]:
        raise ValueError(
            f"points and gradients must have shape (S, {flat.size}) and values (S,), got {points.shape}, "
            f"{gradients.shape}, {values.shape}"
        )
    if points.shape[0] <= flat.size + 1:
        raise ValueError(f"points must be more than the number of parameters + 1, {flat.size + 1}, got {len(points)}")
    if not isinstance(points, jax.core.Tracer):
        centred = points - points.mean(0)[None, :]
        spanned = int(solve(jnp.matmul(centred.T, centred, precision="highest"), jnp.zeros_like(centred[0])).rank)
        if spanned < flat.size:
            raise ValueError(f"points must span all {flat.size} dimensions, they span {spanned}")
    sums = _add(_zero_sums(flat.shape[0], flat.dtype), points - flat[None, :], values, gradients)
    constant, slope, matrix = _regression(sums, points.shape[0], shrinkage)
    return Quadratic(centre, constant, unravel(slope), Matrix(matrix))


def _zero_sums(size: int, dtype: Any) -> tuple[jax.Array, ...]:
    """Zeros of the shapes that `_add` adds up, for d = size."""
    vector, matrix, scalar = jnp.zeros(size, dtype), jnp.zeros((size, size), dtype), jnp.zeros((), dtype)
    return scalar, vector, vector, matrix, matrix, scalar


def _add(sums: tuple[jax.Array, ...], u: jax.Array, v: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """sums plus those of v (), u (d,), g (d,), uu' (d, d), ug' (d, d), |g|^2 () over probes u, g (B, d), v (B,)."""
    outer = partial(jnp.matmul, precision="highest")
    new = v.sum(), u.sum(0), g.sum(0), outer(u.T, u), outer(u.T, g), (g**2).sum()
    return tuple(a + b for a, b in zip(sums, new, strict=True))


def _probe(
    value_and_grad: Any, flat: jax.Array, sigma: jax.Array, batch: int, sums: tuple[jax.Array, ...], key: jax.Array
) -> tuple[tuple[jax.Array, ...], None]:
    """One batch of B probes at r + sigma u, u ~ N(0, I), added to the sums of u: the body of a scan over keys.

    flat: r (d,); sigma (d,); value_and_grad: points (B, d) -> values (B,), gradients (B, d).
    """
    u = jax.random.normal(key, (batch, flat.shape[0]), flat.dtype)
    v, g = value_and_grad(flat[None, :] + sigma[None, :] * u)
    return _add(sums, u, v, g * sigma[None, :]), None


def _regression(sums: tuple[jax.Array, ...], count: int, shrinkage: float | None) -> tuple[jax.Array, ...]:
    """(c (), gradient (d,) at u = 0, H (d, d)) in the coordinates u of the sums; count: the number S of probes."""
    mean_v, mean_u, mean_g, uu, ug, gg = (term / count for term in sums)
    size = mean_u.shape[0]
    eye = jnp.eye(size, dtype=mean_u.dtype)
    c = uu - mean_u[:, None] * mean_u[None, :]
    d = ug - mean_u[:, None] * mean_g[None, :]
    raw = jax.scipy.linalg.solve(c, d, assume_a="pos")
    h = 0.5 * (raw + raw.T)
    level = jnp.trace(h) / size
    residual = jnp.maximum(gg - (mean_g**2).sum() - (raw * d).sum(), 0.0)
    # The noise of |H|^2: d columns of d entries, each entry of variance (residual / d) / (S var(u)), halved by the
    # symmetrisation. var(u) = trace(c) / d.
    noise = residual * size / (2 * count * jnp.trace(c) / size)
    excess = ((h - level * eye) ** 2).sum()
    smallest: Any = jnp.finfo(h.dtype)  # type: ignore[no-untyped-call]
    estimate = jnp.clip(noise / jnp.maximum(excess, float(smallest.tiny)), 0.0, 1.0)
    share = estimate if shrinkage is None else shrinkage
    h = level * eye + (1 - share) * (h - level * eye)
    slope = mean_g - jnp.matmul(h, mean_u, precision="highest")
    value = mean_v - jnp.vdot(slope, mean_u, precision="highest") - 0.5 * (h * uu).sum()
    return value, slope, h
