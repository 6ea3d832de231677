"""Numbers, intervals and lists as the page writes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.differences import Difference


def number(value: float) -> str:
    """Four digits that matter."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"


def between(low: float, high: float) -> str:
    """An interval in brackets."""
    return f"[{', '.join(_alike((low, high)))}]"


def mean(entry: Mapping[str, Any]) -> str:
    """What `intervals` summarises, as "mean [low, high]"; of a single value that alone."""
    ends = f" {between(*entry['interval'])}" if entry["n"] > 1 else ""
    return f"{number(entry['mean'])}{ends}"


def difference(found: Difference) -> str:
    """A difference with its interval, all with as many decimals, and with the sign that printers use."""
    if found.is_same:
        return "0"
    numbers = (found.mean,) if found.seeds < 2 else (found.mean, found.low, found.high)
    middle, *ends = (text.replace("-", "−", 1) for text in _alike(numbers, "+"))
    return f"{middle} [{', '.join(ends)}]" if ends else middle


def _alike(values: Sequence[float], sign: str = "-") -> list[str]:
    """All with as many decimals, which leave the largest three digits; tiny ones with exponents."""
    largest = max(map(abs, values))
    if 0 < largest < 1e-3:
        return [f"{value:{sign}.3g}" for value in values]
    digits = max(2 - math.floor(math.log10(largest)), 0) if largest else 0
    return [f"{value:{sign}.{digits}f}" for value in values]


def shown(text: str) -> str:
    """A field's value; of a number with a long tail of digits the first four."""
    try:
        return f"{float(text):.4g}" if len(text) > 7 else text
    except ValueError:
        return text


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(count: int, one: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
