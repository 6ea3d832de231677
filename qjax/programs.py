"""Programs compiled ahead of time, kept together with the seconds that their compilation took.

Every run is charged for compiling the programs it uses, even where an earlier run of this process has already compiled
them: so the seconds of two runs can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

import jax

_compiled: dict[Hashable, tuple[Callable[..., Any], float]] = {}


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float]:
    """(executable, seconds of its compilation) of jax.jit(function) for arguments of these shapes and dtypes.

    Compiled once per process, also if called again. function must be hashable, and equal to another only where both
    compute the same: a function of a module, or a frozen dataclass.
    """
    leaves, structure = jax.tree.flatten(args)
    # jax.typeof has also weak types and shardings, which an executable depends on.
    key = (function, structure, tuple(jax.typeof(leaf) for leaf in leaves))
    if key not in _compiled:
        start = time.perf_counter()
        executable = jax.jit(function).lower(*args).compile()
        _compiled[key] = executable, time.perf_counter() - start
    return _compiled[key]
