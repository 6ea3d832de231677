"""Sequential rounding with error feedback: good first states for problems of the closest-vector shape.

    q(w) = 1/2 <w - v, H (w - v)> + const,   H = L'L,  L lower triangular
         = 1/2 sum_i L_ii^2 (w_i - c_i)^2 + const,   c_i = v_i - sum_{j < i} L_ij / L_ii (w_j - v_j)
    row i:   w_i = the level nearest to c_i

Parameter after parameter is rounded, and each makes up for those before it: this is Babai's nearest plane (1986), and
GPTQ (Frantar et al. 2023) for a layer. At a temperature the level is drawn in proportion to
exp(-L_ii^2 (c_i - level)^2 / (2 temperature)): Klein's sampler (2000), whose reads are diverse and still good.

    states = sequential(key, quadratic, encoding, num_reads=32, temperature=1e-4)
    samples = sampler(key, qubo, num_reads=32, initial_states=states)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.formulate.affine import Digits
from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Matrix
from qjax.formulate.encodings import Encoding
from qjax.formulate.leaves import select
from qjax.formulate.minimiser import minimiser
from qjax.formulate.quadratic import Quadratic


def sequential(
    key: jax.Array,
    quadratic: Quadratic,
    encoding: Encoding,
    num_reads: int = 1,
    temperature: float | jax.Array = 0.0,
    *,
    damping: float = 0.0,
) -> jax.Array:
    """States (num_reads, n) int8 of the encoding, sequentially rounded from the minimiser of E over the leaf, its other
    leaves being those of the encoding's params.

    temperature: in units of q, a scalar or one a read (num_reads,); 0 is Babai's deterministic rounding, and its reads
    are all equal. damping: added to the diagonal of H, which must be positive definite with it (where it is not, the
    states are no better than arbitrary ones). The work is O(P^2 num_reads) after one factorisation; the channels of a
    shared Gram matrix go in parallel.
    Errors: ValueError unless H is one Gram matrix or a matrix on one leaf, and the encoding is digits of their own for
    every parameter of that leaf; for a negative damping or a temperature of another shape.
    """
    part, matrix = _problem(quadratic, encoding)
    if damping < 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    dtype = part.origin.dtype
    heat = jnp.asarray(temperature, dtype)
    if heat.shape not in ((), (num_reads,)):
        raise ValueError(f"temperature must be a scalar or of shape ({num_reads},), got {heat.shape}")
    alone = _restricted(quadratic, encoding, part.path)
    target = select(minimiser(alone, encoding.params, damping=damping), [part.path])[part.path]
    # Rows are rounded in turn, columns in parallel: (F, C) for a Gram matrix, (P, 1) for a matrix on the whole leaf.
    rows = (matrix.shape[0], -1)
    steps = jnp.broadcast_to(part.step, target.shape).reshape(rows)
    damped = matrix + damping * jnp.eye(matrix.shape[0], dtype=dtype)
    codes = _rounded(
        key,
        # The factor of H with both axes reversed, reversed back: H = L'L with L lower triangular, rows contiguous.
        jnp.linalg.cholesky(damped[::-1, ::-1]).T[::-1, ::-1],
        (target - part.origin).reshape(rows),
        steps,
        jnp.asarray(_patterns(part) @ np.asarray(part.weights), dtype),
        jnp.broadcast_to(heat, (num_reads,)),
    )
    bits = jnp.asarray(_patterns(part))[codes.reshape((*target.shape, num_reads))]  # (leaf, reads, digits)
    # A part's bits are channel by channel, then the leaf's other axes, then digits.
    channel_first = jnp.moveaxis(jnp.moveaxis(bits, -2, 0), target.ndim, 1)
    return channel_first.reshape(num_reads, -1)


@jax.jit
def _rounded(
    key: jax.Array, lower: jax.Array, target: jax.Array, step: jax.Array, levels: jax.Array, heat: jax.Array
) -> jax.Array:
    """Codes of the chosen levels, (rows, columns, reads); target, step (rows, columns), levels (L,), heat (reads,)."""
    rows, columns = target.shape
    shape = (columns, heat.shape[0])
    scale = jnp.diagonal(lower)
    lower = lower / scale[:, None]

    def one(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        errors, codes = carry  # (rows, columns * reads): w - v so far, 0 where still open; what was chosen
        moved = jnp.matmul(lower[i][None, :], errors, precision="highest").reshape(shape)
        at = levels[None, None, :] * step[i][:, None, None] - target[i][:, None, None]  # w_i - v_i
        off = at + moved[:, :, None]
        # Gumbel noise makes the argmin a draw from the Boltzmann law of the costs.
        noise = jax.random.gumbel(jax.random.fold_in(key, i), (*shape, levels.shape[0]), target.dtype)
        cost = 0.5 * (off * scale[i]) ** 2 - heat[None, :, None] * noise
        code = jnp.argmin(cost, axis=-1).astype(jnp.int32)
        chosen = jnp.take_along_axis(jnp.broadcast_to(at, off.shape), code[:, :, None], axis=-1)
        return errors.at[i].set(chosen.reshape(-1)), codes.at[i].set(code)

    first = (jnp.zeros((rows, columns * shape[1]), target.dtype), jnp.zeros((rows, *shape), jnp.int32))
    codes: jax.Array = lax.fori_loop(0, rows, one, first)[1]
    return codes


def _patterns(part: Digits) -> np.ndarray:
    """The states of one parameter's digits, (2^b, b)."""
    count = len(part.weights)
    return np.array([[(code >> k) & 1 for k in range(count)] for code in range(2**count)], np.int8)


def _problem(quadratic: Quadratic, encoding: Encoding) -> tuple[Digits, jax.Array]:
    """The encoding's part, and H on its rows: (F, F) for one Gram matrix, (P, P) for a matrix on the leaf."""
    curvature, part = quadratic.curvature, encoding.parts[0]
    if len(encoding.parts) != 1 or not isinstance(part, Digits):
        raise ValueError("sequential rounding needs an encoding of one part, in digits")
    if part.units != part.origin.shape or part.cardinality is not None:
        raise ValueError(f"sequential rounding needs free digits for every parameter of {part.path}")
    if isinstance(curvature, ChannelGram | ChannelFeatures) and curvature.kernel == part.path:
        return part, curvature.kernel_gram
    if isinstance(curvature, Matrix) and tuple(quadratic.centre) == (part.path,):
        return part, curvature.matrix
    raise ValueError(f"sequential rounding needs a Gram matrix or a matrix on {part.path} alone as the curvature")


def _restricted(quadratic: Quadratic, encoding: Encoding, path: str) -> Quadratic:
    """The quadratic on one leaf, the others (a bias) held at the encoding's params: H_kk, and slope g_k + (H d)_k for
    their d = params - centre."""
    curvature = quadratic.curvature
    if not isinstance(curvature, ChannelGram | ChannelFeatures) or curvature.bias is None:
        return quadratic
    held = select(encoding.params, quadratic.centre)
    d = {name: leaf - quadratic.centre[name] for name, leaf in held.items()} | {
        path: jnp.zeros_like(quadratic.centre[path])
    }
    slope = quadratic.gradient[path] + curvature.product(d)[path]
    # The value is left as it is: a minimiser does not depend on it.
    gram = ChannelGram(curvature.kernel_gram, path)
    return Quadratic({path: quadratic.centre[path]}, quadratic.value, {path: slope}, gram)
