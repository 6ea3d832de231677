"""Learning curves: a metric against seconds, seed by seed and as a band."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.harness.presentation.figures import band, resampled
from experiments.harness.presentation.intervals import INTERVALS_FROM, mean_interval
from experiments.report import charts
from experiments.report.charts import Chart, Record, Spec, Styles, by_method, heading

MOST_ROWS = 12_000  # of all curves of a page, some 150 bytes each
MOST_POINTS = 50
FEWEST_POINTS = 6
BANDS = ("median, quartiles", "mean, interval", "none")


def curves(problem: str, records: Sequence[Record], styles: Styles, panels: int = 1) -> Chart | None:
    """Metric against seconds: a line and a band per method over its seeds, and the seeds themselves.

    panels: how many such charts the page has; the more, the fewer points a line gets.
    """
    mine = [r for r in records if r["problem"] == problem and r["outcome"]["timed"]["curve"]]
    if not mine:
        return None
    groups = by_method(mine)
    methods = list(groups)
    most = min(max(MOST_ROWS // (panels * (len(mine) + 2 * len(methods))), FEWEST_POINTS), MOST_POINTS)
    values = [row for method, group in groups.items() for row in _rows(method, group, most)]
    lines = {"symbolType": "stroke", "symbolSize": 300, "symbolOpacity": 1, "symbolStrokeWidth": 3}
    named = {"field": "method", "type": "nominal", "title": None, "legend": lines}
    colour = {**named, "scale": charts.methods_scale(methods, styles)}
    dash = {**named, "scale": charts.dashes_scale(methods, styles)}
    # Of everything, so that switches do not move the axes.
    wide = [value["second"] for value in values]
    high = [value[name] for value in values for name in ("value", "low", "high") if name in value]
    x: Spec = {"field": "second", "type": "quantitative", "title": "seconds, data and compilation included"}
    x["scale"] = {"domain": [min(wide), max(wide)], "nice": True, "zero": False}
    y: Spec = {"field": "value", "type": "quantitative", "title": "accuracy (%)"}
    y["scale"] = {"domain": [min(high), max(high)], "nice": True, "zero": False}
    shown = {"condition": {"param": "picked", "value": 1}, "value": 0.08}
    faint = {"condition": {"param": "picked", "value": 0.45}, "value": 0.05}
    in_band = {"condition": {"param": "picked", "value": 0.2}, "value": 0.03}
    middle = [{"filter": "datum.kind == band"}]
    seeds = [{"filter": "seeds && datum.kind == 'seed'"}]
    point = {"type": "point", "filled": True, "size": 45}
    # What a nearest-point selection shows comes from a wrapper of the row, which Vega-Lite 6.4 opens for fields with a
    # format alone; that of the page's `asText` changes nothing.
    text = {"formatType": "asText", "format": "as it is"}
    tips = [
        {"field": "method", **text},
        {"field": "what", **text, "title": "of"},
        {"field": "second", "format": ".1f", "title": "seconds"},
        {"field": "value", "format": ".2f", "title": "%"},
        {"field": "range", **text, "title": "band"},
    ]
    nearest = {"type": "point", "nearest": True, "on": "pointermove", "clear": "pointerout", "fields": ["id"]}
    under = {"condition": {"param": "pointed", "empty": False, "value": 1}, "value": 0}
    spec: Spec = {
        "height": charts.HEIGHT,
        "params": [charts.choice("band", "line and band: ", BANDS), charts.checkbox("seeds", "seeds ", True)],
        "encoding": {"x": x, "color": colour},
        "layer": [
            {
                "params": [charts.legend_pick("picked", "method")],
                "transform": middle,
                "mark": {"type": "area", "tooltip": False},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "opacity": in_band},
            },
            {
                "transform": seeds,
                "mark": {"type": "line", "strokeWidth": 1},
                "encoding": {"y": y, "detail": {"field": "what"}, "opacity": faint},
            },
            {
                "transform": [*seeds, {"filter": "datum.last"}],
                "mark": {**point, "size": 30},
                "encoding": {"y": y, "opacity": faint},
            },
            {
                "transform": middle,
                "mark": {"type": "line", "strokeWidth": 2.5},
                "encoding": {"y": y, "strokeDash": dash, "opacity": shown},
            },
            {"transform": [*middle, {"filter": "datum.last"}], "mark": point, "encoding": {"y": y, "opacity": shown}},
            {
                "params": [{"name": "pointed", "select": nearest}],
                "transform": [{"filter": "datum.kind == band || (seeds && datum.kind == 'seed')"}],
                "mark": {**point, "size": 80, "stroke": charts.INK, "aria": False},
                "encoding": {"y": y, "opacity": under, "tooltip": tips},
            },
        ],
    }
    note = (
        f"Quartiles and 95 % intervals from {INTERVALS_FROM} seeds on, minimum to maximum below. "
        "A click on the legend picks methods."
    )
    return Chart(heading(problem, mine), charts.whole(spec, values), note)


def _rows(method: str, group: Sequence[Record], most: int) -> list[dict[str, Any]]:
    """Those of the seeds, and those of both bands."""
    lines = [record["outcome"]["timed"]["curve"] for record in group]
    rows: list[dict[str, Any]] = []
    for record, line in zip(group, map(partial(_thinned, most=most), lines), strict=True):
        named = {"method": method, "kind": "seed", "what": f"seed {record['seed']}", "range": "-"}
        seed = [{**named, "second": round(second, 3), "value": round(value, 3)} for second, value in line]
        seed[-1]["last"] = 1
        rows += seed
    if all(len(line) == 1 for line in lines):  # one evaluation a seed: they share no second, so take the median one
        second = float(np.median([line[0][0] for line in lines]))
        lines = [[[second, line[0][1]]] for line in lines]
    count = most if max(map(len, lines)) > 1 else 1
    rows += _band_rows(method, BANDS[0], len(lines), *band(lines, count))
    seconds, values = resampled(lines, count)
    ends = np.array([mean_interval(column)[:2] for column in values.T])
    rows += _band_rows(method, BANDS[1], len(lines), seconds, ends[:, 0], values.mean(axis=0), ends[:, 1])
    return [{**row, "id": f"{method} {number}"} for number, row in enumerate(rows)]


def _thinned(line: Sequence[Sequence[float]], most: int) -> list[Sequence[float]]:
    """At most so many of its points, the first and the last among them."""
    kept = np.unique(np.linspace(0, len(line) - 1, min(len(line), most)).round().astype(int))
    return [line[index] for index in kept]


def _band_rows(method: str, kind: str, count: int, *columns: np.ndarray) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    of = f"{kind.partition(',')[0]} of {count} seed{'s' * (count > 1)}"
    row = {"method": method, "kind": kind, "what": of}
    for second, low, middle, high in zip(*(column.tolist() for column in columns), strict=True):
        numbers = {"second": round(second, 3), "value": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
        found.append({**row, **numbers, "range": f"{low:.2f} to {high:.2f}"})
    found[-1]["last"] = 1
    return found
