"""Leaves of a parameter pytree by name: "layer/kernel" is params["layer"]["kernel"]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

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


def check(name: str, existing: Iterable[str]) -> str:
    """name, where it exists. Errors: as `select`."""
    listed = list(existing)
    if name not in listed:
        raise unknown("leaf", name, listed)
    return name


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
