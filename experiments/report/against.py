"""Two runs side by side: for each row what changed, by how much, and whether seeds alone explain it."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.report.collect import Row, Run, Swept
from experiments.report.differences import BySeed, Difference, difference

Name = tuple[str, ...]
Side = Mapping[tuple[Name, str], BySeed]


@dataclass(frozen=True)
class Change:
    """A quantity of a row, before and after."""

    row: Name
    quantity: str
    before: float
    after: float
    difference: Difference


@dataclass(frozen=True)
class Fact:
    """Something of the environment, the options or a configuration that is not the same."""

    where: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Sides:
    """All of both: rows that only one of them has, changes of the others, facts that differ."""

    header: tuple[str, ...]
    changes: tuple[Change, ...]
    gone: tuple[Name, ...]
    new: tuple[Name, ...]
    facts: tuple[Fact, ...]


def sides_of_runs(before: Run, after: Run) -> Sides:
    """Finals and seconds of every problem and method."""
    facts = [*_differing("environment", before.environment, after.environment), *_options(before, after)]
    return _sides(("problem", "method"), _run_values(before), _run_values(after), facts)


def sides_of_sweeps(before: Swept, after: Swept) -> Sides:
    """The objective and the seconds of every point, problem and method."""
    facts = [
        *_differing("environment", before.environment, after.environment),
        *_differing("plan", before.plan, after.plan),
    ]
    names = [*dict.fromkeys([*after.axes, *before.axes]), "problem", "method"]
    return _sides(tuple(names), _sweep_values(before, names), _sweep_values(after, names), facts)


def _sides(header: tuple[str, ...], old: Side, new: Side, facts: list[Fact]) -> Sides:
    rows = [list(dict.fromkeys(name for name, _ in side)) for side in (old, new)]
    changes = []
    for (name, quantity), after in new.items():
        if before := old.get((name, quantity)):
            shares = quantity == "final" and {*before.values(), *after.values()} <= {0.0, 100.0}
            old_mean, new_mean = (statistics.fmean(side.values()) for side in (before, after))
            found = difference(before, after, shares, quantity != "seconds")
            changes.append(Change(name, quantity, old_mean, new_mean, found))
    gone = tuple(name for name in rows[0] if name not in rows[1])
    return Sides(header, tuple(changes), gone, tuple(name for name in rows[1] if name not in rows[0]), tuple(facts))


def _run_values(run: Run) -> Side:
    found: dict[tuple[Name, str], dict[int, float]] = {}
    for row in run.summary["rows"]:
        values = zip(row["seeds"], row["results"]["final"]["values"], strict=True)
        found[(row["problem"], row["method"]), "final"] = dict(values)
    for record in run.records:
        name = (record["problem"], record["method"])
        found.setdefault((name, "seconds"), {})[record["seed"]] = record["outcome"]["timed"]["seconds"]
    return found


def _sweep_values(sweep: Swept, names: list[str]) -> Side:
    found: dict[tuple[Name, str], dict[int, float]] = {}
    for quantity in dict.fromkeys((sweep.objective, "seconds")):
        for row in sweep.rows:
            name = _name(row, names)
            found.setdefault((name, quantity), {})[row["seed"]] = float(row[quantity])
    return found


def _name(row: Row, names: list[str]) -> Name:
    return tuple(str(row.get(name, "-")) for name in names)


def _options(before: Run, after: Run) -> list[Fact]:
    """The command's options, and each row's configuration."""
    found = _differing("options", before.config["options"], after.config["options"])
    old, new = _configurations(before), _configurations(after)
    for name in (name for name in new if name in old):
        found += _differing(" ".join(name), old[name], new[name])
    return found


def _configurations(run: Run) -> dict[Name, Mapping[str, Any]]:
    return {(cell["problem"], cell["method"]): cell["config"] for cell in reversed(run.config["cells"])}


def _differing(where: str, before: Any, after: Any) -> list[Fact]:
    old, new = dict(_leaves(before)), dict(_leaves(after))
    names = [*old, *(name for name in new if name not in old)]
    return [
        Fact(where, name, old.get(name, "-"), new.get(name, "-"))
        for name in names
        if old.get(name, "-") != new.get(name, "-")
    ]


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, "-" if tree is None else str(tree)
