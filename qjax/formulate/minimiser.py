"""The continuous minimiser of a quadratic: the best that any bits could reach, and the start of sequential rounding."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Matrix, join_rows, split_rows
from qjax.formulate.leaves import Leaves, cast, replace, select
from qjax.formulate.quadratic import Quadratic
from qjax.formulate.solve import solve


class Minimum(NamedTuple):
    """What `minimiser` found.

    params    with the leaves of q at the minimiser, in the dtypes that they have there
    residual  () |g + (H + damping I)(p - r)| / |g|, the slope that is left at params relative to that at r: some
              rounding errors where params is stationary; 1 where nothing was gained, because g lies outside of the
              range of H (q has no minimum) or conjugate gradients found none; NaN where H or g holds NaN
    rank      () int32: the number of directions that H + damping I determines, of F or F + 1 for a shared Gram matrix
              and of P for a dense H; None for a `Product`
    negative  () int32: how many of them have negative curvature, so that params is a saddle; None for a `Product`
    """

    params: Any
    residual: jax.Array
    rank: jax.Array | None
    negative: jax.Array | None


def minimiser(
    quadratic: Quadratic, params: Any, *, damping: float = 0.0, num_iterations: int = 200, regular: bool = False
) -> Minimum:
    """params with the quadratic's leaves at r - (H + damping I)^-1 g, r its centre and g its gradient there.

    Where H + damping I is singular (features that are always 0, or combinations of others), the change p - r is that of
    least norm among those that minimise q. A shared Gram matrix or a dense H is solved directly. A `Product` is solved
    by at most num_iterations steps of conjugate gradients, for which H + damping I must be positive semidefinite.
    regular: H + damping I is known to be positive definite (least squares with a ridge), so the solution of singular
    systems is not compiled; where it is not, params and residual are NaN.
    Errors: ValueError for a negative damping.
    """
    if damping < 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    curvature, gradient = quadratic.curvature, quadratic.gradient
    step: Leaves
    rank = negative = None

    def damped(v: Leaves) -> Leaves:
        return {
            name: image + jnp.asarray(damping, image.dtype) * v[name] for name, image in curvature.product(v).items()
        }

    match curvature:
        case ChannelGram() | ChannelFeatures():
            rows, rank, negative = solve(
                _damped(curvature.whole_gram, damping), join_rows(curvature, gradient), regular
            )
            step = split_rows(curvature, gradient, rows)
        case Matrix(matrix):
            flat, unravel = jax.flatten_util.ravel_pytree(gradient)
            flat, rank, negative = solve(_damped(matrix, damping), flat, regular)
            step = unravel(flat)
        case _:
            step, _ = jax.scipy.sparse.linalg.cg(damped, gradient, maxiter=num_iterations)
            # Along a direction without curvature the method divides by 0: its result is then no step at all.
            finite = jnp.isfinite(_norm(step))
            step = {name: jnp.where(finite, leaf, 0) for name, leaf in step.items()}
    left = {name: gradient[name] - image for name, image in damped(step).items()}
    slope = _norm(gradient)
    residual = _norm(left) / jnp.where(slope == 0, 1, slope)
    found = {name: quadratic.centre[name] - step[name] for name in step}
    return Minimum(replace(params, cast(found, select(params, found))), residual, rank, negative)


def _damped(matrix: jax.Array, damping: float) -> jax.Array:
    """matrix + damping I, (F, F)."""
    return matrix + jnp.asarray(damping, matrix.dtype) * jnp.eye(matrix.shape[0], dtype=matrix.dtype)


def _norm(leaves: Leaves) -> jax.Array:
    """The Euclidean norm of all leaves together, ()."""
    squares = [jnp.sum(leaf**2) for leaf in leaves.values()]
    return jnp.sqrt(sum(squares[1:], squares[0]))
