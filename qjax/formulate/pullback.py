"""The pull-back: a quadratic seen through an encoding is a QUBO. The centre of the library.

    q(p) = c + <g, p - r> + 1/2 <p - r, H (p - r)>,  p(x) = p0 + B x,  d = p0 - r,  g' = g + H d
    E(x) = q(p(x)):   offset = c + <g, d> + 1/2 <d, H d>,   linear = B'g' + 1/2 diag(B'HB),   M = offdiag(B'HB)

The cheapest form is chosen:
    channels    H = G (x) I and digits whose step is shared inside a channel: M = G (x) ww' is one matrix for all
                channels, and the C problems become one batched Qubo with scale = step^2 (`form` dense or gram)
    products    any other: B'HB by one product a bit (dense), or as a function where n is past `dense_limit` (implicit)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse, zero_diagonal
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.formulate.affine import Digits
from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Curvature
from qjax.formulate.encodings import Encoding
from qjax.formulate.leaves import Leaves, check, select
from qjax.formulate.quadratic import Quadratic

Form: TypeAlias = Literal["auto", "dense", "gram", "sparse", "implicit"]

# A float32 matrix of this many bits takes 1 GiB.
DENSE_LIMIT = 16384


def pull_back(quadratic: Quadratic, encoding: Encoding, form: Form = "auto", dense_limit: int = DENSE_LIMIT) -> Qubo:
    """The Qubo with E(x) = q(p(x)) for every state x of the encoding.

    form: "auto", or the couplings wanted: "dense", "gram" (for `least_squares(keep_features=True)`), "sparse" (exact
    zeros left out, on the host), "implicit". A quadratic that separates into channels gives a Qubo with batch (C,), its
    bits the encoding's in order: reshape (C, n / C) -> (n,), and E summed over the batch is q. "implicit" and "sparse"
    never separate. "auto" is implicit past dense_limit bits, in each channel where the quadratic separates.
    Errors: ValueError for an encoded leaf that the quadratic does not hold, or a form that this pair does not have.
    """
    for path in encoding.paths:
        check(path, quadratic.centre)
    if form not in ("auto", "dense", "gram", "sparse", "implicit"):
        raise ValueError(f"form must be auto, dense, gram, sparse or implicit, got {form!r}")
    curvature = quadratic.curvature
    origin = select(encoding.origin, quadratic.centre)
    d = {name: leaf - quadratic.centre[name] for name, leaf in origin.items()}
    image = curvature.product(d)
    slope = {name: quadratic.gradient[name] + image[name] for name in d}
    linear = encoding.transpose({path: slope[path] for path in encoding.paths})
    energy = {name: d[name] * (quadratic.gradient[name] + 0.5 * image[name]) for name in d}

    if isinstance(curvature, ChannelGram | ChannelFeatures):
        part = _shared_step(encoding, curvature)
        # Kept features stay a factor, and the limit is about matrices.
        limit = dense_limit * quadratic.centre[curvature.kernel].shape[-1]
        fits = isinstance(curvature, ChannelFeatures) or encoding.num_bits <= limit
        if part is not None and (form in ("dense", "gram") or (form == "auto" and fits)):
            return _channels(quadratic.value, energy, linear, curvature, part, form, encoding.labels)
    if form == "gram":
        raise ValueError("form 'gram' needs kept features and one digit encoding with a step a channel or leaf")
    offset = quadratic.value.sum() + sum((e.sum() for e in energy.values()), start=jnp.zeros((), linear.dtype))
    scale = jnp.ones((), linear.dtype)
    product = Partial(_product, encoding, curvature, _templates(quadratic))
    if form == "implicit" or (form == "auto" and encoding.num_bits > dense_limit):
        implicit = Implicit(product, encoding.num_bits, _diagonal(encoding, curvature))
        return Qubo(offset, linear, implicit, scale, encoding.labels)
    matrix = Implicit(product, encoding.num_bits).to_dense().astype(linear.dtype)
    matrix = 0.5 * (matrix + matrix.T)
    linear = linear + 0.5 * jnp.diagonal(matrix)
    couplings: Couplings = Dense(zero_diagonal(matrix))
    if form == "sparse":
        host = np.asarray(couplings.to_dense())
        rows, cols = np.nonzero(np.triu(host, 1))
        couplings = Sparse.from_edges(encoding.num_bits, rows, cols, host[rows, cols])
    return Qubo(offset, linear, couplings, scale, encoding.labels)


def _channels(
    value: jax.Array,
    energy: Leaves,
    linear: jax.Array,
    curvature: ChannelGram | ChannelFeatures,
    part: Digits,
    form: Form,
    labels: Labels,
) -> Qubo:
    """One problem a channel over one M: bits of channel c have B_c = step_c B with the same B = I (x) w'."""
    channels = part.origin.shape[-1]
    w = jnp.asarray(part.weights, linear.dtype)
    step = jnp.broadcast_to(part.step.reshape(-1), (channels,))
    scale = step**2
    if isinstance(curvature, ChannelFeatures) and form != "dense":
        factor = jnp.kron(curvature.kernel_features, w[None, :])
        couplings: Couplings = Gram(factor)
        diagonal = (factor * factor).sum(0)
    else:
        if form == "gram":
            raise ValueError("form 'gram' needs a quadratic that kept its features")
        matrix = jnp.kron(curvature.kernel_gram, w[:, None] * w[None, :])
        couplings, diagonal = Dense(zero_diagonal(matrix)), jnp.diagonal(matrix)
    offset = jnp.broadcast_to(value / (channels if value.ndim == 0 else 1), (channels,))
    for term in energy.values():
        offset = offset + term.reshape(-1, channels).sum(0)
    # linear = step_c B'g'_c = scale_c * (B'g'_c / step_c)
    slope = linear.reshape(channels, -1) / scale[:, None] + 0.5 * jnp.broadcast_to(diagonal, (channels, diagonal.size))
    return Qubo(offset / scale, slope, couplings, scale, Labels(((labels.arrays[0][0], labels.arrays[0][1][1:]),)))


def _shared_step(encoding: Encoding, curvature: ChannelGram | ChannelFeatures) -> Digits | None:
    """The one part of an encoding whose channels share their map up to a step, or None."""
    if len(encoding.parts) != 1:
        return None
    part = encoding.parts[0]
    if not isinstance(part, Digits) or part.path != curvature.kernel or part.cardinality is not None:
        return None
    shape = part.origin.shape
    inside = all(size == 1 for size in part.step.shape[:-1])
    return part if inside and part.units == shape else None


def _templates(quadratic: Quadratic) -> Leaves:
    return {name: jnp.zeros((), leaf.dtype) for name, leaf in quadratic.centre.items()}


def _product(encoding: Encoding, curvature: Curvature, like: Leaves, x: jax.Array) -> jax.Array:
    """B'HB x: leaves that are not encoded do not move."""
    moved = encoding.apply(x)
    shapes = select(encoding.params, like)
    tangent = {
        name: moved[name].astype(zero.dtype) if name in moved else jnp.zeros(shapes[name].shape, zero.dtype)
        for name, zero in like.items()
    }
    image = curvature.product(tangent)
    return encoding.transpose({path: image[path] for path in encoding.paths})


def _diagonal(encoding: Encoding, curvature: Curvature) -> jax.Array | None:
    """diag(B'HB) where it costs no products: one Gram matrix, digits that each move one parameter."""
    part = encoding.parts[0]
    one_leaf = len(encoding.parts) == 1 and isinstance(part, Digits) and part.units == part.origin.shape
    if not one_leaf or not isinstance(curvature, ChannelGram | ChannelFeatures) or part.paths != (curvature.kernel,):
        return None
    assert isinstance(part, Digits)
    if isinstance(curvature, ChannelGram):
        rows = jnp.diagonal(curvature.kernel_gram)
    else:
        rows = (curvature.kernel_features**2).sum(0)
    shape = part.origin.shape
    squares = jnp.broadcast_to(rows.reshape((*shape[:-1], 1)), shape) * jnp.broadcast_to(part.step, shape) ** 2
    w2 = jnp.asarray(part.weights, squares.dtype) ** 2
    return (jnp.moveaxis(squares, -1, 0).reshape(-1)[:, None] * w2[None, :]).reshape(-1)
