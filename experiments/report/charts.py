"""What all charts share. A chart is a Vega-Lite specification with its data inside, drawn as SVG in the page.

Colours are those of `presentation.figures`, a method's the same in every chart. Black is "currentColor" here, the
colour of the page's text, so that a dark page shows it; the same holds for axes, grids and legends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.harness.presentation.figures import PHASE_COLOURS, method_styles

Spec = dict[str, Any]
Record = Mapping[str, Any]
Styles = Mapping[str, tuple[str, str]]
INK = "currentColor"
DASHES = {"-": [1, 0], "--": [6, 3], ":": [2, 2]}
# Those of the png figures, but for what a dark page would swallow, and for two that are alike.
_PHASES = PHASE_COLOURS | {"other": "#7A7A7A", "wait": "#DDDDDD", "program": "#999933"}
HEIGHT = 300
ROW = 26


@dataclass(frozen=True)
class Chart:
    """A specification; title: its heading, and what it is called to those who do not see it; note: how to read it."""

    title: str
    spec: Spec
    note: str = ""


def whole(spec: Mapping[str, Any], values: Iterable[Mapping[str, Any]] = ()) -> Spec:
    """The specification with its data and the page's style."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
    axis = {"domainColor": INK, "tickColor": INK, "gridColor": INK, "gridOpacity": 0.13, "domainOpacity": 0.5}
    axis |= {"labelFlush": False, "labelOverlap": True}
    # The page sets how many columns a legend has, and how long a label may be, by the room that there is.
    legend = {**text, "orient": "bottom", "columns": 4}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": None,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        **spec,
        "config": {
            "font": "system-ui, sans-serif",
            "customFormatTypes": True,
            "view": {"stroke": None},
            "axis": {**text, **axis, "titleFontWeight": "normal", "labelLimit": 200},
            "axisX": {"tickCount": 6},
            "legend": {**legend, "titleFontWeight": "normal"},
            "text": {"color": INK, "fontSize": 11},
            "rule": {"color": INK},
            "header": text,
        },
    }


def methods_scale(methods: Sequence[str], styles: Styles) -> Spec:
    """A scale of colours for these methods."""
    return {"domain": list(methods), "range": [_ink(styles[method][0]) for method in methods]}


def dashes_scale(methods: Sequence[str], styles: Styles) -> Spec:
    """A scale of line styles for these methods."""
    return {"domain": list(methods), "range": [DASHES[styles[method][1]] for method in methods]}


def phases_scale(phases: Iterable[str]) -> Spec:
    """A scale of colours for these phases."""
    names = list(phases)
    return {"domain": names, "range": [_PHASES.get(name, "#7A7A7A") for name in names]}


def styles_of(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The style of each method of the page."""
    return method_styles(list(methods))


def checkbox(name: str, label: str, value: bool) -> Spec:
    """A parameter that a box below the chart switches."""
    return {"name": name, "value": value, "bind": {"input": "checkbox", "name": label}}


def choice(name: str, label: str, options: Sequence[Any]) -> Spec:
    """A parameter that a list below the chart chooses; the first option is taken at first."""
    return {"name": name, "value": options[0], "bind": {"input": "select", "options": list(options), "name": label}}


def legend_pick(name: str, field: str) -> Spec:
    """A parameter that clicks on the legend set: what is picked stands out."""
    return {"name": name, "select": {"type": "point", "fields": [field], "toggle": "true"}, "bind": "legend"}


def by_method(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each method."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["method"], []).append(record)
    return groups


def heading(problem: str, rows: Sequence[Record]) -> str:
    """A chart's title: the problem, and its data where it has any."""
    return f"{problem}: {rows[0]['data']}" if rows[0]["data"] else problem


def _ink(colour: str) -> str:
    return INK if colour == "#000000" else colour
