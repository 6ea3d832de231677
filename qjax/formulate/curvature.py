"""The curvature H of a quadratic on chosen leaves, in four forms. All have product(v) = Hv, for leaves v by name.

    ChannelGram      H = G (x) I_C: one matrix G (F, F) shared by all C channels of a kernel (..., C) seen as (F, C)
    ChannelFeatures  the same with G = X'X for features X (N, F), a product that is never formed
    Matrix           H (P, P) on all P parameters of the leaves
    Product          H as a function, such as one through jvp and vjp

(x) is the Kronecker product: H maps a kernel W (F, C) to G W. With a bias (C,), W has it as its last row, G has one
more row and column, and X one more column. A kernel of any shape is seen as (F, C): its axis `channel_axis` is C, its
other axes in their order are F.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, register_dataclass

from qjax.formulate.leaves import Leaves


@partial(register_dataclass, data_fields=["gram"], meta_fields=["kernel", "bias", "channel_axis"])
@dataclass(frozen=True)
class ChannelGram:
    """H = G (x) I_C on the leaf `kernel` seen as (F, C) and, where named, the leaf `bias` (C,) as a last row.

    gram  G, (F, F), or (F + 1, F + 1) with a bias
    """

    gram: jax.Array
    kernel: str
    bias: str | None = None
    channel_axis: int = -1

    def product(self, v: Leaves) -> Leaves:
        return split_rows(self, v, _matmul(self.gram, join_rows(self, v)))

    @property
    def whole_gram(self) -> jax.Array:
        """G, (F, F), or (F + 1, F + 1) with a bias."""
        return self.gram

    @property
    def kernel_gram(self) -> jax.Array:
        """G without the bias's row and column, (F, F)."""
        return self.gram if self.bias is None else self.gram[:-1, :-1]


@partial(register_dataclass, data_fields=["features"], meta_fields=["kernel", "bias", "channel_axis"])
@dataclass(frozen=True)
class ChannelFeatures:
    """H = (X'X) (x) I_C on the same leaves as `ChannelGram`.

    features  X, (N, F), or (N, F + 1) with a bias: samples already divided by the square root of their number, then
              one row per parameter of a channel where there is a ridge
    """

    features: jax.Array
    kernel: str
    bias: str | None = None
    channel_axis: int = -1

    def product(self, v: Leaves) -> Leaves:
        return split_rows(self, v, _matmul(self.features.T, _matmul(self.features, join_rows(self, v))))

    @property
    def whole_gram(self) -> jax.Array:
        """X'X, (F, F), or (F + 1, F + 1) with a bias."""
        return _matmul(self.features.T, self.features)

    @property
    def kernel_features(self) -> jax.Array:
        """X without the bias's column, (N, F)."""
        return self.features if self.bias is None else self.features[:, :-1]

    @property
    def kernel_gram(self) -> jax.Array:
        """X'X without the bias's row and column, (F, F)."""
        return _matmul(self.kernel_features.T, self.kernel_features)


@partial(register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclass(frozen=True)
class Matrix:
    """H as a matrix (P, P), its P parameters in the order of `ravel_pytree`: leaves sorted by name, each in C order."""

    matrix: jax.Array

    def product(self, v: Leaves) -> Leaves:
        flat, unravel = jax.flatten_util.ravel_pytree(v)
        image: Leaves = unravel(_matmul(self.matrix, flat))
        return image


@partial(register_dataclass, data_fields=["function"], meta_fields=[])
@dataclass(frozen=True)
class Product:
    """H as a function v -> Hv from leaves to leaves of the same shapes, a `jax.tree_util.Partial`."""

    function: Partial

    def product(self, v: Leaves) -> Leaves:
        image: Leaves = self.function(v)
        return image


Curvature: TypeAlias = ChannelGram | ChannelFeatures | Matrix | Product


def join_rows(curvature: ChannelGram | ChannelFeatures, v: Leaves) -> jax.Array:
    """The leaves v as one matrix: the kernel's rows (F, C), then the bias, where there is one."""
    rows = channel_rows(v[curvature.kernel], curvature.channel_axis)
    return rows if curvature.bias is None else jnp.concatenate([rows, v[curvature.bias][None, :]])


def split_rows(curvature: ChannelGram | ChannelFeatures, like: Leaves, rows: jax.Array) -> Leaves:
    """The inverse of `join_rows`: rows (F or F + 1, C) as leaves with the shapes of like."""
    shape, axis = like[curvature.kernel].shape, curvature.channel_axis
    if curvature.bias is None:
        return {curvature.kernel: from_channel_rows(rows, shape, axis)}
    return {curvature.kernel: from_channel_rows(rows[:-1], shape, axis), curvature.bias: rows[-1]}


def channel_rows(leaf: jax.Array, axis: int) -> jax.Array:
    """leaf as (F, C): its axis `axis` is C, its other axes in their order are F."""
    return jnp.moveaxis(leaf, axis, -1).reshape(-1, leaf.shape[axis])


def from_channel_rows(rows: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """The inverse of `channel_rows`, for rows (F, C, ...), whose further axes stay behind: (*shape, ...)."""
    others = np.delete(shape, axis).tolist()
    return jnp.moveaxis(rows.reshape(*others, *rows.shape[1:]), len(others), axis % len(shape))


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
