"""A run's part of the page: targets met and missed, the annealer's own gain, tables, curves, seconds, energies."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness.presentation.tables import Table, tables
from experiments.report import facts
from experiments.report.charts import Chart, Styles
from experiments.report.collect import Run
from experiments.report.curves import curves
from experiments.report.differences import Difference
from experiments.report.energies import energies
from experiments.report.parts import Answer, Kind, Part, Section
from experiments.report.phases import phases
from experiments.report.shares import shares
from experiments.report.wording import counted, difference, joined, mean, number

TARGETS = "Targets"


def part(run: Run, styles: Styles) -> Part:
    """Everything of a run."""
    rows, records = run.summary["rows"], run.records
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    seconds = [phases(problem, rows) for problem in problems]
    curved = [p for p in problems if any(r["problem"] == p and r["outcome"]["timed"]["curve"] for r in records)]
    learned = [curves(problem, records, styles, len(curved)) for problem in curved]
    split = [shares(problem, run.summary["comparisons"]) for problem in problems]
    sampled = [energies(problem, records, styles, len(problems)) for problem in problems]
    made = [table for table in tables(run.summary) if table.title != TARGETS]
    sections = [
        Section("Tables", made, "A click on a column's head sorts by it."),
        Section("What the gain is made of", _known(split)),
        Section("Learning curves", _known(learned)),
        Section("Where the seconds went", _known(seconds), "Phases in the order in which a run goes through them."),
        Section("Energies of the sampled states", _known(sampled)),
        Section("Everything measured", _quantities(rows), "Means over seeds, with their intervals.", folded=True),
    ]
    answers = targets(run.summary) or _ranked(rows)
    return Part(
        run.name,
        _asked(run.summary, problems),
        _outcome(run, answers),
        answers,
        gains(run.summary),
        "The annealer's own gain",
        [section for section in sections if section.blocks],
        facts.of_run(run),
    )


def targets(summary: Mapping[str, Any]) -> list[Answer]:
    """Each target once, with the value that was judged."""
    lines = [line for table in tables(summary) if table.title == TARGETS for line in table.lines]
    return [
        Answer(
            _kind(verdict), f"{problem}: {_said(target)}", value if _kind(verdict) != "open" else f"{value}; {verdict}"
        )
        for problem, target, value, verdict in dict.fromkeys(lines)
    ]


def gains(summary: Mapping[str, Any]) -> list[Answer]:
    """For each problem: the method against its best control, in words."""
    found: dict[str, Answer] = {}
    for one in summary["comparisons"]:
        gain = one["annealer_gain"]
        if not gain["n"] or one["problem"] in found:
            continue
        low, high = gain["interval"]
        entry = Difference(gain["mean"], low, high, gain["kind"], gain["n"], True)
        kind: Kind = "open" if not entry.is_known else "met" if entry.mean > 0 else "missed"
        over = f"{one['problem']}: {one['method']} over {gain['best_control']}, its best control"
        value = f"{difference(entry)} points, {counted(entry.seeds, 'paired seed')}: {entry.verdict}"
        found[one["problem"]] = Answer(kind, over, value)
    return list(found.values())


def _said(target: str) -> str:
    return target.replace(">=", "≥").replace("<=", "≤")


def _kind(verdict: str) -> Kind:
    return "open" if verdict.startswith("no verdict") else "met" if verdict == "met" else "missed"


def _asked(summary: Mapping[str, Any], problems: Sequence[str]) -> str:
    baselines: dict[tuple[str, str], list[str]] = {}
    for one in summary["comparisons"]:
        baselines.setdefault((one["problem"], one["method"]), []).append(one["baseline"])
    if not baselines:
        return f"What does each sampler find on {joined(problems)}, and in how many seconds?"
    methods = list(dict.fromkeys(method for _, method in baselines))
    asked = [f"than {joined(over)} on {problem}" for (problem, _), over in baselines.items()]
    return f"Is {joined(methods)} better {joined(asked)}? And is it the annealer that makes it so?"


def _ranked(rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Without comparisons: each problem's methods by their final."""
    found = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        mine = sorted(
            (row for row in rows if row["problem"] == problem), key=lambda row: -row["results"]["final"]["mean"]
        )
        said = [f"{row['method']} {number(row['results']['final']['mean'])}" for row in mine]
        found.append(Answer("plain", f"{problem}: final %, the highest first", ", ".join(said)))
    return found


def _outcome(run: Run, answers: Sequence[Answer]) -> str:
    planned, done = len(run.config["cells"]), len(run.records)
    runs = f"All {done} runs are finished" if done == planned else f"Only {done} of {planned} runs are finished"
    if not run.summary["comparisons"]:
        return f"{runs}."
    count = {kind: sum(answer.kind == kind for answer in answers) for kind in ("met", "missed", "open")}
    said = f"{runs}. {count['met']} of {counted(len(answers), 'target')} met, {count['missed'] or 'none'} missed"
    return said + (f", {count['open']} without a verdict." if count["open"] else ".")


def _quantities(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table for all rows that have the same quantities."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        names = tuple(name for name, entry in row["results"].items() if entry.get("mean") is not None)
        groups.setdefault(names, []).append(row)
    made = []
    for names, mine in groups.items():
        lines = tuple((row["problem"], row["method"], *(mean(row["results"][name]) for name in names)) for row in mine)
        title = joined(list(dict.fromkeys(row["problem"] for row in mine)))
        made.append(Table(title, ("problem", "method", *names), lines))
    return made


def _known(made: Sequence[Chart | None]) -> list[Chart]:
    return [chart for chart in made if chart is not None]
