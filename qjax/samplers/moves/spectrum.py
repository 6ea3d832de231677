"""The ends of the spectrum of the couplings, by products only."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.couplings import Couplings, Implicit
from qjax.samplers.moves import columns

_Carry = tuple[jax.Array, jax.Array, jax.Array]


def ends_of_spins(couplings: Couplings, diagonal: jax.Array | None, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """(smallest, largest) eigenvalue of K, the couplings of the spins; diagonal (n,): that which implicit ones keep."""
    # Implicit products are expensive, and time steps have room for ends that lie a little inside.
    products = 12 if isinstance(couplings, Implicit) else 24
    return extreme_eigenvalues(
        lambda v: columns.spin_product(couplings, diagonal, v, often=False), couplings.size, dtype, products
    )


def extreme_eigenvalues(
    product: Callable[[jax.Array], jax.Array], n: int, dtype: jnp.dtype, products: int = 24
) -> tuple[jax.Array, jax.Array]:
    """(smallest, largest) eigenvalue of a symmetric matrix of trace zero, n >= 1, given by its product on (n, 1).

    Lanczos (1950): in the Krylov space of K from a random v the matrix is tridiagonal, and the ends of its spectrum
    approach those of K from inside: 24 products come within 1 % on random +-1 matrices (docs/samplers.md).
    Vectors are not orthogonalised again: without that eigenvalues repeat, but the ends stay. A space that is exhausted
    earlier adds zeros, which lie inside where the trace is zero. Vectors are scaled by their largest entry before their
    norm is taken, so huge and tiny coefficients are safe.
    """

    def extend(carry: _Carry, _: None) -> tuple[_Carry, tuple[jax.Array, jax.Array]]:
        before, v, coupling = carry
        image = product(v[:, None])[:, 0] - coupling * before
        own = jnp.sum(image * v)
        after, coupling = _unit(image - own * v)
        return (v, after, coupling), (own, coupling)

    start, _ = _unit(jax.random.normal(jax.random.key(0), (n,), dtype))
    first = (jnp.zeros_like(start), start, jnp.zeros((), dtype))
    _, (own, couplings) = lax.scan(extend, first, length=products)
    inner = couplings[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(own) + jnp.diag(inner, 1) + jnp.diag(inner, -1))
    return values[0], values[-1]


def _unit(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(v/|v|, |v|); zeros and 0 for v = 0."""
    largest = jnp.max(jnp.abs(v))
    v = v / jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(v * v))
    return v / jnp.where(norm > 0, norm, 1), largest * norm
