"""Charts of a sweep: main effects, paired differences, what explains the objective, points in parallel coordinates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report import charts
from experiments.report.anova import Decomposition
from experiments.report.charts import Chart, Spec
from experiments.report.effects import Level, Pair
from experiments.report.wording import shown

ACCENT = "#D55E00"
QUIET = "#4A90C2"


def main_effects(levels: Sequence[Level], objective: str, short: Mapping[str, str]) -> Chart:
    """A dot and an interval for each value of each field."""
    values = [
        {
            "row": f"{short[level.field]} = {level.value}",
            "mean": level.mean,
            "low": level.interval.low,
            "high": level.interval.high,
            "runs": level.runs,
        }
        for level in levels
    ]
    return _intervals("Main effects", values, f"{objective}, mean over everything else")


def differences(title: str, pairs: Sequence[Pair], objective: str, short: Mapping[str, str]) -> Chart:
    """A dot and an interval for each pair of values, and a line at no difference."""
    values = [_difference(f"{short[pair.field]}: {pair.after} − {pair.before}", pair) for pair in pairs]
    return _with_zero(title, values, f"difference in {objective}, by seed")


def method_gains(named: Sequence[tuple[str, Pair]], objective: str) -> Chart:
    """The same for two methods at each point."""
    several = len({pair.before for _, pair in named}) > 1
    values = [_difference(f"{name}: {pair.before}" if several else name, pair) for name, pair in named]
    label = f"{named[0][1].after} − {'control' if several else named[0][1].before}: {objective}"
    return _with_zero("Point by point", values, label)


def shares(found: Decomposition, short: Mapping[str, str]) -> Chart:
    """The shares of the variance; a mark where noise alone would leave a component."""
    values = [
        {
            "row": " × ".join(short[name] for name in part.fields),
            "share": 100 * part.share,
            "noise": 100 * part.by_noise,
        }
        for part in found.components
    ]
    values += [
        {"row": "seeds", "share": 100 * found.seeds},
        {"row": "noise (seeds × points)", "share": 100 * found.noise},
    ]
    note = (
        "The exact decomposition over the grid's points and seeds. The tick: what noise alone leaves there on average."
    )
    return _bars("What explains the differences", values, "share of the variance (%)", note)


def importances(found: Mapping[str, float], short: Mapping[str, str]) -> Chart:
    """Shares that a forest fitted to the search's points gives each field."""
    values = [{"row": short[name], "share": 100 * share} for name, share in found.items()]
    note = (
        "Optuna's functional ANOVA of a forest fitted to the points that the search drew: of its fit, not of the truth."
    )
    return _bars("Importances", values, "share (%)", note)


def slices(
    points: Sequence[tuple[Mapping[str, str], float]], fields: Sequence[str], objective: str, short: Mapping[str, str]
) -> Chart:
    """The objective of every point against each field of numbers."""
    values = [
        {"field": short[name], "at": float(point[name]), "mean": mean, "point": _said(point, short)}
        for point, mean in points
        for name in fields
    ]
    by_logarithm = all(_spans(float(point[name]) for point, _ in points) for name in fields)
    scale = {"type": "log"} if by_logarithm else {"zero": False}
    spec: Spec = {
        "height": charts.HEIGHT,
        "params": [charts.choice("chosen", "field ", [short[name] for name in fields])],
        "transform": [{"filter": "datum.field == chosen"}],
        "mark": {"type": "point", "filled": True, "size": 50, "color": QUIET, "opacity": 0.7},
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "scale": scale, "title": "value of the field"},
            "y": {"field": "mean", "type": "quantitative", "scale": {"zero": False}, "title": objective},
            "tooltip": [{"field": "point"}, {"field": "mean", "format": ".4~g", "title": objective}],
        },
    }
    return Chart("Every point, field by field", charts.whole(spec, values), "Mean over seeds.")


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
        about = {"id": number, "rank": rank[number], "mean": mean, "point": _said(point, short)}
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
                    "color": {**colour, "legend": {"orient": "bottom", "gradientLength": 200, "columns": 1}},
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
            scaled = {text: math.log(numbers[text]) if _spans(numbers.values()) else numbers[text] for text in known}
            low, high = scaled[known[0]], scaled[known[-1]]
            return {text: (scaled[text] - low) / (high - low) for text in known}
    return {text: number / (len(known) - 1) if len(known) > 1 else 0.5 for number, text in enumerate(known)}


def _labelled(heights: Mapping[str, float]) -> dict[str, float]:
    """Of many numbers only the ends are written."""
    return dict(heights) if len(heights) <= 8 else {text: at for text, at in heights.items() if at in (0.0, 1.0)}


def _spans(numbers: Iterable[float]) -> bool:
    """Whether these numbers are drawn by their logarithm."""
    known = list(numbers)
    return min(known) > 0 and max(known) > 30 * min(known)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _said(point: Mapping[str, str], short: Mapping[str, str]) -> str:
    return ", ".join(f"{short[name]} {shown(value)}" for name, value in point.items())


def _difference(row: str, pair: Pair) -> dict[str, Any]:
    found = pair.difference
    numbers = {"mean": found.mean, "low": found.low, "high": found.high, "runs": pair.pairs}
    return {"row": row, "claim": "beyond noise" if found.is_known else "no claim", "verdict": found.verdict, **numbers}


def _with_zero(title: str, values: Sequence[Mapping[str, Any]], label: str) -> Chart:
    chart = _intervals(title, values, label)
    nothing = {"y": None, "color": None, "tooltip": None}
    zero = {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 0}, **nothing}}
    return Chart(title, {**chart.spec, "layer": [zero, *chart.spec["layer"]]}, chart.note)


def _intervals(title: str, values: Sequence[Mapping[str, Any]], label: str) -> Chart:
    colour: Spec = {"value": QUIET}
    if any(value.get("claim") == "beyond noise" for value in values):
        scale = {"domain": ["beyond noise", "no claim"], "range": [ACCENT, QUIET]}
        colour = {"field": "claim", "type": "nominal", "scale": scale, "title": None}
    x = {"type": "quantitative", "scale": {"zero": False}, "title": label}
    tips: list[Spec] = [{"field": "row", "title": " "}]
    tips += [{"field": name, "format": ".4~g"} for name in ("mean", "low", "high")]
    tips += [{"field": "runs"}] + ([{"field": "verdict"}] if "verdict" in values[0] else [])
    wide = {"type": "rule", "strokeWidth": 3, "opacity": 0.75}
    spec: Spec = {
        "height": charts.ROW * len(values),
        "encoding": {
            "y": {"field": "row", "type": "nominal", "sort": [value["row"] for value in values], "title": None},
            "color": colour,
            "tooltip": tips,
        },
        "layer": [
            {"mark": wide, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"x": {**x, "field": "mean"}},
            },
        ],
    }
    return Chart(title, charts.whole(spec, values))


def _bars(title: str, values: Sequence[Mapping[str, Any]], label: str, note: str) -> Chart:
    values = [{**value, "end": max(value["share"], value.get("noise", 0.0))} for value in values]
    tips: list[Spec] = [{"field": "row", "title": " "}, {"field": "share", "format": ".1f", "title": "%"}]
    if any("noise" in value for value in values):
        tips.append({"field": "noise", "format": ".1f", "title": "by noise %"})
    y = {"field": "row", "type": "nominal", "sort": [value["row"] for value in values], "title": None}
    x = {"field": "share", "type": "quantitative", "title": label}
    marked: Spec = {
        "transform": [{"filter": "isValid(datum.noise)"}],
        "mark": {"type": "tick", "color": ACCENT, "thickness": 3},
        "encoding": {"x": {"field": "noise", "type": "quantitative"}},
    }
    spec: Spec = {
        "height": charts.ROW * len(values),
        "encoding": {"y": y, "x": x, "tooltip": tips},
        "layer": [
            {"mark": {"type": "bar", "color": QUIET, "opacity": 0.75}},
            *([marked] if any("noise" in value for value in values) else []),
            {
                "mark": {"type": "text", "align": "left", "dx": 4},
                "encoding": {
                    "x": {"field": "end", "type": "quantitative"},
                    "text": {"field": "share", "format": ".1f"},
                },
            },
        ],
    }
    return Chart(title, charts.whole(spec, values), note)
