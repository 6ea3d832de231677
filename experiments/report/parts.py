"""What a page is made of: parts, each with an answer for the first screen and sections of tables and charts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from experiments.harness.presentation.tables import Table
from experiments.report.charts import Chart
from experiments.report.differences import Difference

Kind = Literal["met", "missed", "open", "plain"]
SIGNS = {"met": "✓", "missed": "✗", "open": "?", "plain": "·"}


@dataclass(frozen=True)
class Answer:
    """One line of the first screen: what is said, and the measured value beside it."""

    kind: Kind
    text: str
    value: str = ""

    @property
    def sign(self) -> str:
        return SIGNS[self.kind]


@dataclass(frozen=True)
class Section:
    """Tables and charts under a heading; folded: shown on request."""

    title: str
    blocks: Sequence[Table | Chart]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """One run, one sweep, or two side by side. asked: in words; outcome: the same in one sentence."""

    name: str
    asked: str
    outcome: str
    answers: Sequence[Answer]
    gains: Sequence[Answer] = ()
    gains_title: str = ""
    sections: Sequence[Section] = ()
    facts: Sequence[Table] = field(default=())

    @property
    def anchor(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)


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


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(count: int, one: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
