"""What a page is made of: parts, each with an answer for the first screen and sections of tables and charts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from experiments.harness.presentation.tables import Table
from experiments.report.charts import Chart

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
