"""Numbers, intervals and lists as the page writes them."""

import math
from collections.abc import Sequence

from experiments.report.differences import Difference


def number(value: float) -> str:
    """Four digits that matter."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"


def between(low: float, high: float) -> str:
    """An interval in brackets, both ends with as many decimals."""
    digits = _decimals(low, high)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def difference(found: Difference) -> str:
    """A difference with its interval, all with as many decimals, and with the sign that printers use."""
    numbers = (found.mean,) if found.seeds < 2 else (found.mean, found.low, found.high)
    digits = _decimals(*numbers)
    mean, *ends = (f"{value:+.{digits}f}".replace("-", "−") for value in numbers)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _decimals(*values: float) -> int:
    """Those that leave the largest three digits."""
    largest = max(map(abs, values))
    return 0 if largest == 0 else min(max(2 - math.floor(math.log10(largest)), 0), 12)


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
