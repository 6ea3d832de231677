"""The page: parts filled into templates, with everything that a browser needs inside.

Vega (0.9 MB with Vega-Lite and its embedding, from vl-convert) instead of Bokeh (1.8 MB with its widgets) or Plotly
(4.8 MB): the smallest; its SVG takes the page's colours, and switches and values under the pointer are declared.
A policy in the page's head forbids every request, so that a report cannot depend on a network by mistake.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from experiments.harness.presentation.tables import BRACKETS, Table
from experiments.report.charts import Chart
from experiments.report.parts import Part

_TEMPLATES = Path(__file__).parent / "templates"
# A number, what counts as one (not reached: later than every number), and what may follow it.
_NUMBER = re.compile(r"([+−-]?[\d.]+(?:e[+-]?\d+)?)(?: ?%)?(?: \[.*\])?(?: \(\d+/\d+\))?", re.IGNORECASE)
_EMPTY = re.compile(r"(?:-|not reached)?(?: ?\[.*\])?(?: \(\d+/\d+\))?")


@dataclass(frozen=True)
class Field:
    """A cell of a table: its text, and what it is sorted by, empty for "always last"."""

    text: str
    key: str


def page(title: str, parts: Sequence[Part], made: str) -> str:
    """The HTML text of the whole page. made: the line at its end."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["chart"] = lambda block: isinstance(block, Chart)
    environment.globals.update(columns=columns, brackets=" ".join(BRACKETS))
    return environment.get_template("page.html.j2").render(
        title=title, parts=parts, made=made, vega=_vega(), style=_text("page.css"), script=_text("page.js")
    )


def columns(table: Table) -> tuple[list[bool], list[list[Field]]]:
    """(whether each column holds numbers, the lines with what they are sorted by)."""
    numeric = [_is_numeric([line[column] for line in table.lines]) for column in range(len(table.header))]
    lines = [[Field(text, _key(text) if numeric[at] else text) for at, text in enumerate(line)] for line in table.lines]
    return numeric, lines


def _is_numeric(texts: Sequence[str]) -> bool:
    return any(_NUMBER.fullmatch(text) for text in texts) and all(
        _NUMBER.fullmatch(text) or _EMPTY.fullmatch(text) for text in texts
    )


def _key(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    return found[1].replace("−", "-") if found else ""


@functools.cache
def _vega() -> Markup:
    bundle: Any = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="6.4")
    return Markup(bundle.replace("</script", r"<\/script"))


def _text(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text())
