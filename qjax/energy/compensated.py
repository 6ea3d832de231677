"""The energy of a float32 Qubo by compensated sums: about as exact as sums of its coefficients in float64.

Where large terms cancel, a plain float32 sum puts states in the wrong order: one weight of 16 bits has couplings up to
2^29 beside differences of energy of order 1.

    split     M = high + low, where `high` has so few digits that no sum of its entries along a row is rounded (Ozaki,
              Ogita, Oishi, Rump 2012, Error-free transformations of matrix multiplication)
    product   Mx = high x + low x for x in {0,1}^n: the first term exact, the second as small as its rounding errors are
    total     a sum that carries the rounding errors of its additions along (Ogita, Rump, Oishi 2005, Accurate sum and
              dot product)

Other x (relaxed bits) and gradients are as exact as plain sums. Other dtypes have plain sums.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse

_DIGITS = 24  # of a float32
# Rows of a matrix that are split at a time: two more matrices of its size might not fit.
_ROWS = 4096


class Pair(NamedTuple):
    """The number high + low, elementwise."""

    high: jax.Array
    low: jax.Array


def value(couplings: Couplings, linear: jax.Array, offset: jax.Array, x: jax.Array) -> jax.Array:
    """offset + linear.x + 1/2 x'Mx for x and linear (..., n), offset (...), all of one dtype."""
    if x.dtype != jnp.float32:
        return offset + ((linear + 0.5 * couplings.matvec(x)) * x).sum(-1)
    if isinstance(couplings, Implicit):
        # Outside jit: the function that it holds may not be traced twice.
        image = couplings.matvec(x)
        return _value(Pair(image, jnp.zeros_like(image)), linear, offset, x)
    return _value(couplings, linear, offset, x)


@jax.jit
def _value(couplings: Any, linear: jax.Array, offset: jax.Array, x: jax.Array) -> jax.Array:
    if isinstance(couplings, Gram):
        terms = _gram_terms(couplings.factor.astype(x.dtype), linear, x)
    else:
        image = couplings if isinstance(couplings, Pair) else _product(couplings, x)
        field, error = two_sum(linear, 0.5 * image.high)
        terms = Pair(x * field, x * (error + 0.5 * image.low))
    inner = total(terms)
    whole, error = two_sum(offset, inner.high)
    return whole + (error + inner.low)


def _product(couplings: Dense | Sparse, x: jax.Array) -> Pair:
    """Mx for x (..., n)."""
    if isinstance(couplings, Dense):
        return _rows_product(couplings.matrix.astype(x.dtype), x)
    if couplings.integer_dtype in ("int8", "int16"):
        image = couplings.matvec(x)
        return Pair(image, jnp.zeros_like(image))
    if couplings.integer_dtype is not None:
        # Of 32 bits: more than float32 holds, so they are split as integers.
        lows = tuple(w & 4095 for w in couplings.weights)
        highs = tuple(w - low for w, low in zip(couplings.weights, lows, strict=True))
    else:
        parts = [split(w.astype(x.dtype), _exact_digits(w.shape[-1])) for w in couplings.weights]
        highs, lows = tuple(part.high for part in parts), tuple(part.low for part in parts)
    high, low = (replace(couplings, weights=weights, levels=None).matvec(x) for weights in (highs, lows))
    return Pair(high, low)


def _rows_product(matrix: jax.Array, x: jax.Array) -> Pair:
    """matrix x for matrix (m, n), x (..., n) -> (..., m)."""
    m, n = matrix.shape

    def of(rows: jax.Array) -> Pair:
        parts = split(rows, _exact_digits(n))
        return Pair(*(jnp.matmul(x, part.T, precision="highest") for part in parts))

    if m <= _ROWS:
        return of(matrix)
    starts = jnp.minimum(jnp.arange(-(-m // _ROWS)) * _ROWS, m - _ROWS)
    blocks: Pair = lax.map(lambda first: of(lax.dynamic_slice_in_dim(matrix, first, _ROWS, 0)), starts)

    def joined(parts: jax.Array) -> jax.Array:
        # The last block begins early, so as to be a whole one.
        *whole, last = parts
        return jnp.concatenate([*whole, last[..., _ROWS * len(starts) - m :]], axis=-1)

    return Pair(*map(joined, blocks))


def _gram_terms(factor: jax.Array, linear: jax.Array, x: jax.Array) -> Pair:
    """Terms (..., n + N) of linear.x + 1/2 |Ax|^2 - 1/2 x' diag(A'A) x for a factor A (N, n)."""
    image = _rows_product(factor, x)
    squares = total(Pair(*(part.T for part in _square(Pair(factor, jnp.zeros_like(factor))))))
    own = Pair(*(-0.5 * x * jnp.broadcast_to(part, x.shape) for part in squares))
    field, error = two_sum(linear, own.high)
    low = x * (error + own.low)
    norm = _square(image)
    return Pair(jnp.concatenate([x * field, 0.5 * norm.high], axis=-1), jnp.concatenate([low, 0.5 * norm.low], axis=-1))


def _square(number: Pair) -> Pair:
    """number^2, by its leading half, whose square is exact."""
    half = split(number.high, _DIGITS // 2)
    rest = half.low + number.low
    return Pair(half.high * half.high, (2 * half.high + rest) * rest)


def split(rows: jax.Array, digits: int) -> Pair:
    """Each row (..., k) as high + low exactly; high: multiples of one unit of the row, below 2^digits of them."""
    largest = jnp.max(jnp.abs(rows), axis=-1, keepdims=True, initial=0.0)
    # The power of two next to it: it is at most 3/2 of that.
    unit = lax.reduce_precision(largest, exponent_bits=8, mantissa_bits=0) * 2.0 ** (1 - digits)
    unit = lax.stop_gradient(jnp.where(unit > 0, unit, 1))
    high = jnp.round(rows / unit) * unit
    return Pair(high, rows - high)


def _exact_digits(terms: int) -> int:
    """Digits of which that many numbers add up without rounding."""
    return max(_DIGITS - 1 - math.ceil(math.log2(max(terms, 1))), 1)


def two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(s, e) with s = a + b rounded and s + e = a + b exactly (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@jax.custom_jvp
def total(terms: Pair) -> Pair:
    """The sum along the last axis."""

    def add(a: Pair, b: Pair) -> Pair:
        high, error = two_sum(a.high, b.high)
        return Pair(high, a.low + b.low + error)

    zero = jnp.zeros((), terms.high.dtype)
    summed: Pair = lax.reduce(terms, Pair(zero, zero), add, (terms.high.ndim - 1,))
    return summed


@total.defjvp
def _total_jvp(primals: tuple[Pair], tangents: tuple[Pair]) -> tuple[Pair, Pair]:
    (slope,) = tangents
    change = (slope.high + slope.low).sum(-1)
    return total(*primals), Pair(change, jnp.zeros_like(change))
