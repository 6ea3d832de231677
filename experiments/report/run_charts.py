"""Charts of an experiment made of cells: learning curves, seconds by phase, energies of the sampled states."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.presentation.figures import PHASE_COLOURS, band, energy_bins, resampled
from experiments.harness.presentation.intervals import INTERVALS_FROM, mean_interval
from experiments.report import charts
from experiments.report.charts import Chart, Spec

Record = Mapping[str, Any]
Styles = Mapping[str, tuple[str, str]]
MOST_BAND_POINTS = 50
MOST_SEEDS = 10
MOST_ENERGIES = 50_000
BANDS = ("median, quartiles", "mean, interval", "none")
CHARGES = ("data", "compile")
DARK = ("anneal", "refine", "evaluate", "other")


def curves(problem: str, records: Sequence[Record], styles: Styles) -> Chart | None:
    """Metric against seconds: a line and a band per method over its seeds, and the seeds themselves."""
    mine = [r for r in records if r["problem"] == problem and r["outcome"]["timed"]["curve"]]
    if not mine:
        return None
    values = [row for method, group in _by_method(mine).items() for row in _curve_rows(method, group)]
    methods = list(_by_method(mine))
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
    tips = [
        {"field": "method"},
        {"field": "what", "title": "of"},
        {"field": "second", "format": ".1f", "title": "seconds"},
        {"field": "value", "format": ".2f", "title": "%"},
        {"field": "range", "title": "band"},
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
                "mark": {**point, "size": 80, "stroke": charts.INK},
                "encoding": {"y": y, "opacity": under, "tooltip": tips},
            },
        ],
    }
    note = (
        f"Quartiles and 95 % intervals from {INTERVALS_FROM} seeds on, minimum to maximum below. "
        "A click on the legend picks methods."
    )
    return Chart(_heading(problem, mine), charts.whole(spec, values), note)


def _curve_rows(method: str, group: Sequence[Record]) -> list[dict[str, Any]]:
    lines = [record["outcome"]["timed"]["curve"] for record in group]
    rows: list[dict[str, Any]] = []
    for record, line in zip(group, lines, strict=True):
        for number, (second, value) in enumerate(line):
            row = {"method": method, "kind": "seed", "what": f"seed {record['seed']}", "last": number == len(line) - 1}
            rows.append({**row, "second": round(second, 3), "value": round(value, 3), "range": "-"})
    if all(len(line) == 1 for line in lines):  # one evaluation a seed: they share no second, so take the median one
        second = float(np.median([line[0][0] for line in lines]))
        lines = [[[second, line[0][1]]] for line in lines]
    count = MOST_BAND_POINTS if max(map(len, lines)) > 1 else 1
    rows += _band_rows(method, BANDS[0], len(lines), *band(lines, count))
    seconds, values = resampled(lines, count)
    ends = np.array([mean_interval(column)[:2] for column in values.T])
    rows += _band_rows(method, BANDS[1], len(lines), seconds, ends[:, 0], values.mean(axis=0), ends[:, 1])
    return [{**row, "id": f"{method} {number}"} for number, row in enumerate(rows)]


def _band_rows(method: str, kind: str, count: int, *columns: np.ndarray) -> list[dict[str, Any]]:
    found = []
    of = f"{kind.partition(',')[0]} of {count} seed{'s' * (count > 1)}"
    for number, (second, low, middle, high) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        row = {"method": method, "kind": kind, "what": of, "last": number == len(columns[0]) - 1}
        numbers = {"second": round(second, 3), "value": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
        found.append({**row, **numbers, "range": f"{low:.2f} to {high:.2f}"})
    return found


def is_drawn(record: Record) -> bool:
    """Whether a chart shows this record in its method's colour."""
    return bool(record["outcome"]["timed"]["curve"] or record["outcome"]["results"].get("sampled_energies"))


def phases(problem: str, rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Where the seconds went: one bar per method, the phases in the order of the method (the paper's Fig. 1)."""
    mine = [row for row in rows if row["problem"] == problem and row["timed"]["phases"]]
    if not mine:
        return None
    known = [*PHASE_COLOURS, *(name for row in mine for name in row["timed"]["phases"] if name not in PHASE_COLOURS)]
    order = {phase: number for number, phase in enumerate(dict.fromkeys(known))}
    values = [
        {"method": row["method"], "phase": phase, "seconds": round(seconds, 4), "order": order[phase]}
        for row in mine
        for phase, seconds in row["timed"]["phases"].items()
        if seconds > 0
    ]
    used = [phase for phase in order if any(value["phase"] == phase for value in values)]
    methods = [row["method"] for row in mine]
    longest = max(sum(row["timed"]["phases"].values()) for row in mine)
    digits = ".1f" if longest >= 10 else ".2f"
    y = {"field": "method", "type": "nominal", "sort": methods, "title": None}
    phase_colour: Spec = {"field": "phase", "type": "nominal", "scale": charts.phases_scale(used), "title": None}
    phase_colour["legend"] = {"symbolStrokeWidth": 0}
    x = {"field": "seconds", "type": "quantitative", "stack": "zero", "title": "seconds, median over seeds"}
    charged = f"charged || indexof({list(CHARGES)}, datum.phase) < 0"
    charges = charts.checkbox("charged", "data and compilation ", True)
    spec: Spec = {
        "height": charts.ROW * len(methods),
        "params": [charges],
        "transform": [
            {"filter": charged},
            {"joinaggregate": [{"op": "sum", "field": "seconds", "as": "all"}], "groupby": ["method"]},
            {"joinaggregate": [{"op": "max", "field": "all", "as": "longest"}]},
        ],
        "encoding": {"y": y},
        "layer": [
            {
                "params": [charts.legend_pick("picked", "phase")],
                "mark": {"type": "bar", "stroke": charts.INK, "strokeWidth": 0.4, "strokeOpacity": 0.5},
                "encoding": {
                    "x": x,
                    "order": {"field": "order"},
                    "color": phase_colour,
                    "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.15},
                    "tooltip": [{"field": "method"}, {"field": "phase"}, {"field": "seconds", "format": ".3~f"}],
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "fontWeight": "bold"},
                "encoding": {
                    "x": {"aggregate": "max", "field": "all", "type": "quantitative"},
                    "text": {"aggregate": "max", "field": "all", "format": digits},
                },
            },
            {
                "mark": {
                    "type": "text",
                    "color": {"expr": f"indexof({list(DARK)}, datum.phase) < 0 ? 'black' : 'white'"},
                },
                "encoding": {
                    "x": {**x, "bandPosition": 0.5},
                    "order": {"field": "order"},
                    "detail": {"field": "phase"},
                    # Where there is room for it.
                    "opacity": {
                        "condition": {"test": "datum.seconds * width > 32 * datum.longest", "value": 1},
                        "value": 0,
                    },
                    "text": {"field": "seconds", "format": digits},
                },
            },
        ],
    }
    return Chart(_heading(problem, mine), charts.whole(spec, values))


def energies(problem: str, records: Sequence[Record], styles: Styles) -> Chart | None:
    """Energies of the sampled states on common bins, one seed at a time, because seeds have other problems."""
    mine = [r for r in records if r["problem"] == problem and r["outcome"]["results"].get("sampled_energies")]
    seeds = sorted({record["seed"] for record in mine})[:MOST_SEEDS]
    values: list[dict[str, Any]] = []
    for seed in seeds:
        found = {
            r["method"]: np.asarray(r["outcome"]["results"]["sampled_energies"][:MOST_ENERGIES], np.float64)
            for r in mine
            if r["seed"] == seed
        }
        edges = energy_bins(list(found.values()))
        for method, sampled in found.items():
            shares = 100.0 * np.histogram(sampled, edges)[0] / sampled.size
            values += [
                {"seed": seed, "method": method, "low": low, "high": high, "share": round(share, 3)}
                for low, high, share in zip(edges[:-1].tolist(), edges[1:].tolist(), shares.tolist(), strict=True)
                if share > 0
            ]
    if not values:
        return None
    methods = list(_by_method(mine))
    colour = {"field": "method", "type": "nominal", "scale": charts.methods_scale(methods, styles), "title": None}
    x = {"field": "low", "type": "quantitative", "title": "energy of a sampled state (lower is better)"}
    tips = [
        {"field": "method"},
        {"field": "low", "format": ".6~g", "title": "from"},
        {"field": "high", "format": ".6~g", "title": "to"},
        {"field": "share", "format": ".1f", "title": "reads %"},
    ]
    spec: Spec = {
        "height": charts.HEIGHT * 3 // 4,
        "params": [charts.choice("seed", "seed ", seeds), charts.legend_pick("picked", "method")],
        "transform": [{"filter": "datum.seed == seed"}],
        "mark": {"type": "bar", "binSpacing": 0, "strokeWidth": 1.2, "fillOpacity": 0.4},
        "encoding": {
            "x": {**x, "bin": "binned", "scale": {"zero": False}, "axis": {"tickCount": 5, "format": ".6~g"}},
            "x2": {"field": "high"},
            "y": {"field": "share", "type": "quantitative", "stack": None, "title": "reads (%)"},
            "color": colour,
            "stroke": colour,
            "strokeDash": {**colour, "scale": charts.dashes_scale(methods, styles)},
            "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.08},
            "tooltip": tips,
        },
    }
    return Chart(_heading(problem, mine), charts.whole(spec, values))


def _by_method(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["method"], []).append(record)
    return groups


def _heading(problem: str, rows: Sequence[Record]) -> str:
    return f"{problem}: {rows[0]['data']}" if rows[0]["data"] else problem
