"""A sweep's part of the page: what its fields do to the objective, problem by problem and method by method."""

import statistics
from collections.abc import Mapping, Sequence

from experiments.harness.presentation.intervals import mean_interval
from experiments.harness.presentation.tables import Table
from experiments.report import anova, effects, facts, importance, sweep_charts
from experiments.report.charts import Chart
from experiments.report.collect import Row, Swept
from experiments.report.effects import Pair
from experiments.report.parallel import parallel
from experiments.report.parts import Answer, Kind, Part, Section
from experiments.report.wording import between, counted, difference, joined, number, shown
from experiments.sweeps.results import by_seed

CHANCE = "Of twenty 95 % intervals of no difference, one leaves out 0 by chance."
MOST_BARS = 40
MOST_LINES = 1200  # of all charts of a sweep: points, some 200 bytes a field
MOST_POINTS = 1000  # of a table


def part(sweep: Swept) -> Part:
    """Everything of a sweep. Each problem and method is looked at alone, if the fields touch it and do not name it."""
    short = short_names([*sweep.axes, "method"])
    groups: dict[tuple[str, str], list[Row]] = {}
    kinds = effects.unnamed(sweep.rows, sweep.axes, ("problem", "method"))
    for row in sweep.rows:
        problem, method = (row[kind] if kind in kinds else "" for kind in ("problem", "method"))
        groups.setdefault((problem, method), []).append(row)
    touched = {name: rows for name, rows in groups.items() if effects.is_touched(rows, sweep.axes, sweep.objective)}
    answers, sections = [_complete(sweep)], []
    most = max(min(MOST_LINES // len(touched or groups), MOST_LINES // 4), 20)
    for (problem, method), rows in (touched or groups).items():
        name = ", ".join(filter(None, (problem, method))) or sweep.objective
        found, said = _alone(sweep, name, rows, short, most)
        sections += found
        answers += said
    gains: list[Answer] = []
    for problem in dict.fromkeys(row["problem"] for row in sweep.rows if "method" in kinds):
        mine = [row for row in sweep.rows if row["problem"] == problem]
        found, said = _methods(sweep, problem, mine, short)
        sections += found
        gains += said
    sections.append(Section("All points", [_points(sweep, short)], "Means over seeds, with their intervals."))
    title = "Method against method, over all points" if gains else ""
    return Part(sweep.name, _asked(sweep), _outcome(sweep), answers, gains, title, sections, facts.of_sweep(sweep))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each dotted name by as few of its last parts as tell it from the others."""
    found = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[-size:]) for size in range(1, len(parts) + 1))
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1)
        found[name] = next(alone, name)
    return found


def _alone(
    sweep: Swept, name: str, rows: list[Row], short: Mapping[str, str], most: int
) -> tuple[list[Section], list[Answer]]:
    """Sections and answers of one problem and method; most: lines of its charts, the best points."""
    axes, objective = sweep.axes, sweep.objective
    ranges = [axis for axis, _, is_range in sweep.plan["axes"] if is_range]
    listed = [axis for axis in axes if axis not in ranges]
    points = [
        (dict(zip(axes, point, strict=True)), statistics.fmean(by_seed(group, objective).values()))
        for point, group in effects.by_point(rows, axes).items()
    ]
    points.sort(key=lambda point: -sweep.sign * point[1])
    levels = effects.main_effects(rows, listed, objective)
    pairs = []
    for field in listed:
        others = [axis for axis in axes if axis != field]
        pairs += effects.paired_differences(rows, field, others, objective, sweep.sign)
    blocks: list[Chart | Table] = []
    if levels:
        blocks += [sweep_charts.main_effects(levels, objective, short)]
    if pairs:
        blocks += [sweep_charts.differences("Paired differences", pairs[:MOST_BARS], objective, short)]
    explained, said = _explained(sweep, name, rows, short)
    blocks += explained
    together, depends = _together(sweep, name, rows, short)
    if ranges:
        blocks.append(sweep_charts.slices(points[:most], ranges, objective, short))
    if len(points) > 1:
        blocks.append(parallel(points[:most], objective, sweep.sign, short))
    if pairs:
        blocks.append(_pairs_table(pairs, objective, short))
    blocks += together
    note = f"Every number is averaged over the other fields within a seed; its interval is one over seeds. {CHANCE}"
    if ranges:
        note += " Of a search, over the points that it drew, which are others for every value."
    best = ", ".join(f"{short[axis]} {shown(value)}" for axis, value in points[0][0].items())
    answers = [Answer("plain", f"{name}: best point, {best}", f"{objective} {number(points[0][1])}"), *said, *depends]
    answers += [_largest(name, field, pairs, short) for field in listed if any(pair.field == field for pair in pairs)]
    return [Section(name, blocks, note)], answers


def _explained(
    sweep: Swept, name: str, rows: list[Row], short: Mapping[str, str]
) -> tuple[list[Chart | Table], list[Answer]]:
    """Exact for a complete grid, fitted for a search."""
    if sweep.plan["search"] != "grid":
        found = importance.importances(rows, sweep.plan)
        return ([sweep_charts.importances(found, short)] if found else []), []
    shares = anova.decomposition(rows, sweep.axes, sweep.objective)
    if shares is None:
        return [], []
    first = shares.components[0]
    fields = " × ".join(short[field] for field in first.fields)
    explained = 100 * (1 - shares.seeds - shares.noise)
    most = f" (most: {fields}, {100 * first.share:.0f} %)" if len(shares.components) > 1 else ""
    noise = f"seeds {100 * shares.seeds:.0f} %, noise {100 * shares.noise:.0f} %"
    if len({row["seed"] for row in rows}) == 1:
        noise = "with the noise in it, which one seed does not show"
    value = f"{explained:.0f} %{most}; {noise}"
    text = f"{name}: of the variance, the fields explain"
    return [sweep_charts.shares(shares, short)], [Answer("plain", text, value)]


def _together(
    sweep: Swept, name: str, rows: list[Row], short: Mapping[str, str]
) -> tuple[list[Chart | Table], list[Answer]]:
    """Where what a field does depends on another one, its differences at each value of that one. Of complete grids."""
    shares = anova.decomposition(rows, sweep.axes, sweep.objective) if sweep.plan["search"] == "grid" else None
    tables: list[Chart | Table] = []
    answers = []
    for field, of, share in shares.together() if shares is not None else ():
        others = [axis for axis in sweep.axes if axis != field]
        found = effects.at_each_value(rows, field, of, others, sweep.objective, sweep.sign)
        lines = tuple((value, f"{pair.after} − {pair.before}", *_shown(pair)) for value, pair in found[:MOST_POINTS])
        tables.append(Table(f"{short[field]} at each {short[of]}", (short[of], short[field], *SHOWN_HEAD), lines))
        text = f"{name}: what {short[field]} does depends on {short[of]}"
        answers.append(Answer("plain", text, f"{100 * share:.1f} % of the variance; the table has it by {short[of]}"))
    return tables, answers


def _methods(
    sweep: Swept, problem: str, rows: list[Row], short: Mapping[str, str]
) -> tuple[list[Section], list[Answer]]:
    """The hybrid method (else the last) against each other one, point by point and over all points."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if len(methods) < 2:
        return [], []
    last = "hybrid" if "hybrid" in methods else methods[-1]
    gains, named = [], []
    for other in (method for method in methods if method != last):
        both = [row for method in (other, last) for row in rows if row["method"] == method]
        for pair in effects.paired_differences(both, "method", sweep.axes, sweep.objective):
            kind: Kind = (
                "open" if not pair.difference.is_known else "met" if sweep.sign * pair.difference.mean > 0 else "missed"
            )
            seeds = counted(pair.difference.seeds, "paired seed")
            value = f"{difference(pair.difference)}, {seeds}: {pair.difference.verdict}"
            gains.append(Answer(kind, f"{problem}: {last} over {other}", value))
        for point, group in effects.by_point(both, sweep.axes).items():
            named += [
                (", ".join(map(shown, point)), pair)
                for pair in effects.paired_differences(group, "method", [], sweep.objective)
            ]
    lines = tuple((at, f"{pair.after} − {pair.before}", *_shown(pair)) for at, pair in named[:MOST_POINTS])
    fields = ", ".join(short[axis] for axis in sweep.axes)
    table = Table("Method against method", (fields, "methods", *SHOWN_HEAD), lines)
    blocks: list[Chart | Table] = [table]
    if len(named) <= MOST_BARS:
        blocks.insert(0, sweep_charts.method_gains(named, sweep.objective))
    return [Section(f"{problem}: {last} against the others", blocks, f"By seed, at each point: {fields}.")], gains


SHOWN_HEAD = ("difference", "pairs", "seeds", "verdict")


def _shown(pair: Pair) -> tuple[str, str, str, str]:
    found = pair.difference
    return difference(found), str(pair.pairs), str(found.seeds), found.verdict


def _pairs_table(pairs: Sequence[Pair], objective: str, short: Mapping[str, str]) -> Table:
    lines = tuple((short[pair.field], pair.before, pair.after, *_shown(pair)) for pair in pairs)
    return Table(f"Paired differences of {objective}", ("field", "from", "to", *SHOWN_HEAD), lines)


def _points(sweep: Swept, short: Mapping[str, str]) -> Table:
    """The best first."""
    fields = [*sweep.axes, "problem", "method"]
    lines: list[tuple[float, tuple[str, ...]]] = []
    for point, group in effects.by_point(sweep.rows, fields).items():
        values = list(by_seed(group, sweep.objective).values())
        mean, interval = statistics.fmean(values), mean_interval(values)
        ends = f" {between(interval.low, interval.high)}" if len(values) > 1 else ""
        seconds = statistics.median(float(row["seconds"]) for row in group)
        texts = (*map(shown, point), str(len(values)), f"{number(mean)}{ends}", f"{seconds:.2f}")
        lines.append((-sweep.sign * mean, texts))
    header = (*(short[axis] for axis in sweep.axes), "problem", "method", "seeds", sweep.objective, "seconds")
    ordered = [line for _, line in sorted(lines, key=lambda line: line[0])]
    title = "Points, the best first"
    if len(ordered) > MOST_POINTS:
        title += f": {MOST_POINTS} of {len(ordered)}; results.csv has them all"
    return Table(title, header, tuple(ordered[:MOST_POINTS]))


def _largest(name: str, field: str, pairs: Sequence[Pair], short: Mapping[str, str]) -> Answer:
    pair = max((pair for pair in pairs if pair.field == field), key=lambda pair: abs(pair.difference.mean))
    text = f"{name}: {short[field]} {pair.after} − {pair.before}"
    seeds = counted(pair.difference.seeds, "paired seed")
    return Answer(
        "plain" if pair.difference.is_known or pair.difference.is_same else "open",
        text,
        f"{difference(pair.difference)}, {seeds}: {pair.difference.verdict}",
    )


def _complete(sweep: Swept) -> Answer:
    points = len(effects.by_point(sweep.rows, sweep.axes))
    done = len({(*(row[axis] for axis in sweep.axes), row["seed"]) for row in sweep.rows})
    if sweep.plan["search"] == "grid":
        wanted = int(sweep.plan["trials"])
        return Answer("met" if done == wanted else "missed", "trials complete", f"{done} of {wanted}")
    return Answer("plain", f"points that {sweep.plan['search']} drew, complete", str(points))


def _asked(sweep: Swept) -> str:
    axes = [
        f"{name} ({values[0]} to {values[1]})" if is_range else f"{name} ({', '.join(map(str, values))})"
        for name, values, is_range in sweep.plan["axes"]
    ]
    problems, methods = (joined(list(dict.fromkeys(row[k] for row in sweep.rows))) for k in ("problem", "method"))
    verb = "do" if len(axes) > 1 else "does"
    better = "more" if sweep.sign > 0 else "less"
    return f"What {verb} {joined(axes)} do to {sweep.objective} ({better} is better) on {problems}, with {methods}?"


def _outcome(sweep: Swept) -> str:
    points, seeds = len(effects.by_point(sweep.rows, sweep.axes)), len(sweep.plan["seeds"])
    kind = "A grid" if sweep.plan["search"] == "grid" else f"A search by {sweep.plan['search']}"
    return f"{kind} of {counted(points, 'point')} and {counted(seeds, 'seed')}, {counted(len(sweep.rows), 'row')}."
