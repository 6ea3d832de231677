"""Programs compiled ahead of time, kept together with the seconds that their compilation took.

Every run is charged for compiling the programs it uses, even where an earlier run of this process has already compiled
them: so the seconds of two runs can be compared.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

# The program used longest ago goes first.
MOST_PROGRAMS = 256

_compiled: OrderedDict[Hashable, tuple[Callable[..., Any], float]] = OrderedDict()
_nothing = jax.jit(lambda: jnp.zeros(()))


def compiled(
    function: Callable[..., Any], *args: Any, compiler_options: dict[str, Any] | None = None
) -> tuple[Callable[..., Any], float]:
    """(executable, seconds of its compilation) of jax.jit(function) for arguments of these shapes and dtypes, on their
    devices, under JAX's present settings and with these options of XLA.

    Compiled once per process, also if called again; anew where MOST_PROGRAMS others have been used since. function must
    be hashable, and equal to another only where both compute the same: a function of a module, or a frozen dataclass.
    """
    leaves, structure = jax.tree.flatten(args)
    # jax.typeof has also weak types, and shardings over a mesh.
    shapes = tuple((jax.typeof(leaf), _place(leaf)) for leaf in leaves)
    key = function, structure, shapes, context(), tuple(sorted((compiler_options or {}).items()))
    if key not in _compiled:
        start = time.perf_counter()
        executable = jax.jit(function).lower(*args).compile(compiler_options)
        _compiled[key] = executable, time.perf_counter() - start
        if len(_compiled) > MOST_PROGRAMS:
            _compiled.popitem(last=False)
    _compiled.move_to_end(key)
    return _compiled[key]


def context() -> Hashable:
    """Equal where JAX would use a function's earlier trace again: its settings (precision, x64, default device, ...)
    and user contexts are then the same, and `jax.clear_caches` was not called."""
    # JAX traces the empty function anew wherever its settings differ, and otherwise hands out the same jaxpr.
    token: Hashable = _nothing.trace().jaxpr
    return token


def _place(leaf: Any) -> Hashable:
    """Where an array has been put on purpose: its program runs there."""
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None
