"""Histograms of the energies of sampled states: the annealer beside its controls."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness.presentation.figures import energy_bins
from experiments.report import charts
from experiments.report.charts import Chart, Record, Spec, Styles, by_method, heading

MOST_CHOICES = 40  # charts times seeds of a page, some 15 kB each
MOST_SEEDS = 10
MOST_ENERGIES = 50_000


def energies(problem: str, records: Sequence[Record], styles: Styles, panels: int = 1) -> Chart | None:
    """Energies of the sampled states on common bins, one seed at a time, because seeds have other problems.

    panels: how many such charts the page has; the more, the fewer seeds each shows.
    """
    mine = [r for r in records if r["problem"] == problem and r["outcome"]["results"].get("sampled_energies")]
    seeds = sorted({record["seed"] for record in mine})[: min(max(MOST_CHOICES // panels, 1), MOST_SEEDS)]
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
    methods = list(by_method(mine))
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
    return Chart(heading(problem, mine), charts.whole(spec, values))


def is_drawn(record: Record) -> bool:
    """Whether a chart shows this record in its method's colour."""
    return bool(record["outcome"]["timed"]["curve"] or record["outcome"]["results"].get("sampled_energies"))
