"""Where the seconds went: a bar per method, its phases in the order in which a run goes through them."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness.presentation.figures import PHASE_COLOURS
from experiments.report import charts
from experiments.report.charts import Chart, Spec, heading

CHARGES = ("data", "compile")
DARK = ("anneal", "refine", "evaluate", "other")  # with white figures on them
ROOM = 1.17  # of the longest bar, for the figure at its end


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
            {"calculate": f"{ROOM} * datum.longest", "as": "room"},
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
                "mark": {"type": "point", "opacity": 0, "tooltip": None},
                "encoding": {"x": {"aggregate": "max", "field": "room", "type": "quantitative"}},
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
    return Chart(heading(problem, mine), charts.whole(spec, values))
