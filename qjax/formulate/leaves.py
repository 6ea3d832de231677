"""Leaves of a parameter pytree by name: "layer/kernel" is params["layer"]["kernel"]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from qjax.spelling import unknown

Leaves: TypeAlias = dict[str, jax.Array]


def names(params: Any) -> list[str]:
    """The name of every leaf, in the order of jax.tree.leaves."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def select(params: Any, chosen: Iterable[str]) -> Leaves:
    """The chosen leaves by name. Errors: ValueError for a name that does not exist; it names the nearest one."""
    by_name = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    return {name: by_name[check(name, by_name)] for name in chosen}


def replace(params: Any, leaves: Mapping[str, Any]) -> Any:
    """params with the given leaves, by name, in place of its own. Errors: as `select`."""
    existing = names(params)
    for name in leaves:
        check(name, existing)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(_name(path), leaf), params)


def floating(leaves: Leaves) -> Leaves:
    """The leaves, unchanged. Errors: ValueError that names a leaf which is not floating-point."""
    for name, leaf in leaves.items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"leaf {name!r} must be floating-point, got {jnp.result_type(leaf)}")
    return leaves


def cast(leaves: Leaves, like: Leaves) -> Leaves:
    """The leaves, each in the dtype of the leaf of that name in like."""
    return {name: jnp.asarray(leaf, jnp.result_type(like[name])) for name, leaf in leaves.items()}


def wide(leaves: Leaves) -> Leaves:
    """The leaves as arrays of one dtype, that of all formulations: float64 where one of them is, else float32."""
    double = any(jnp.result_type(leaf) == jnp.float64 for leaf in leaves.values())
    return {name: jnp.asarray(leaf, jnp.float64 if double else jnp.float32) for name, leaf in leaves.items()}


def widened(tree: Any) -> Any:
    """tree, its floating-point leaves of less than 32 bits in float32."""

    def one(leaf: Any) -> Any:
        dtype = getattr(leaf, "dtype", None)
        low = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
        return jnp.asarray(leaf, jnp.float32) if low else leaf

    return jax.tree.map(one, tree)


def known_finite(tree: Any) -> bool:
    """Whether no concrete floating-point leaf of the tree holds NaN or infinity; traced leaves are not looked at."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            continue
        # NumPy looks at what lies in host memory: JAX would first compile a program per shape.
        on_host = not isinstance(leaf, jax.Array) or (
            leaf.is_fully_addressable and {device.platform for device in leaf.devices()} == {"cpu"}
        )
        if not bool((np.isfinite(np.asarray(leaf)) if on_host else jnp.isfinite(leaf)).all()):
            return False
    return True


def check(name: str, existing: Iterable[str]) -> str:
    """name, where it exists. Errors: as `select`."""
    listed = list(existing)
    if name not in listed:
        raise unknown("leaf", name, listed)
    return name


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
