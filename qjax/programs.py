"""Programs compiled ahead of time, kept with the seconds that took.

A run is charged for compiling what it uses, also where an earlier run in the process has already paid the wait: so the
seconds of two runs compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

import jax

_compiled: dict[Hashable, tuple[Callable[..., Any], float]] = {}


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float]:
    """(executable, seconds) of jax.jit(function) for arguments of these shapes; compiled once a process.

    function must be hashable, and compare equal where it computes the same (a module's function, a frozen dataclass).
    """
    leaves, structure = jax.tree.flatten(args)
    # jax.typeof also carries weak types and shardings, which an executable is bound to.
    key = (function, structure, tuple(jax.typeof(leaf) for leaf in leaves))
    if key not in _compiled:
        start = time.perf_counter()
        executable = jax.jit(function).lower(*args).compile()
        _compiled[key] = executable, time.perf_counter() - start
    return _compiled[key]
