"""The continuous minimiser of a quadratic: the best that any bits could reach, and the start of sequential rounding."""

from __future__ import annotations

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Matrix, join_rows, split_rows
from qjax.formulate.leaves import Leaves, replace
from qjax.formulate.quadratic import Quadratic


def minimiser(quadratic: Quadratic, params: Any, *, damping: float = 0.0, num_iterations: int = 200) -> Any:
    """params with the quadratic's leaves at r - (H + damping I)^-1 g, r its centre and g its gradient there.

    A shared Gram matrix or a dense H is solved directly. A `Product` is solved by at most num_iterations steps of
    conjugate gradients, for which H + damping I must be positive definite. Errors: ValueError for a negative damping.
    """
    if damping < 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    curvature, gradient = quadratic.curvature, quadratic.gradient
    step: Leaves
    match curvature:
        case ChannelGram() | ChannelFeatures():
            rows = join_rows(curvature, gradient)
            if isinstance(curvature, ChannelGram):
                gram = curvature.gram
            else:
                gram = jnp.matmul(curvature.features.T, curvature.features, precision="highest")
            step = split_rows(curvature, gradient, _solve(gram, rows, damping))
        case Matrix(matrix):
            flat, unravel = jax.flatten_util.ravel_pytree(gradient)
            step = unravel(_solve(matrix, flat, damping))
        case _:

            def damped(v: Leaves) -> Leaves:
                return {
                    name: image + jnp.asarray(damping, image.dtype) * v[name]
                    for name, image in curvature.product(v).items()
                }

            step, _ = jax.scipy.sparse.linalg.cg(damped, gradient, maxiter=num_iterations)
    return replace(params, {name: quadratic.centre[name] - step[name] for name in step})


def _solve(matrix: jax.Array, right: jax.Array, damping: float) -> jax.Array:
    """(matrix + damping I)^-1 right for matrix (F, F) and right (F, C), or (P, P) and (P,)."""
    damped = matrix + jnp.asarray(damping, matrix.dtype) * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    solution: jax.Array = jnp.linalg.solve(damped, right)
    return solution
