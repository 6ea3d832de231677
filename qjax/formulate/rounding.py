"""Sequential rounding with error feedback: good initial states where H is positive definite.

    q(w) = 1/2 <w - v, H (w - v)> + const,     H = L'L,     L lower triangular
         = 1/2 sum_i L_ii^2 (w_i - c_i)^2 + const,     c_i = v_i - sum_{j < i} L_ij / L_ii (w_j - v_j)
    for i = 0, 1, ..:   w_i = the level nearest to c_i

w are the parameters of one leaf, v is the minimiser of q.
The parameters are rounded one after another, and each compensates the errors of those before it: Babai's nearest plane
(1986), and, for a layer, GPTQ (Frantar et al. 2023). At a temperature, a level is drawn with probability proportional
to exp(-L_ii^2 (c_i - level)^2 / (2 temperature)): Klein's sampler (2000), which gives reads that differ.

    states = sequential(key, quadratic, encoding, num_reads=32, temperature=1e-4)
    samples = sampler(key, qubo, num_reads=32, initial_states=states)

A Qubo of batch (C,) takes the states as (C, num_reads, n / C) instead (`qjax.hybrid.initial_states` splits them).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular

from qjax.formulate.affine import Digits
from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Matrix, channel_rows, from_channel_rows
from qjax.formulate.encodings import Encoding
from qjax.formulate.leaves import cast, select
from qjax.formulate.minimiser import minimiser
from qjax.formulate.quadratic import Quadratic
from qjax.formulate.solve import cholesky, factor

_SHARED = (ChannelGram, ChannelFeatures)


def sequential(
    key: jax.Array,
    quadratic: Quadratic,
    encoding: Encoding,
    num_reads: int = 1,
    temperature: float | jax.Array = 0.0,
    *,
    damping: float = 0.0,
    order: Literal["given", "descending"] = "given",
    regular: bool = False,
) -> jax.Array:
    """States (num_reads, n) int8 of the encoding: the minimiser of q over the encoded leaf, sequentially rounded.

    Other leaves of q (a bias) are held at the encoding's params. temperature: in units of q, a scalar or one per read
    (num_reads,); at 0 rounding is deterministic (Babai's), and all reads are equal. damping: added to the diagonal of
    H throughout, also for the minimiser. Where H is then singular, its minimiser of least norm is rounded, with the
    factor L of a matrix near to H; where H is not positive semidefinite, without feedback (`qjax.formulate.solve`).
    order: in which parameters are rounded: "given", that of the leaf, or "descending" in the diagonal of H, the
    parameters that cost most first, while all others can still make up for their errors (for a layer, GPTQ's
    activation order).
    regular: H + damping I is known to be positive definite, so it is factorised once, and the solution of singular
    systems is not compiled; where it is not, states are of no use.
    After one factorisation of H the work is O(P^2 num_reads) for P parameters, O(F^2 C num_reads) for a shared Gram
    matrix (F, F), whose C channels are rounded in parallel.
    Errors: ValueError unless H is a shared Gram matrix or a matrix on one leaf, and the encoding is of that leaf alone,
    in digits, with bits of its own for every parameter; for a negative damping, a temperature of another shape, or
    another order.
    """
    if order not in ("given", "descending"):
        raise ValueError(f"order must be given or descending, got {order!r}")
    part, matrix = _problem(quadratic, encoding)
    if damping < 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    dtype = matrix.dtype
    heat = jnp.asarray(temperature, dtype)
    if heat.shape not in ((), (num_reads,)):
        raise ValueError(f"temperature must be a scalar or of shape ({num_reads},), got {heat.shape}")
    alone = _restricted(quadratic, encoding, part.path)
    # The leaf as a matrix, rounded by rows, all columns at once: (F, C) for a Gram matrix, (P, 1) for a matrix on
    # the leaf.
    axis = quadratic.curvature.channel_axis if isinstance(quadratic.curvature, _SHARED) else None
    damped = matrix + jnp.asarray(damping, dtype) * jnp.eye(matrix.shape[0], dtype=dtype)
    places = jnp.argsort(-jnp.diagonal(damped), stable=True) if order == "descending" else None

    def placed(leaf: jax.Array) -> jax.Array:
        rows = _as_rows(leaf, axis)
        return rows if places is None else rows[places]

    # Cholesky gives LL', but H = L'L is wanted, L lower triangular: H is factorised with both axes reversed, then the
    # factor transposed and reversed back.
    reversed_ = damped[::-1, ::-1] if places is None else damped[places[::-1]][:, places[::-1]]
    lower = (cholesky(reversed_) if regular else factor(reversed_)).T[::-1, ::-1]
    # The minimiser. Of the centre, not of the encoding's params, which may be of less precision.
    if regular:
        inner = solve_triangular(lower, placed(alone.gradient[part.path]), trans=1, lower=True)
        minimum = placed(alone.centre[part.path]) - solve_triangular(lower, inner, lower=True)
    else:
        minimum = placed(minimiser(alone, alone.centre, damping=damping).params[part.path])
    shape = alone.centre[part.path].shape
    origin, steps = (placed(jnp.broadcast_to(leaf.astype(dtype), shape)) for leaf in (part.origin, part.step))
    codes = _rounded(
        key,
        lower,
        minimum - origin,
        steps,
        jnp.asarray(_patterns(part) @ np.asarray(part.weights), dtype),
        jnp.broadcast_to(heat, (num_reads,)),
    )
    if places is not None:
        codes = codes[jnp.argsort(places)]
    codes = codes.reshape(*shape, num_reads) if axis is None else from_channel_rows(codes, shape, axis)
    bits = jnp.asarray(_patterns(part))[codes]  # (*leaf, reads, digits)
    # The order of an encoding's bits: channel, the leaf's other axes, digit.
    channel_first = jnp.moveaxis(jnp.moveaxis(bits, -2, 0), 1 + part.channel_axis % len(shape), 1)
    return channel_first.reshape(num_reads, -1)


def _as_rows(leaf: jax.Array, axis: int | None) -> jax.Array:
    """leaf as (F, C) with C its axis `axis`, or as (P, 1) for None."""
    return leaf.reshape(-1, 1) if axis is None else channel_rows(leaf, axis)


@jax.jit
def _rounded(
    key: jax.Array, lower: jax.Array, target: jax.Array, step: jax.Array, levels: jax.Array, heat: jax.Array
) -> jax.Array:
    """The chosen levels as indices of `levels`, (rows, columns, reads) int32.

    lower: the factor L of H, (rows, rows); target: v - origin, (rows, columns); step (rows, columns); levels (K,): what
    a parameter can be, in steps from its origin; heat: temperatures (reads,).
    """
    rows, columns = target.shape
    shape = (columns, heat.shape[0])
    scale = jnp.diagonal(lower)
    lower = lower / scale[:, None]

    def one(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        errors, codes = carry  # w - v, (rows, columns * reads), 0 in rows not yet rounded; the result so far
        feedback = jnp.matmul(lower[i][None, :], errors, precision="highest").reshape(shape)  # v_i - c_i
        error = levels[None, None, :] * step[i][:, None, None] - target[i][:, None, None]  # w_i - v_i
        distance = error + feedback[:, :, None]  # w_i - c_i, (columns, reads, K)
        # With Gumbel noise the argmin is a draw with probability proportional to exp(-cost / temperature).
        noise = jax.random.gumbel(jax.random.fold_in(key, i), (*shape, levels.shape[0]), target.dtype)
        cost = 0.5 * (distance * scale[i]) ** 2 - heat[None, :, None] * noise
        code = jnp.argmin(cost, axis=-1).astype(jnp.int32)
        chosen = jnp.take_along_axis(jnp.broadcast_to(error, distance.shape), code[:, :, None], axis=-1)
        return errors.at[i].set(chosen.reshape(-1)), codes.at[i].set(code)

    first = (jnp.zeros((rows, columns * shape[1]), target.dtype), jnp.zeros((rows, *shape), jnp.int32))
    codes: jax.Array = lax.fori_loop(0, rows, one, first)[1]
    return codes


def _patterns(part: Digits) -> np.ndarray:
    """All states of one parameter's b digits, (2^b, b) int8: row c holds the binary digits of c, lowest first."""
    count = len(part.weights)
    return np.array([[(code >> k) & 1 for k in range(count)] for code in range(2**count)], np.int8)


def _problem(quadratic: Quadratic, encoding: Encoding) -> tuple[Digits, jax.Array]:
    """The encoding's part, and H on its leaf: (F, F) for a shared Gram matrix, (P, P) for a matrix. Checks both."""
    curvature, part = quadratic.curvature, encoding.parts[0]
    if len(encoding.parts) != 1 or not isinstance(part, Digits):
        raise ValueError("sequential rounding needs an encoding of one part, in digits")
    if part.units != part.origin.shape or part.cardinality is not None:
        raise ValueError(f"sequential rounding needs free digits for every parameter of {part.path}")
    if isinstance(curvature, _SHARED) and curvature.kernel == part.path:
        return part, curvature.kernel_gram
    if isinstance(curvature, Matrix) and tuple(quadratic.centre) == (part.path,):
        return part, curvature.matrix
    raise ValueError(f"sequential rounding needs a Gram matrix or a matrix on {part.path} alone as the curvature")


def _restricted(quadratic: Quadratic, encoding: Encoding, path: str) -> Quadratic:
    """The quadratic on the leaf `path` alone, its other leaf (a bias) held at the encoding's params.

    Its curvature is that block of H; its gradient is g + H d on the leaf, d = params - centre on the bias, 0 elsewhere.
    """
    curvature = quadratic.curvature
    if not isinstance(curvature, _SHARED) or curvature.bias is None:
        return quadratic
    held = cast(select(encoding.params, quadratic.centre), quadratic.centre)
    d = {name: leaf - quadratic.centre[name] for name, leaf in held.items()} | {
        path: jnp.zeros_like(quadratic.centre[path])
    }
    slope = quadratic.gradient[path] + curvature.product(d)[path]
    # The value is not updated: a minimiser does not depend on it.
    gram = ChannelGram(curvature.kernel_gram, path, channel_axis=curvature.channel_axis)
    return Quadratic({path: quadratic.centre[path]}, quadratic.value, {path: slope}, gram)
