"""Leaves of pytrees: their names, the trainable ones, their precision, whether they are finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def leaf_name(path: Any) -> str:
    """The name of a leaf: the keys of its path, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def strong(leaf: Any) -> jax.Array:
    """The leaf as an array without weak type. (A Python number has one, but not after a step: it would trace twice.)"""
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def split(params: Tree, trainable: tuple[str, ...] | None) -> tuple[Tree, Tree]:
    """(trainable, frozen) leaves of params: two trees of its structure, with None for the leaves of the other."""

    def chosen(path: Any, leaf: Any) -> bool:
        name = leaf_name(path)
        named = trainable is None or any(name == part or name.startswith(part + "/") for part in trainable)
        return named and jnp.issubdtype(leaf.dtype, jnp.inexact)

    free = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if chosen(path, leaf) else None, params)
    frozen = jax.tree_util.tree_map_with_path(lambda path, leaf: None if chosen(path, leaf) else leaf, params)
    return free, frozen


def merge(free: Tree, frozen: Tree) -> Tree:
    """The inverse of `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, free, frozen, is_leaf=lambda leaf: leaf is None)


def cast(tree: Tree, dtype: Any) -> Tree:
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def select(good: jax.Array, new: Tree, old: Tree) -> Tree:
    """new where good () is true, else old."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def is_finite(tree: Tree) -> jax.Array:
    """() bool: whether every number in every leaf is finite, as seen by sums of rows: past 3e38 counts as not finite.

    The sums are products with ones, in float32 at least: on CPUs seven times faster than isfinite(leaf).all().
    """
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        if leaf.size and jnp.issubdtype(leaf.dtype, jnp.inexact):
            rows, wide = leaf.reshape(-1, leaf.shape[-1] if leaf.ndim else 1), np.promote_types(leaf.dtype, np.float32)
            ones = jnp.ones(rows.shape[1], leaf.dtype)
            finite &= jnp.isfinite(jnp.dot(rows, ones, preferred_element_type=wide)).all()
    return finite
