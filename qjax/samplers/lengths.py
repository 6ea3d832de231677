"""One name, `length`, for what each sampler calls its sweeps, steps or temperatures: how much work a read is.

samplers.get("bifurcation", length=500)    num_steps=500
samplers.of_length(Anneal(), 500)          Anneal(num_sweeps=500)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

_FIELDS = ("num_sweeps", "num_steps", "num_betas")


def length_field(sampler: Any) -> str | None:
    """The hyperparameter (of a sampler or its class) that is its length; None where it has none: exact, random, greedy,
    which end by themselves."""
    known = getattr(sampler, "__dataclass_fields__", {})
    return next((name for name in _FIELDS if name in known), None)


def of_length(sampler: Any, length: int) -> Any:
    """The sampler with this length: num_sweeps, num_steps or num_betas. Unchanged where it has none."""
    name = length_field(sampler)
    return sampler if name is None else replace(sampler, **{name: length})
