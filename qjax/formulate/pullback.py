"""The pull-back: a quadratic seen through an encoding is a QUBO, E(x) = q(p(x)). The centre of the library.

    q(p) = c + <g, p - r> + 1/2 <p - r, H (p - r)>,     p(x) = p0 + B x,     d = p0 - r,     g' = g + H d
    offset = c + <g, d> + 1/2 <d, H d>,     linear = B'g' + 1/2 diag(B'HB),     M = B'HB without its diagonal

Two cases:

    channels    H = G (x) I (a shared Gram matrix), and digits whose steps do not differ inside a channel, both with the
                same channel axis. The problem
                separates into C channels of n / C bits each. Up to the channel's scale = step^2, all have the same
                M = G (x) ww', w the weights of the digits: one Qubo of batch (C,), dense or gram
    general     anything else: one Qubo of n bits and scale 1. M is dense, column by column (B'HB e_i for every bit i),
                or, for n past `dense_limit`, implicit: a function x -> B'HB x. Its diagonal stays in M, linear = B'g'
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
from qjax.formulate.curvature import ChannelFeatures, ChannelGram, Curvature, channel_rows, from_channel_rows
from qjax.formulate.encodings import Encoding
from qjax.formulate.leaves import Leaves, cast, check, known_finite, select
from qjax.formulate.quadratic import Quadratic

Form: TypeAlias = Literal["auto", "dense", "gram", "sparse", "implicit"]

# A float32 matrix of this many bits takes 1 GiB.
DENSE_LIMIT = 16384


def pull_back(quadratic: Quadratic, encoding: Encoding, form: Form = "auto", dense_limit: int = DENSE_LIMIT) -> Qubo:
    """The Qubo with E(x) = q(p(x)) for every state x (n,) of the encoding.

    form, the couplings wanted:
        "dense"     a matrix (n, n), or (n / C, n / C) where the problem separates into C channels
        "gram"      the features as a factor, for `least_squares(keep_features=True)` that separates into channels
        "sparse"    entries that are exactly 0 left out; on the host, never separated into channels
        "implicit"  a function, never separated into channels
        "auto"      gram where it is possible, else dense up to dense_limit bits (per channel, where the problem
                    separates), else implicit
    Where the problem separates, the Qubo has batch (C,): x.reshape(C, n / C) are its bits, and q is the sum of E over
    the batch. Each channel's scale is its step^2, which, as in any Qubo, multiplies everything.
    Errors: ValueError for an encoded leaf that the quadratic does not hold, a form that this pair does not have, or a
    result that is concrete and not finite. Under a trace NaN cannot be refused: it shows in all energies.
    """
    qubo = _pulled_back(quadratic, encoding, form, dense_limit)
    if not known_finite((qubo.offset, qubo.linear, qubo.couplings, qubo.scale)):
        parts = {"quadratic": quadratic, "encoding": encoding.parts}
        culprit = next((name for name, part in parts.items() if not known_finite(part)), None)
        raise ValueError(
            "the pull-back overflows: its coefficients are not finite, though those of quadratic and encoding are"
            if culprit is None
            else f"{culprit} holds NaN or infinity"
        )
    return qubo


def _pulled_back(quadratic: Quadratic, encoding: Encoding, form: Form, dense_limit: int) -> Qubo:
    """`pull_back` without its check of the result."""
    for path in encoding.paths:
        check(path, quadratic.centre)
    if form not in ("auto", "dense", "gram", "sparse", "implicit"):
        raise ValueError(f"form must be auto, dense, gram, sparse or implicit, got {form!r}")
    curvature = quadratic.curvature
    origin = cast(select(encoding.origin, quadratic.centre), quadratic.centre)
    # By leaf, in its shape: d, H d, g' = g + H d, and the parameters' shares of <g, d> + 1/2 <d, H d>.
    d = {name: leaf - quadratic.centre[name] for name, leaf in origin.items()}
    image = curvature.product(d)
    slope = {name: quadratic.gradient[name] + image[name] for name in d}
    linear = encoding.transpose({path: slope[path] for path in encoding.paths})
    energy = {name: d[name] * (quadratic.gradient[name] + 0.5 * image[name]) for name in d}

    if isinstance(curvature, ChannelGram | ChannelFeatures):
        part = _channel_digits(encoding, curvature)
        # Kept features need no limit: they stay a factor, and no matrix is formed.
        limit = dense_limit * quadratic.centre[curvature.kernel].shape[curvature.channel_axis]
        fits = isinstance(curvature, ChannelFeatures) or encoding.num_bits <= limit
        if part is not None and (form in ("dense", "gram") or (form == "auto" and fits)):
            return _channels(quadratic.value, energy, linear, curvature, part, form, encoding.labels)
    if form == "gram":
        raise ValueError("form 'gram' needs kept features and one digit encoding with one step per channel or leaf")
    offset = quadratic.value.sum() + sum((e.sum() for e in energy.values()), start=jnp.zeros((), linear.dtype))
    scale = jnp.ones((), linear.dtype)
    product = Partial(_product, encoding, curvature, _templates(quadratic))
    if form == "implicit" or (form == "auto" and encoding.num_bits > dense_limit):
        implicit = Implicit(product, encoding.num_bits, _diagonal(encoding, curvature))
        return Qubo(offset, linear, implicit, scale, encoding.labels)
    matrix = Implicit(product, encoding.num_bits).to_dense(linear.dtype)
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
    """The case "channels": one Qubo of batch (C,), with m = n / C = F b bits per channel, in dense or gram form.

    value: c, () or (C,); energy: d * (g + 1/2 H d), for each leaf in its shape; linear: B'g', (n,); part: the digits, b
    per parameter of the kernel, seen as (F, C); labels: of the whole encoding. Channel k has
    B_k = step_k (I_F (x) w'), so that

        B_k' G B_k = step_k^2 (G (x) ww'):     scale = step^2, (C,),     M = G (x) ww' without its diagonal, (m, m)

    Because scale multiplies everything, offset (C,) and linear (C, m) are divided by it.
    """
    channels = part.origin.shape[part.channel_axis]
    w = jnp.asarray(part.weights, linear.dtype)
    step = jnp.broadcast_to(part.step.astype(linear.dtype).reshape(-1), (channels,))
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
    for leaf, term in energy.items():
        axis = part.channel_axis if leaf == curvature.kernel else 0
        offset = offset + channel_rows(term, axis).sum(0)
    halves = 0.5 * jnp.broadcast_to(diagonal, (channels, diagonal.size))
    unscaled = linear.reshape(channels, -1) / scale[:, None] + halves
    # The labels of one channel's bits: all channels have the same, without the index of the channel.
    name, shape = labels.arrays[0]
    return Qubo(offset / scale, unscaled, couplings, scale, Labels(((name, shape[1:]),)))


def _channel_digits(encoding: Encoding, curvature: ChannelGram | ChannelFeatures) -> Digits | None:
    """The digits of an encoding for the case "channels", None where this is not the case.

    They must be the only part, on the quadratic's kernel and with its channel axis, with bits of its own for every
    parameter, no cardinality, and one step per channel or for the whole leaf.
    """
    if len(encoding.parts) != 1:
        return None
    part = encoding.parts[0]
    if not isinstance(part, Digits) or part.path != curvature.kernel or part.cardinality is not None:
        return None
    rank = part.origin.ndim
    if part.channel_axis % rank != curvature.channel_axis % rank:
        return None
    one_step_per_channel = all(size == 1 for size in np.delete(part.step.shape, part.channel_axis))
    return part if one_step_per_channel and part.units == part.origin.shape else None


def _templates(quadratic: Quadratic) -> Leaves:
    """For every leaf of the quadratic, a zero () of its dtype: all that `_product` needs of them."""
    return {name: jnp.zeros((), leaf.dtype) for name, leaf in quadratic.centre.items()}


def _product(encoding: Encoding, curvature: Curvature, like: Leaves, x: jax.Array) -> jax.Array:
    """The case "general": B'HB x, (n,), for one vector x (n,).

    like: the leaves on which H acts, from `_templates`. On those that are not encoded, B x is 0.
    """
    moved = encoding.apply(x)
    shapes = select(encoding.params, like)
    tangent = {
        name: moved[name].astype(zero.dtype) if name in moved else jnp.zeros(shapes[name].shape, zero.dtype)
        for name, zero in like.items()
    }
    image = curvature.product(tangent)
    return encoding.transpose({path: image[path] for path in encoding.paths})


def _diagonal(encoding: Encoding, curvature: Curvature) -> jax.Array | None:
    """The case "general" with implicit couplings: diag(B'HB), (n,), where no products are needed for it, else None.

    That is so for a shared Gram matrix and digits with bits of its own for every parameter of the kernel, seen as
    (F, C), whose steps may differ inside a channel: the entry of digit j of parameter (f, c) is G_ff (step_fc w_j)^2.
    """
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
    channels = shape[curvature.channel_axis]
    by_parameter = jnp.broadcast_to(rows[:, None], (rows.shape[0], channels))
    step = jnp.broadcast_to(part.step.astype(rows.dtype), shape)
    squares = from_channel_rows(by_parameter, shape, curvature.channel_axis) * step**2
    w2 = jnp.asarray(part.weights, squares.dtype) ** 2
    return (jnp.moveaxis(squares, part.channel_axis, 0).reshape(-1)[:, None] * w2[None, :]).reshape(-1)
