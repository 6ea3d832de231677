"""Quadratic models of a training objective on chosen leaves of a parameter pytree.

    q(p) = c + <g, p - r> + 1/2 <p - r, H (p - r)>,     r = centre

All are in float32, also of leaves of 16 bits, or in float64 where one of the chosen leaves is.
`least_squares` is exact, `layer_gram` measures the change of a layer's outputs, `gauss_newton` and `hessian` are local
and never form H, `qjax.fitted` models a black box smoothed over a region. All are pure functions and return pytrees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, register_dataclass

from qjax.formulate.curvature import (
    ChannelFeatures,
    ChannelGram,
    Curvature,
    Matrix,
    Product,
    channel_rows,
    join_rows,
    split_rows,
)
from qjax.formulate.leaves import Leaves, cast, floating, names, replace, select, wide, widened
from qjax.rewriting import lifted

# X'X is made of this many block rows where it has at least so many columns and operations.
_BLOCKS, _BLOCKED_WIDTH, _BLOCKED_WORK = 8, 1024, 10**10


@partial(register_dataclass, data_fields=["centre", "value", "gradient", "curvature"], meta_fields=[])
@dataclass(frozen=True)
class Quadratic:
    """q(p) = sum(c) + <g, p - r> + 1/2 <p - r, H (p - r)>.

    centre     r, the chosen leaves by name
    value      c, a scalar, or (C,) where q separates into the C channels of a kernel
    gradient   g at r, the chosen leaves by name
    curvature  H, one of the forms of qjax.formulate.curvature
    """

    centre: Leaves
    value: jax.Array
    gradient: Leaves
    curvature: Curvature

    def __call__(self, params: Any) -> jax.Array:
        """q(params), (), for a pytree that holds the chosen leaves. Errors: ValueError for a missing leaf."""
        chosen = cast(select(params, self.centre), self.centre)
        d = {name: leaf - self.centre[name] for name, leaf in chosen.items()}
        image = self.curvature.product(d)
        dot = partial(jnp.vdot, precision="highest")
        terms = [dot(self.gradient[k], d[k]) + 0.5 * dot(d[k], image[k]) for k in d]
        return jnp.sum(self.value) + sum(terms[1:], terms[0])


def least_squares(
    params: Any,
    kernel: str,
    features: Any,
    targets: Any,
    *,
    bias: str | None = None,
    ridge: float = 0.0,
    keep_features: bool = False,
    channel_axis: int = -1,
) -> Quadratic:
    """q(W, b) = 1/(2N) |X W + b - Y|^2 + ridge/2 |W|^2, exact: W is the leaf `kernel`, b, where named, the leaf `bias`.

    features X (N, F), targets Y (N, C); kernel (..., C), read as W (F, C); bias (C,), which has no ridge. A kernel that
    has its channels on another axis needs channel_axis=, here and in its encoding: 0 for weights (C, F), as Equinox and
    PyTorch have them. Its other axes, in their order, are F.
    H is the Gram matrix X'X / N + ridge I, (F, F), shared by all channels. With keep_features it stays the factor X,
    (N, F), and so do the couplings of the Qubo (`Gram`): N n numbers instead of n^2.
    Errors: ValueError for an unknown leaf or axis, shapes that do not fit, no samples, or a negative ridge.
    """
    if not keep_features:
        batches = [(features, targets)]
        return least_squares_stream(params, kernel, batches, bias=bias, ridge=ridge, channel_axis=channel_axis)
    leaves = _kernel_leaves(params, kernel, bias, ridge, channel_axis)
    x, y = _checked_batch(features, targets, channel_rows(leaves[kernel], channel_axis))
    count = x.shape[0]
    if count == 0:
        raise ValueError("features hold no samples")
    root = jnp.sqrt(jnp.asarray(count, x.dtype))
    rows = (x if bias is None else jnp.concatenate([x, jnp.ones((count, 1), x.dtype)], axis=1)) / root
    if ridge:
        extra = jnp.sqrt(jnp.asarray(ridge, x.dtype)) * jnp.eye(x.shape[1], rows.shape[1], dtype=x.dtype)
        rows = jnp.concatenate([rows, extra])
        y = jnp.concatenate([y, jnp.zeros((x.shape[1], y.shape[1]), y.dtype)])
    curvature = ChannelFeatures(rows, kernel, bias, channel_axis)
    residual = jnp.matmul(rows, join_rows(curvature, leaves), precision="highest") - y / root
    gradient = split_rows(curvature, leaves, jnp.matmul(rows.T, residual, precision="highest"))
    return Quadratic(leaves, 0.5 * (residual**2).sum(0), gradient, curvature)


def least_squares_stream(
    params: Any,
    kernel: str,
    batches: Iterable[tuple[Any, Any]],
    *,
    bias: str | None = None,
    ridge: float = 0.0,
    channel_axis: int = -1,
) -> Quadratic:
    """`least_squares` over batches (features (B, F), targets (B, C)), of any B, summed one after another.

    So their N rows together may exceed the memory.
    """
    leaves = _kernel_leaves(params, kernel, bias, ridge, channel_axis)
    curvature = ChannelGram(jnp.zeros(()), kernel, bias, channel_axis)
    weights = join_rows(curvature, leaves)
    moments, count = None, 0  # X'X, X'(XW - Y) and |XW - Y|^2 by channel, as of `_moments`
    for features, targets in batches:
        x, y = _checked_batch(features, targets, channel_rows(leaves[kernel], channel_axis))
        update = _moments(x, y, weights, bias is not None)
        moments = update if moments is None else jax.tree.map(jnp.add, moments, update)
        count += x.shape[0]
    if moments is None or count == 0:
        raise ValueError("batches hold no samples")
    gram, slope, loss = (moment / float(count) for moment in moments)
    penalised = jnp.ones(gram.shape[0], gram.dtype)
    if bias is not None:
        penalised = penalised.at[-1].set(0.0)
    penalty = jnp.asarray(ridge, gram.dtype) * penalised
    gram = gram + jnp.diag(penalty)
    shrunk = penalty[:, None] * weights
    value = 0.5 * (loss + (shrunk * weights).sum(0))
    curvature = ChannelGram(gram, kernel, bias, channel_axis)
    return Quadratic(leaves, value, split_rows(curvature, leaves, slope + shrunk), curvature)


def layer_gram(
    params: Any, kernel: str, inputs: Any | Iterable[Any], *, damping: float = 0.0, channel_axis: int = -1
) -> Quadratic:
    """q(W) = 1/(2N) |X (W - W0)|^2 + damping/2 |W - W0|^2: the change of a layer's outputs, W0 the current kernel.

    inputs X (N, F), or an iterable of such batches. Of a convolution, X holds the patches in the order of its kernel:
    those of `qjax.conv_patches` for a kernel (h, w, i, C), as Flax has it, read as (h w i, C); those of
    `lax.conv_general_dilated_patches` with channel_axis=0 for a kernel (C, i, h, w), as Equinox and PyTorch have it.
    channel_axis: as of `least_squares`. H is the Gram matrix X'X / N + damping I, (F, F), shared by all channels.
    Source: Frantar and Alistarh 2022 (optimal brain compression). Errors: as `least_squares`.
    """
    leaves = _kernel_leaves(params, kernel, None, damping, channel_axis)
    weights = channel_rows(leaves[kernel], channel_axis)
    batches: Iterable[Any] = [inputs] if hasattr(inputs, "shape") else inputs
    # Only the Gram matrix is wanted, which does not depend on targets.
    streamed = ((x, jnp.zeros((len(x), weights.shape[1]), weights.dtype)) for x in batches)
    model = least_squares_stream(params, kernel, streamed, channel_axis=channel_axis)
    assert isinstance(model.curvature, ChannelGram)
    gram = model.curvature.gram
    damped = gram + jnp.asarray(damping, gram.dtype) * jnp.eye(gram.shape[0], dtype=gram.dtype)
    zero = jax.tree.map(jnp.zeros_like, leaves)
    curvature = ChannelGram(damped, kernel, channel_axis=channel_axis)
    return Quadratic(leaves, jnp.zeros_like(model.value), zero, curvature)


def gauss_newton(
    outputs: Callable[..., Any],
    loss: Callable[..., jax.Array],
    params: Any,
    *data: Any,
    leaves: Sequence[str] | None = None,
    damping: float = 0.0,
) -> Quadratic:
    """q with H = J' (d2 loss / d outputs2) J + damping I, J = d outputs / d leaves, at the current params; matrix-free.

    outputs(params, *data) -> predictions (any pytree), loss(predictions, *data) -> scalar; leaves: names, None for all.
    H is positive semidefinite for a loss convex in the predictions. The functions get params and data of less than
    32 bits in float32.
    Source: Schraudolph 2002, Fast curvature matrix-vector products.
    Errors: ValueError for an unknown or not floating-point leaf, a negative damping, a loss that is no scalar or fails
    on outputs that are a tuple (predictions and a model's state, as a rule), or functions that change an nnx object.
    """
    return _local(_GaussNewton(outputs, loss), params, data, leaves, damping)


def hessian(
    loss: Callable[..., jax.Array],
    params: Any,
    *data: Any,
    leaves: Sequence[str] | None = None,
    damping: float = 0.0,
) -> Quadratic:
    """q with H = d2 loss / d leaves2 + damping I at the current params, for loss(params, *data) -> scalar; matrix-free.

    leaves: names, None for all. Precision and errors: as of `gauss_newton`.
    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian.
    """
    return _local(_Hessian(loss), params, data, leaves, damping)


@dataclass(frozen=True)
class _GaussNewton:
    """v -> H v of `gauss_newton`, on leaves by name. Equal where both functions are, so that programs are shared."""

    outputs: Callable[..., Any]
    loss: Callable[..., jax.Array]

    def value(self, params: Any, *data: Any) -> jax.Array:
        predictions = self.outputs(params, *data)
        try:
            return self.loss(predictions, *data)
        except (AttributeError, TypeError, ValueError) as error:
            if isinstance(predictions, tuple):  # what a flax model returns in training, on which an optax loss fails
                raise ValueError(
                    f"loss fails on the tuple of {len(predictions)} that outputs returns; of a model that returns its "
                    f"state, too, outputs must return the predictions alone ({error})"
                ) from error
            raise

    def __call__(self, params: Any, data: tuple[Any, ...], damping: jax.Array, v: Leaves) -> Leaves:
        own = select(params, v)

        def predict(leaves: Leaves) -> Any:
            return self.outputs(replace(params, cast(leaves, own)), *data)

        predictions, tangent = jax.jvp(predict, (cast(own, v),), (v,))
        slope = jax.grad(lambda z: self.loss(z, *data))
        _, bent = jax.jvp(slope, (predictions,), (tangent,))
        _, transpose = jax.vjp(predict, cast(own, v))
        return _damped(transpose(bent)[0], v, damping)


@dataclass(frozen=True)
class _Hessian:
    """v -> H v of `hessian`, on leaves by name. Equal where the loss is, so that compiled programs are shared."""

    loss: Callable[..., jax.Array]

    def value(self, params: Any, *data: Any) -> jax.Array:
        return self.loss(params, *data)

    def __call__(self, params: Any, data: tuple[Any, ...], damping: jax.Array, v: Leaves) -> Leaves:
        own = select(params, v)
        slope = jax.grad(lambda leaves: self.loss(replace(params, cast(leaves, own)), *data))
        return _damped(jax.jvp(slope, (cast(own, v),), (v,))[1], v, damping)


def _local(
    model: _GaussNewton | _Hessian, params: Any, data: tuple[Any, ...], leaves: Sequence[str] | None, damping: float
) -> Quadratic:
    """The Quadratic at params with value and gradient of model.value, and model as its curvature."""
    params, data = widened((params, data))
    own = floating(select(params, names(params) if leaves is None else leaves))
    centre = wide(own)
    if not isinstance(damping, jax.core.Tracer) and damping < 0:
        raise ValueError(f"damping must not be negative, got {damping}")

    def objective(chosen: Leaves) -> jax.Array:
        return model.value(replace(params, cast(chosen, own)), *data)

    try:
        shape = getattr(jax.eval_shape(objective, centre), "shape", None)
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # of flax, which is not imported here
            raise ValueError(
                "the loss writes to an nnx object outside of it, which no transformation of JAX can trace; "
                f"qjax.interop.flax.nnx(model) makes pure functions of a model ({error})"
            ) from error
        raise
    if shape != ():
        raise ValueError(f"loss must return a scalar, got {'no array' if shape is None else f'shape {shape}'}")
    value, gradient = jax.value_and_grad(objective)(centre)
    dtype = next(iter(centre.values())).dtype
    function = lifted(Partial(model, params, data, jnp.asarray(damping, dtype)), centre)
    return Quadratic(centre, value.astype(dtype), gradient, Product(function))


def _damped(image: Leaves, v: Leaves, damping: jax.Array) -> Leaves:
    """image + damping v, leaf by leaf; damping ()."""
    return {name: image[name] + damping.astype(v[name].dtype) * v[name] for name in v}


def _kernel_leaves(params: Any, kernel: str, bias: str | None, ridge: float, channel_axis: int) -> Leaves:
    """The leaves `kernel` and, where named, `bias`. ValueError for what cannot be fitted."""
    if ridge < 0:
        raise ValueError(f"ridge or damping must not be negative, got {ridge}")
    leaves = wide(floating(select(params, [kernel] if bias is None else [kernel, bias])))
    shape = leaves[kernel].shape
    if len(shape) < 2:
        raise ValueError(f"{kernel} must have at least two axes, one of them its channels, got {shape}")
    if not -len(shape) <= channel_axis < len(shape):
        raise ValueError(f"channel_axis {channel_axis} is out of range for {kernel} of shape {shape}")
    return leaves


def _checked_batch(features: Any, targets: Any, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """features (N, F) and targets (N, C) in the dtype of weights (F, C). ValueError for other shapes."""
    x, y = jnp.asarray(features, weights.dtype), jnp.asarray(targets, weights.dtype)
    width, channels = weights.shape
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"features must have shape (N, {width}), got {x.shape}")
    if y.shape != (x.shape[0], channels):
        raise ValueError(f"targets must have shape {(x.shape[0], channels)}, got {y.shape}")
    return x, y


@partial(jax.jit, static_argnums=3)
def _moments(x: jax.Array, y: jax.Array, weights: jax.Array, with_bias: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """X'X (F, F), X'(XW - Y) (F, C) and, by channel, |XW - Y|^2 (C,), for x (N, F), y (N, C), weights W (F, C).

    with_bias: X is x and a column of ones, W has F + 1 rows, and so have the results.
    """
    if with_bias:
        x = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    residual = jnp.matmul(x, weights, precision="highest") - y
    return _self_product(x), jnp.matmul(x.T, residual, precision="highest"), (residual**2).sum(0)


def _self_product(x: jax.Array) -> jax.Array:
    """X'X, (F, F), of X (N, F): where that is much work, the blocks below its diagonal are copies of those above."""
    count, width = x.shape
    if width < _BLOCKED_WIDTH or count * width**2 < _BLOCKED_WORK:
        return jnp.matmul(x.T, x, precision="highest")
    edges = np.linspace(0, width, _BLOCKS + 1).astype(int).tolist()
    rows = [
        jnp.pad(jnp.matmul(x[:, start:stop].T, x[:, start:], precision="highest"), ((0, 0), (start, 0)))
        for start, stop in itertools.pairwise(edges)
    ]
    above = jnp.concatenate(rows)
    return jnp.where(jnp.tri(width, dtype=bool), above.T, above)


__all__ = [
    "Matrix",
    "Quadratic",
    "gauss_newton",
    "hessian",
    "layer_gram",
    "least_squares",
    "least_squares_stream",
]
