"""What tests look for in programs: the order of convolutions' axes, and arrays that became constants."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax


def orders(function: Callable[..., Any], *args: Any, platform: str = "cpu") -> list[str]:
    """The orders of axes of all convolutions in the program, loops and branches included."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)


def in_order(order: str) -> bool:
    return re.fullmatch(r"\[b(, \d)*, f\]x\[(\d, )*i, o\]->\[b(, \d)*, f\]", order) is not None


def closed_over(function: Callable[..., Any], *args: Any) -> list[Any]:
    """The arrays that are constants of the program, also in functions jitted inside."""

    def constants(traced: Any) -> list[Any]:
        inner = [eqn.params["jaxpr"] for eqn in traced.jaxpr.eqns if eqn.primitive.name in ("jit", "pjit")]
        return [*traced.consts, *(c for each in inner for c in constants(each))]

    return constants(jax.make_jaxpr(function)(*args))
