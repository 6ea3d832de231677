"""QAOA's circuit on an exact statevector, and the expected cost with its gradient.

    state x = sum_i x_i 2^i,   s = 2x - 1,   cost c(x) = h.s + 1/2 s'Js     (2^n,)
    |g, b>  = U_p .. U_1 |+>,   U_k = exp(i b_k sum_i X_i) exp(-i g_k c)
    F(g, b) = <g, b| c |g, b>

so that positive angles anneal towards low cost. sum_i X_i = W diag(n - 2|y|) W, |y| the number of ones of y and W the
Walsh-Hadamard transform (real, its own inverse): a layer is two phases and two transforms. A state is (2, 2^n), real
and imaginary parts. The gradient runs the circuit backwards (Jones, Gacon 2020, arXiv:2009.02823): it holds two states,
whatever p is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Bits transformed by one matrix product: 16 x 16 was the fastest on a CPU (docs/samplers.md).
_BITS_AT_ONCE = 4
# Peak memory of a call per problem, in arrays of 2^n floats, as XLA accounts for it on a CPU, rounded up.
FLOATS_PER_STATE = 18


def spin_costs(fields: jax.Array, couplings: jax.Array) -> jax.Array:
    """c (2^n,) of all states, for h (n,) and symmetric J (n, n), whose diagonal is not read.

    With s = (a, b), a the spins of the low bits: c = c(a) + c(b) + b'Ja, tables of 2^(n/2) states and one product.
    """
    n = fields.shape[0]
    l = n // 2
    couplings = jnp.where(jnp.eye(n, dtype=bool), jnp.zeros((), fields.dtype), couplings.astype(fields.dtype))
    low, high = (_spins(k, fields.dtype) for k in (l, n - l))

    def own(states: jax.Array, h: jax.Array, block: jax.Array) -> jax.Array:
        return _matmul(states, h) + 0.5 * (_matmul(states, block) * states).sum(-1)

    cross = _matmul(_matmul(high, couplings[l:, :l]), low.T)
    above = own(high, fields[l:], couplings[l:, l:])
    return (cross + above[:, None] + own(low, fields[:l], couplings[:l, :l])[None, :]).reshape(-1)


def bits_of(numbers: jax.Array, n: int) -> jax.Array:
    """States as integers (m,) -> bits (m, n), x_i being bit i of the number."""
    return (numbers.astype(jnp.int32)[:, None] >> jnp.arange(n, dtype=jnp.int32)[None, :]) & 1


def evolved(angles: jax.Array, costs: jax.Array) -> jax.Array:
    """|g, b> for angles (2, p) and c (2^n,): (2, 2^n)."""
    size = costs.shape[0]
    start = jnp.stack([jnp.full(size, size**-0.5, costs.dtype), jnp.zeros(size, costs.dtype)])
    mixer = _mixer(costs)

    def layer(k: jax.Array, state: jax.Array) -> jax.Array:
        return _walsh(_phased(_walsh(_phased(state, angles[0, k] * costs)), -angles[1, k] * mixer))

    return lax.fori_loop(0, angles.shape[1], layer, start)


def probabilities(state: jax.Array) -> jax.Array:
    """Of the measured states: (2, 2^n) -> (2^n,)."""
    return (state**2).sum(0)


@jax.custom_vjp
def expectation(angles: jax.Array, costs: jax.Array) -> jax.Array:
    """F, a scalar, for angles (2, p) and c (2^n,); differentiable once by both, in reverse mode."""
    return (probabilities(evolved(angles, costs)) * costs).sum()


def _forward(angles: jax.Array, costs: jax.Array) -> tuple[jax.Array, Any]:
    state = evolved(angles, costs)
    return (probabilities(state) * costs).sum(), (angles, costs, state)


def _backward(kept: Any, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """dF = 2 Re <l|d psi>, l = c psi. By the angle of exp(-i a d) it is 2 sum d Im(conj(l) psi), before or after."""
    angles, costs, state = kept
    mixer = _mixer(costs)
    both = jnp.concatenate([state, state * costs[None, :]])  # psi, then l

    def slope(both: jax.Array) -> jax.Array:
        return 2 * (both[2] * both[1] - both[3] * both[0])

    def layer(j: jax.Array, carry: Any) -> Any:
        both, by_angle, by_cost = carry
        k = angles.shape[1] - 1 - j
        both = _walsh(both)
        by_angle = by_angle.at[1, k].set(-(slope(both) * mixer).sum())
        both = _walsh(_phased(both, angles[1, k] * mixer))
        local = slope(both)
        by_angle = by_angle.at[0, k].set((local * costs).sum())
        return _phased(both, -angles[0, k] * costs), by_angle, by_cost + angles[0, k] * local

    start = (both, jnp.zeros_like(angles), probabilities(state))
    _, by_angle, by_cost = lax.fori_loop(0, angles.shape[1], layer, start)
    return cotangent * by_angle, cotangent * by_cost


expectation.defvjp(_forward, _backward)


def drawn(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """States (m,) int32 drawn from weights (2^n,) by uniforms (2, m) in (0, 1).

    By inversion in two stages, first the high half of the bits, then the low: sums of 2^(n/2) terms are accurate enough
    in float32, one of 2^n would not be.
    """
    n = weights.shape[0].bit_length() - 1
    table = weights.reshape((2 ** (n - n // 2), -1))
    row = _inverted(table.sum(1), uniforms[0])
    inside: Any = jax.vmap(lambda r, u: _inverted(table[r], u[None])[0])
    return row * jnp.int32(table.shape[1]) + inside(row, uniforms[1])


def _inverted(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """The cumulative sums of weights (k,), inverted at uniforms (m,): indices (m,) int32."""
    sums = jnp.cumsum(weights)
    place = jnp.searchsorted(sums, uniforms.astype(sums.dtype) * sums[-1], side="right")
    return jnp.minimum(place, weights.shape[0] - 1).astype(jnp.int32)


def _phased(states: jax.Array, phase: jax.Array) -> jax.Array:
    """exp(-i phase) times states (2 m, N), real and imaginary parts in turn, for phase (N,)."""
    cos, sin = jnp.cos(phase)[None, :], jnp.sin(phase)[None, :]
    real, imaginary = states[0::2], states[1::2]
    turned = jnp.stack([real * cos + imaginary * sin, imaginary * cos - real * sin], axis=1)
    return turned.reshape(states.shape)


def _walsh(rows: jax.Array) -> jax.Array:
    """The orthonormal Walsh-Hadamard transform of each row (m, 2^n)."""
    m, size = rows.shape
    n, done = size.bit_length() - 1, 0
    parts = max(-(-n // _BITS_AT_ONCE), 1)
    for k in range(parts):
        width = n // parts + (k < n % parts)
        matrix = jnp.asarray(_hadamard(width), rows.dtype)
        blocks = rows.reshape((m * 2**done, 2**width, -1))
        rows = jnp.einsum("ij,ajr->air", matrix, blocks, precision="highest").reshape((m, size))
        done += width
    return rows


def _hadamard(width: int) -> Any:
    """The orthonormal Walsh-Hadamard matrix (2^width, 2^width)."""
    matrix = np.ones((1, 1))
    for _ in range(width):
        matrix = np.kron(matrix, np.array([[1.0, 1.0], [1.0, -1.0]])) * 0.5**0.5
    return matrix


def _mixer(costs: jax.Array) -> jax.Array:
    """n - 2|y| for all y, (2^n,): the eigenvalues of sum_i X_i."""
    size = costs.shape[0]
    ones = lax.population_count(jnp.arange(size, dtype=jnp.uint32)).astype(costs.dtype)
    return (size.bit_length() - 1) - 2 * ones


def _spins(n: int, dtype: Any) -> jax.Array:
    return (2 * bits_of(jnp.arange(2**n), n) - 1).astype(dtype)


_matmul = partial(jnp.matmul, precision="highest")
