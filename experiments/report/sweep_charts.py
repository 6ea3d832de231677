"""Charts of a sweep: main effects, paired differences, what explains the objective, points in parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import charts
from experiments.report.anova import Decomposition
from experiments.report.charts import Chart, Spec
from experiments.report.effects import Level, Pair
from experiments.report.parallel import said, spans

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
        {"field": short[name], "at": float(point[name]), "mean": mean, "point": said(point, short)}
        for point, mean in points
        for name in fields
    ]
    by_logarithm = all(spans(float(point[name]) for point, _ in points) for name in fields)
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
