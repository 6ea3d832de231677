"""What a sweep varies: `field=a,b,c` for values, `field=low..high` for a range that a search draws from."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.harness.presentation.cells import UsageError
from experiments.sweeps import fields

Point = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """A field with its values, or with the two ends of a range: whole numbers or floats, drawn by logarithm where both
    ends are positive."""

    name: str
    values: tuple[Any, ...]
    is_range: bool = False


def axes(texts: Sequence[str], config: Any, search: str) -> tuple[Axis, ...]:
    """The axes that these options ask for, on this configuration. Errors: UsageError, one line."""
    found: list[Axis] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or not rest or not name:
            raise UsageError(f"--grid {text}: write field=value,value,...")
        if name in {axis.name for axis in found}:
            raise UsageError(f"--grid: {name} is given twice")
        low, dots, high = rest.partition("..")
        if dots and search == "grid":
            raise UsageError(f"--grid {text}: a range needs --search random or tpe; a grid needs values")
        parts = [low, high] if dots else _split(rest)
        if "" in parts:
            raise UsageError(f"--grid {text}: a value is empty")
        values = tuple(fields.parsed(config, name, part) for part in parts)
        if dots and (not all(_is_number(value) for value in values) or values[0] >= values[1]):
            raise UsageError(f"--grid {text}: a range is low..high, of numbers")
        if len(set(map(repr, values))) < len(values):
            raise UsageError(f"--grid {text}: a value is given twice")
        found.append(Axis(name, values, bool(dots)))
    if not found:
        raise UsageError("nothing to sweep: give --grid field=value,value,...")
    # A sampler before its fields: those are the new one's.
    return tuple(sorted(found, key=lambda axis: axis.name.count(".")))


def points(chosen: Sequence[Axis]) -> list[Point]:
    """The grid: every combination of the axes' values."""
    return [
        dict(zip((axis.name for axis in chosen), values, strict=True))
        for values in itertools.product(*(axis.values for axis in chosen))
    ]


def corners(chosen: Sequence[Axis]) -> list[Point]:
    """Each value, and each end of a range, with the first of all other axes: what a search may draw, tried."""
    first = {axis.name: axis.values[0] for axis in chosen}
    return [{**first, axis.name: value} for axis in chosen for value in axis.values]


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
