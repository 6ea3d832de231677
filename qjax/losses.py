"""True losses of candidates by a compiled program: `hybrid` calls the loss for every candidate of every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial

from qjax import programs
from qjax.rewriting import lifted

Loss = Callable[..., jax.Array]  # loss(params[, state]), a scalar


def compiled(loss: Loss, *examples: tuple[Any, ...]) -> tuple[Loss, dict[Any, float]]:
    """(the loss as compiled programs, the seconds of their compilation by program).

    examples: tuples of arguments, of whose shapes and dtypes the loss will be called. Compiled once a process for one
    loss and such arguments. What it closes over is an argument of the program: as a constant, a batch of images costs
    a minute of compilation. Errors: ValueError for a loss that needs the values of its arguments while it is traced.
    """
    try:
        held = lifted(Partial(loss), *examples[0])
        seconds = dict(programs.compiled(_call, held, *args) for args in examples)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise ValueError(
            "loss cannot be compiled, because it needs the values of its arguments on the host: write it with "
            "jax.numpy, or have it called as it is by compile_loss=False"
        ) from error

    def judged(*args: Any) -> jax.Array:
        value: jax.Array = programs.compiled(_call, held, *args)[0](held, *args)
        return value

    return judged, seconds


def _call(function: Partial, *args: Any) -> Any:
    return function(*args)
