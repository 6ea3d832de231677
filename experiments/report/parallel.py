"""Points of a sweep in parallel coordinates: a line a point, over all fields and the objective."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report import charts
from experiments.report.charts import Chart, Spec
from experiments.report.wording import shown


def parallel(
    points: Sequence[tuple[Mapping[str, str], float]], objective: str, sign: int, short: Mapping[str, str]
) -> Chart:
    """One line a point over all fields and the objective; the slider keeps the best of them."""
    names = list(points[0][0])
    heights = {name: _heights([point[name] for point, _ in points]) for name in names}
    means = [mean for _, mean in points]
    low, high = min(means), max(means)
    ranked = sorted(range(len(points)), key=lambda number: -sign * means[number])
    rank = {number: place for place, number in enumerate(ranked, 1)}
    values: list[dict[str, Any]] = []
    for number, (point, mean) in enumerate(points):
        about = {"id": number, "rank": rank[number], "mean": mean, "point": said(point, short)}
        values += [{**about, "axis": short[name], "at": heights[name][point[name]]} for name in names]
        values.append({**about, "axis": objective, "at": (mean - low) / (high - low) if high > low else 0.5})
    ticks = [
        {"axis": short[name], "at": at, "text": shown(text)}
        for name in names
        for text, at in _labelled(heights[name]).items()
    ]
    ticks += [{"axis": objective, "at": 0, "text": f"{low:.4g}"}, {"axis": objective, "at": 1, "text": f"{high:.4g}"}]
    order = [*(short[name] for name in names), objective]
    x = {"field": "axis", "type": "nominal", "sort": order, "title": None, "axis": {"labelAngle": 0, "grid": True}}
    y = {"field": "at", "type": "quantitative", "axis": None, "scale": {"domain": [-0.04, 1.04]}}
    kept = "datum.rank <= best"
    colour = {
        "field": "mean",
        "type": "quantitative",
        "title": objective,
        "scale": {"scheme": {"name": "viridis", "extent": [0.25, 0.85]}},
    }
    pointed = {
        "name": "pointed",
        "select": {"type": "point", "fields": ["id"], "on": "pointerover", "clear": "pointerout"},
    }
    spec: Spec = {
        "height": charts.HEIGHT,
        "params": [
            {
                "name": "best",
                "value": len(points),
                "bind": {"input": "range", "min": 1, "max": len(points), "step": 1, "name": "best points shown "},
            }
        ],
        "layer": [
            {
                "params": [pointed],
                "transform": [{"filter": kept}],
                "mark": {"type": "line", "strokeWidth": 2.5, "strokeJoin": "round"},
                "encoding": {
                    "x": x,
                    "y": y,
                    "detail": {"field": "id"},
                    "color": {
                        **colour,
                        "legend": {"orient": "bottom", "gradientLength": 200, "columns": 1, "padding": 14},
                    },
                    "opacity": {"condition": {"param": "pointed", "value": 0.9}, "value": 0.12},
                    "tooltip": [
                        {"field": "point"},
                        {"field": "mean", "format": ".5~g", "title": objective},
                        {"field": "rank"},
                    ],
                },
            },
            {
                "name": "ticks",
                "data": {"values": ticks},
                "mark": {"type": "text", "align": "left", "dx": 5, "dy": -6, "fontWeight": "bold"},
                "encoding": {"x": x, "y": y, "text": {"field": "text"}},
            },
        ],
    }
    note = "A line is a point, its mean over seeds at the right; under the pointer it stands out."
    return Chart("Parallel coordinates", charts.whole(spec, values), note)


def _heights(texts: Sequence[str]) -> dict[str, float]:
    """Where a field's values stand on its axis: many numbers by size, or its logarithm where they span decades; few of
    them, and names, evenly."""
    known = list(dict.fromkeys(texts))
    numbers = {text: number for text in known if (number := _number(text)) is not None}
    if len(numbers) == len(known):
        known.sort(key=lambda text: numbers[text])
        if len(known) > 8:
            scaled = {text: math.log(numbers[text]) if spans(numbers.values()) else numbers[text] for text in known}
            low, high = scaled[known[0]], scaled[known[-1]]
            return {text: (scaled[text] - low) / (high - low) for text in known}
    return {text: number / (len(known) - 1) if len(known) > 1 else 0.5 for number, text in enumerate(known)}


def _labelled(heights: Mapping[str, float]) -> dict[str, float]:
    """Of many numbers only the ends are written."""
    return dict(heights) if len(heights) <= 8 else {text: at for text, at in heights.items() if at in (0.0, 1.0)}


def spans(numbers: Iterable[float]) -> bool:
    """Whether these numbers are drawn by their logarithm."""
    known = list(numbers)
    return min(known) > 0 and max(known) > 30 * min(known)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def said(point: Mapping[str, str], short: Mapping[str, str]) -> str:
    """A point in words."""
    return ", ".join(f"{short[name]} {shown(value)}" for name, value in point.items())
