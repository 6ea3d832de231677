"""What `solvers` reports of its cells.

gap           100 |reference - objective| / |reference| percent; negative where the reference was beaten
seconds_to    median over repeats of the first second at which a run's best is as good as the best peer's median, or
              as the best known; a run that never gets there counts as infinite, so None where half or more do not
TTS99         t max(1, ln 0.01 / ln(1 - p)) at the second t where that is least, p the share of repeats that reached the
              reference by t. p has Clopper and Pearson's exact interval (at least 95 % for any p and any number of
              repeats), whose ends give that of TTS99; the choice of t is not part of it. Where none did, there is no
              TTS99, and its interval's lower end is that of p's upper end at the last second of the shortest run
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.presentation.intervals import share_interval
from experiments.harness.presentation.tables import Table, number, preamble
from experiments.solvers.instances.problem import Instance
from experiments.solvers.peers import PACKAGES

Record = Mapping[str, Any]
REFERENCE = "reference"


def summary(
    records: Sequence[Record], problems: Sequence[Instance], environment: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """The content of summary.json: {"environment", "rows", "against_peers"}; seconds: those that each run was given."""
    rows, found = [], grouped(records)
    for problem in problems:
        mine = found.get(problem.name, {})
        groups = {method: group for method, group in mine.items() if method != REFERENCE}
        if not groups:
            continue
        reference = reference_of(problem, [record for group in mine.values() for record in group])
        finals = {m: float(np.median([_final(r) for r in group])) for m, group in groups.items()}
        best_peer = max((final for m, final in finals.items() if m in PACKAGES), default=None)
        rows += [_row(problem, method, group, reference, best_peer) for method, group in groups.items()]
    return {"environment": dict(environment), "rows": rows, "against_peers": against_peers(rows, seconds)}


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """Records by instance and sampler, in the order of their first."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        found.setdefault(record["problem"], {}).setdefault(record["method"], []).append(record)
    return found


def reference_of(problem: Instance, records: Sequence[Record]) -> float:
    """Minus the energy that gaps are counted to: the best known, else the best that any run found."""
    if problem.best_known is not None:
        return -problem.sense * problem.best_known
    return max(_final(record) for record in records)


def _row(
    problem: Instance, method: str, group: Sequence[Record], reference: float, best_peer: float | None
) -> dict[str, Any]:
    finals = [_final(r) for r in group]
    curves = [_timed(r)["curve"] for r in group]
    median = float(np.median(finals))
    rates = [rate for r in group if (rate := _timed(r)["proposals_per_second"]) is not None]
    return {
        "instance": problem.name,
        "bits": problem.qubo.num_bits,
        "sense": problem.sense,
        "sampler": method,
        "blocks": group[0]["outcome"]["results"].get("blocks"),
        "groups": group[0]["outcome"]["results"].get("groups"),
        "repeats": len(group),
        "reads": group[0]["outcome"]["results"]["reads"],
        "best": problem.objective(-max(finals)),
        "best_known": problem.best_known,
        "reference": problem.objective(-reference),
        "median": problem.objective(-median),
        "gap": gap(max(finals), reference),
        "median_gap": gap(median, reference),
        "feasible": _feasible(group),
        "seconds_to": {
            "best_peer_median": None if best_peer is None else _median_seconds(curves, best_peer),
            "best_known": _median_seconds(curves, reference),
        },
        "tts99": tts99(
            [first_second(curve, reference) for curve in curves], min(_timed(r)["phases"]["anneal"] for r in group)
        ),
        "proposals_per_second": float(np.median(rates)) if rates else None,
        "compile_seconds": float(np.median([_timed(r)["phases"]["compile"] for r in group])),
        "seconds": float(np.median([_timed(r)["phases"]["anneal"] for r in group])),
    }


def _feasible(group: Sequence[Record]) -> float | None:
    """The share of repeats whose best state is inside the blocks, None where all states are meant."""
    found = [r["outcome"]["results"].get("feasible") for r in group]
    return None if None in found else float(np.mean(found))


def against_peers(rows: Sequence[Mapping[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Each sampler of ours beside the best peer on the same instance: {"instance", "sampler", "peer", "peer_gap",
    "median_gap", "not_worse", "share"}. The best peer has the least median gap, and of equals was there first. share:
    the part of those seconds after which our median run was as good as that peer at its end, None for never.
    """
    found = []
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["instance"], []).append(row)
    for instance, group in groups.items():
        rivals = [row for row in group if row["sampler"] in PACKAGES]
        if not rivals:
            continue
        best = min(rivals, key=lambda row: (row["median_gap"], row["seconds_to"]["best_peer_median"] or math.inf))
        for row in group:
            if row not in rivals:
                second = row["seconds_to"]["best_peer_median"]
                entry = {"instance": instance, "sampler": row["sampler"], "peer": best["sampler"]}
                entry |= {"peer_gap": best["median_gap"], "median_gap": row["median_gap"]}
                # In percent; float32 energies are equal to 1e-6.
                entry |= {"not_worse": row["median_gap"] <= best["median_gap"] + 1e-4}
                found.append(entry | {"share": None if second is None else second / seconds})
    return found


def gap(value: float, reference: float) -> float:
    """Percent by which a value (higher is better) stays below the reference."""
    return 100 * (reference - value) / (abs(reference) or 1.0)


def first_second(curve: Sequence[Sequence[float]], level: float) -> float | None:
    """When a run's best first was at `level`, None where it never was; float32 energies are equal to 1e-6."""
    slack = 1e-6 * abs(level)
    return next((second for second, value in curve if value >= level - slack), None)


def tts99(seconds: Sequence[float | None], spent: float) -> dict[str, Any]:
    """Time to a solution with 99 % certainty, from the seconds of independent runs (None: not reached within `spent`).

    {"seconds", "interval", "second", "hits", "repeats", "p", "p_interval"}; without a hit `seconds` and the upper end
    are None, and `second` is `spent`.
    """
    repeats = len(seconds)
    reached = enumerate(sorted(second for second in seconds if second is not None), 1)
    found = [(second * _runs(k / repeats), second, k) for k, second in reached]
    least, second, hits = min(found) if found else (None, spent, 0)
    p = share_interval(hits, repeats)
    return {
        "seconds": least,
        "interval": [second * _runs(p.high), second * _runs(p.low) if hits else None],
        "second": second,
        "hits": hits,
        "repeats": repeats,
        "p": hits / repeats,
        "p_interval": [p.low, p.high],
    }


def _runs(share: float) -> float:
    """How many runs of that success reach 99 %, at least one."""
    return 1.0 if share == 1 else max(1.0, math.log(0.01) / math.log1p(-share))


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """One line per row of the summary, one per sampler of ours beside the best peer, TTS99."""
    names = "instance,sampler,groups,best known,best,median,median gap %,s to best peer,s to best known"
    header = (*names.split(","), "M proposals/s", "compile s")
    lines = []
    for row in summary["rows"]:
        to, rate = row["seconds_to"], row["proposals_per_second"]
        lines.append(
            (
                row["instance"],
                row["sampler"],
                f"{row['blocks']}: {row['groups']}" if row["groups"] else "-",
                _value(row["best_known"]),
                _value(row["best"]),
                _value(row["median"]),
                number(row["median_gap"], 3),
                number(to["best_peer_median"], 2),
                number(to["best_known"], 2),
                number(None if rate is None else rate / 1e6, 0),
                number(row["compile_seconds"], 1),
            )
        )
    beside = tuple(
        (
            *(entry["instance"], entry["sampler"], entry["peer"]),
            *(number(entry["peer_gap"], 3), number(entry["median_gap"], 3)),
            *("yes" if entry["not_worse"] else "no", number(entry["share"], 3)),
        )
        for entry in summary["against_peers"]
    )
    names = "instance,sampler,best peer,its median gap %,own median gap %,not worse,share of the seconds to its median"
    made = [Table("Solvers at equal wall-clock", header, tuple(lines))]
    made += [Table("Beside the best peer", tuple(names.split(",")), beside)] if beside else []
    return [*made, _solutions(summary["rows"])]


def markdown(summary: Mapping[str, Any]) -> str:
    """summary.md: where it ran, the table, how to read it."""
    notes = [
        "Objectives are the files' own. Without a best known, gaps and the seconds to it are to the best value that",
        "any run found. Seconds leave out compilation, which has a column of its own, and the peers' building of",
        "models and starting of processes. A dash: not reached by half of the repeats or more, or no peer to compare",
        "with. TTS99 is t max(1, ln 0.01 / ln(1 - p)) for the share p of repeats that got there by the second t at",
        "which it is least. Brackets hold the exact interval of p (Clopper and Pearson), at least 95 %, and what its",
        "ends make of TTS99 at that t. Where no repeat got there, TTS99 is above the bound of p's upper end.",
        "Groups of bits (one-hot, assignments) were given to the sampler, or found in the plain model, whose penalties",
        "keep them as well; the seconds of NAME+found include the search. An objective of bits that break a group is",
        "their energy, penalties included: `feasible` in summary.json is the share of repeats whose best breaks none.",
        "Proposals are bits x reads x sweeps, or steps where a sampler makes no sweeps.",
        "",
    ]
    parts = [table.markdown() for table in tables(summary)]
    return "\n".join([*preamble("Solvers", summary["environment"]), "", *parts, *notes])


def _median_seconds(curves: Sequence[Any], level: float) -> float | None:
    seconds = [first_second(curve, level) for curve in curves]
    median = float(np.median([math.inf if s is None else s for s in seconds]))
    return median if math.isfinite(median) else None


def _solutions(rows: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for row in rows:
        tts = row["tts99"]
        share = f"{tts['hits']}/{tts['repeats']} [{tts['p_interval'][0]:.2f}, {tts['p_interval'][1]:.2f}]"
        low, high = (number(end, 2) for end in tts["interval"])
        found = f"not reached, > {low}" if tts["seconds"] is None else f"{number(tts['seconds'], 2)} [{low}, {high}]"
        lines.append(
            (row["instance"], row["sampler"], _value(row["reference"]), number(tts["second"], 2), share, found)
        )
    header = ("instance", "sampler", "reference", "t s", "p: repeats there by t", "TTS99 s")
    return Table("Time to the reference with 99 % certainty", header, tuple(lines))


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}" if value == round(value) else f"{value:.6g}"


def _final(record: Record) -> float:
    return float(record["outcome"]["results"]["final"])


def _timed(record: Record) -> Mapping[str, Any]:
    timed: Mapping[str, Any] = record["outcome"]["timed"]
    return timed
