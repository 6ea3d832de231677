"""What gains are made of: a bar per comparison, its shares to either side of zero, as `figures.shares` draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness.presentation.figures import SHARE_COLOURS
from experiments.harness.presentation.tables import with_interval
from experiments.report import charts
from experiments.report.charts import Chart, Spec

MOMENTS = {"at the end": "final_gain", "at the baseline's last second": "gain"}


def shares(problem: str, compared: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The comparisons of this problem whose gain is split; None where there are none."""
    split = [one for one in compared if one["problem"] == problem and one.get("shares")]
    if not split:
        return None
    values = [
        {"pair": pair, "moment": moment, "share": part["label"], "points": round(part[kind]["mean"], 4), "order": order}
        | {"of": f"{part['method']} - {part['minus']}", "said": with_interval(part[kind], "mean", 2, sign=True)}
        | {"whole": round(one["shares"][kind]["mean"], 4), "seeds": part[kind]["n"]}
        for one in split
        for pair in [f"{one['method']} over {one['baseline']}"]
        for moment, kind in MOMENTS.items()
        for order, part in enumerate(one["shares"]["parts"])
        if part[kind]["n"]
    ]
    labels = list(dict.fromkeys(value["share"] for value in values))
    y = {"field": "pair", "type": "nominal", "title": None, "sort": list(dict.fromkeys(v["pair"] for v in values))}
    x = {"field": "points", "type": "quantitative", "stack": "zero", "title": "points of accuracy"}
    scale = {"domain": labels, "range": list(SHARE_COLOURS[: len(labels)])}
    colour: Spec = {"field": "share", "type": "nominal", "scale": scale, "title": None}
    tooltip = [{"field": name} for name in ("pair", "share", "of", "said", "seeds")]
    spec: Spec = {
        "height": 2 * charts.ROW * len(split),
        "params": [charts.choice("moment", "gain ", list(MOMENTS))],
        "transform": [{"filter": "datum.moment == moment"}],
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "bar", "stroke": charts.INK, "strokeWidth": 0.4, "strokeOpacity": 0.5, "height": 24},
                "encoding": {"x": x, "order": {"field": "order"}, "color": colour, "tooltip": tooltip},
            },
            {
                "mark": {"type": "text", "color": "black"},
                "encoding": {
                    "x": {**x, "bandPosition": 0.5},
                    "order": {"field": "order"},
                    "detail": {"field": "share"},
                    "text": {"field": "points", "format": "+.2f"},
                },
            },
            {
                "mark": {
                    "type": "point",
                    "shape": "diamond",
                    "filled": True,
                    "opacity": 1,
                    "size": 60,
                    "color": charts.INK,
                },
                "encoding": {"x": {"aggregate": "max", "field": "whole", "type": "quantitative"}},
            },
            {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {"x": {"datum": 0}, "y": None}},
        ],
    }
    note = "The diamond is the whole gain, which the shares add up to; losses are drawn left of zero."
    return Chart(problem, charts.whole(spec, values), note)
