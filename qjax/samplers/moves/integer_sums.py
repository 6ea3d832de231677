"""Energies of states as sums of integers that floating-point numbers add up without rounding.

    x'Tx = size * sum_j units_j x'C_j x,   j = 1, 2, 3,   x in {0,1}^n,   T triangular

C_1 holds the leading digits of T in units of their sum, C_2 what is left in smaller units, C_3 what is left then; all
integers, so small that no sum of one C_j is rounded. What C_3 leaves is below 2^-45 of sum |T| in float32. So the
difference of two energies is as exact as a number of its own size can be, however large the energies are.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Sums(NamedTuple):
    """A triangular matrix T (n, n), n at most 30, in parts."""

    parts: jax.Array  # (3, n, n), C_j
    units: tuple[jax.Array, jax.Array, jax.Array]
    size: jax.Array

    @staticmethod
    def of(triangle: jax.Array) -> Sums:
        digits = int(np.finfo(triangle.dtype).nmant) + 1
        size = _power_of_two(jnp.max(jnp.abs(triangle)))
        rest = triangle / size
        # 3/2 of the power of two is the largest sum: a quarter of what is exact, since rounding adds to it, and two
        # sums are subtracted.
        unit = _power_of_two(jnp.sum(jnp.abs(rest))) * 2.0 ** (2 - digits)
        parts, units = [], []
        for _ in range(3):
            part = jnp.round(rest / unit)
            rest = rest - part * unit
            parts.append(part)
            units.append(unit)
            # There are fewer than 2^9 entries, each with a rest of half a unit at most.
            unit = unit * 2.0 ** (9 - digits)
        return Sums(jnp.stack(parts), (units[0], units[1], units[2]), size)

    def states(self, bits: jax.Array) -> jax.Array:
        """x'C_j x for states (m, n): (3, m)."""
        x = bits.astype(self.parts.dtype)
        return (_each(x, self.parts) * x[None]).sum(-1)

    def across(self, high: jax.Array, l: int) -> tuple[jax.Array, jax.Array]:
        """(slopes (3, rows, l), among (3, rows)) with x'C_j x = a'C_j a + slopes_j.a + among_j for x = (a, b), a of l
        bits, b of high (rows, n - l)."""
        among = self._replace(parts=self.parts[:, l:, l:]).states(high)
        return _each(high, self.parts[:, :l, l:].swapaxes(1, 2)), among

    def table(self, l: int) -> jax.Array:
        """a'C_j a for all states a of the first l bits, by their number: (3, 2^l)."""
        inner, half = self._replace(parts=self.parts[:, :l, :l]), l // 2
        few, others = (bits_of(jnp.arange(2**k), k).astype(self.parts.dtype) for k in (half, l - half))
        slopes, among = inner.across(others, half)
        alone = inner._replace(parts=inner.parts[:, :half, :half]).states(few)
        sums = jnp.einsum("jrl,ml->jrm", slopes, few, precision="highest") + alone[:, None, :] + among[:, :, None]
        return sums.reshape((3, 2**l))

    def total(self, sums: jax.Array) -> jax.Array:
        """sum_j units_j sums_j over the first axis, rounded: by no more than a digit of itself."""
        return (self.units[0] * sums[0] + self.units[1] * sums[1]) + self.units[2] * sums[2]


def triangle(linear: jax.Array, matrix: jax.Array) -> jax.Array:
    """T (n, n) with linear.x + 1/2 x'Mx = x'Tx on bits: linear (n,) on the diagonal, M above it."""
    return jnp.triu(matrix, 1) + jnp.diag(linear)


def margin(triangle: jax.Array) -> jax.Array:
    """By how much plain sums of a state's coefficients may be off, (); 0 where they are not rounded at all.

    40 eps sum |T|: twice the bound of their 30 to 35 additions in a row.
    """
    rounded = jnp.any(Sums.of(triangle).parts[1:] != 0)
    return jnp.where(rounded, 40 * float(np.finfo(triangle.dtype).eps) * jnp.sum(jnp.abs(triangle)), 0)


def bits_of(numbers: jax.Array, n: int) -> jax.Array:
    """States as integers (m,) -> bits (m, n), x_i being bit i of the number."""
    return (numbers.astype(jnp.int32)[:, None] >> jnp.arange(n, dtype=jnp.int32)[None, :]) & 1


def _each(x: jax.Array, parts: jax.Array) -> jax.Array:
    """x C_j for x (m, n), parts (3, n, k): (3, m, k)."""
    return jnp.einsum("mi,jik->jmk", x, parts, precision="highest")


def _power_of_two(x: jax.Array) -> jax.Array:
    """One between 2/3 x and 4/3 x, for x > 0; 1 for 0."""
    near = lax.reduce_precision(x, int(np.finfo(x.dtype).nexp), 0)
    return jnp.where(near > 0, near, 1)
