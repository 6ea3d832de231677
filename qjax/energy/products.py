"""Products with M as a function, many at once, in batches that keep to a bound of memory.

A product through jvp and vjp has arrays of the size of a network's activations: of a layer 512 wide over 60,000 rows,
123 MB each. At most 64 products are done at once, and only so many that none of their arrays, for all of them together,
takes more than 256 MiB (one product may). A few such arrays exist at the same time, so the memory is a few times that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.tree_util import Partial

from qjax.rewriting import channels_last

_MOST_PRODUCTS, _MOST_BYTES = 64, 2**28


def columns(apply: Partial, n: int, dtype: Any = None) -> jax.Array:
    """M e_i for every unit vector e_i, as rows (n, n), n > 1. apply(x) = Mx for one vector x (n,) of the dtype (None:
    JAX's default)."""
    units = jnp.eye(n, dtype=dtype)
    at_once = min(n, _MOST_PRODUCTS, max(1, _MOST_BYTES // max(1, _bytes_of_product(apply, units))))
    # A loop of the caller's may be around a traced call.
    traced = isinstance(units, jax.core.Tracer)
    product: Callable[[jax.Array], jax.Array] = partial(_products, apply)
    if traced:
        product = channels_last(product)
    if at_once == n:
        return product(units)
    batches = jnp.pad(units, ((0, -n % at_once), (0, 0))).reshape((-1, at_once, n))
    # From the host, one program for all batches.
    images = lax.map(product, batches) if traced else jnp.stack([product(batch) for batch in batches])
    return images.reshape((-1, n))[:n]


@jax.jit
def _products(apply: Partial, batch: jax.Array) -> jax.Array:
    """Mx for every row x of a batch (B, n), as rows (B, n)."""
    image: jax.Array = jax.vmap(apply)(batch)
    return image


def _bytes_of_product(apply: Partial, units: jax.Array) -> int:
    """What one more product adds to the largest array of a batch; units (n, n). Traced only, nothing is computed."""

    def arrays(count: int) -> list[int]:
        batch = jax.ShapeDtypeStruct((count, units.shape[1]), units.dtype)
        return list(_bytes_of_arrays(jax.make_jaxpr(jax.vmap(apply))(batch).jaxpr))

    # Arrays that do not grow with the batch, such as a network's activations at the parameters, exist once.
    return max((more - less for less, more in zip(arrays(2), arrays(3), strict=True)), default=0)


def _bytes_of_arrays(jaxpr: Jaxpr) -> Iterator[int]:
    """The bytes of every array that a jaxpr computes, also those of the jaxprs inside it, in a fixed order."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            array: Any = variable.aval
            yield math.prod(array.shape) * array.dtype.itemsize
        for inner in jaxprs_in_params(equation.params):
            yield from _bytes_of_arrays(inner)
