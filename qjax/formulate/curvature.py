"""The curvature H of a quadratic on chosen leaves: four forms, each a product v -> Hv on a dict of leaves.

ChannelGram      H = G (x) I: one matrix G (F, F) shared by all C channels of a kernel (..., C) seen as (F, C)
ChannelFeatures  the same with G = X'X for features X (N, F) that stay unmultiplied
Matrix           H (P, P) on the chosen leaves, flattened and joined sorted by name
Product          H as a function, through jvp and vjp
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax.tree_util import Partial, register_dataclass

from qjax.formulate.leaves import Leaves


@partial(register_dataclass, data_fields=["gram"], meta_fields=["kernel", "bias"])
@dataclass(frozen=True)
class ChannelGram:
    """H = G (x) I_C on the leaf `kernel` (F, C), with the leaf `bias` (C,), where there is one, as the last row."""

    gram: jax.Array
    kernel: str
    bias: str | None = None

    def product(self, v: Leaves) -> Leaves:
        return split_rows(self, v, _matmul(self.gram, join_rows(self, v)))

    @property
    def kernel_gram(self) -> jax.Array:
        """G among the kernel's rows, (F, F)."""
        return self.gram if self.bias is None else self.gram[:-1, :-1]


@partial(register_dataclass, data_fields=["features"], meta_fields=["kernel", "bias"])
@dataclass(frozen=True)
class ChannelFeatures:
    """H = (X'X) (x) I_C for features X (N, F), already divided by sqrt(N); ridge rows are part of X."""

    features: jax.Array
    kernel: str
    bias: str | None = None

    def product(self, v: Leaves) -> Leaves:
        return split_rows(self, v, _matmul(self.features.T, _matmul(self.features, join_rows(self, v))))

    @property
    def kernel_features(self) -> jax.Array:
        """X for the kernel's rows, (N, F)."""
        return self.features if self.bias is None else self.features[:, :-1]

    @property
    def kernel_gram(self) -> jax.Array:
        return _matmul(self.kernel_features.T, self.kernel_features)


@partial(register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclass(frozen=True)
class Matrix:
    """H (P, P) on the leaves sorted by name, as `ravel_pytree` has them, each flattened in C order."""

    matrix: jax.Array

    def product(self, v: Leaves) -> Leaves:
        flat, unravel = jax.flatten_util.ravel_pytree(v)
        image: Leaves = unravel(_matmul(self.matrix, flat))
        return image


@partial(register_dataclass, data_fields=["function"], meta_fields=[])
@dataclass(frozen=True)
class Product:
    """H as a `jax.tree_util.Partial` from leaves to leaves."""

    function: Partial

    def product(self, v: Leaves) -> Leaves:
        image: Leaves = self.function(v)
        return image


Curvature: TypeAlias = ChannelGram | ChannelFeatures | Matrix | Product


def join_rows(curvature: ChannelGram | ChannelFeatures, v: Leaves) -> jax.Array:
    """Kernel, then bias, as one matrix (F or F + 1, C)."""
    kernel = v[curvature.kernel]
    rows = kernel.reshape(-1, kernel.shape[-1])
    return rows if curvature.bias is None else jnp.concatenate([rows, v[curvature.bias][None, :]])


def split_rows(curvature: ChannelGram | ChannelFeatures, like: Leaves, rows: jax.Array) -> Leaves:
    kernel = like[curvature.kernel]
    if curvature.bias is None:
        return {curvature.kernel: rows.reshape(kernel.shape)}
    return {curvature.kernel: rows[:-1].reshape(kernel.shape), curvature.bias: rows[-1]}


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
