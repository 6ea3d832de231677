"""The part of the page that has two runs side by side."""

from collections.abc import Sequence

from experiments.harness.presentation.tables import Table
from experiments.report.against import Change, Fact, Sides, sides_of_runs, sides_of_sweeps
from experiments.report.collect import Run, Swept
from experiments.report.parts import Answer, Kind, Part, Section
from experiments.report.run_part import targets
from experiments.report.wording import counted, difference, number

MOST_ANSWERS = 8


def part(before: Run | Swept, after: Run | Swept) -> Part | None:
    """What changed between two runs of one kind; None for two kinds."""
    if isinstance(before, Run) and isinstance(after, Run):
        sides, judged = sides_of_runs(before, after), _targets(before, after)
    elif isinstance(before, Swept) and isinstance(after, Swept):
        sides, judged = sides_of_sweeps(before, after), []
    else:
        return None
    finals = [change for change in sides.changes if change.quantity != "seconds" and change.difference.mean != 0]
    finals.sort(key=lambda change: (not change.difference.is_known, -abs(change.difference.mean)))
    answers = [*judged, *map(_answer, finals[:MOST_ANSWERS])]
    sections = [
        Section("What changed", [_changes(sides)], _NOTE),
        Section("Rows that only one has", _missing(sides), ""),
        Section("What else is not the same", _facts(sides.facts), "Environment, options, configurations.", folded=True),
    ]
    return Part(
        f"{after.name} against {before.name}" if after.name != before.name else f"{after.name}, before and after",
        f"What changed from {before.folder} to {after.folder}?",
        _outcome(sides),
        answers,
        sections=[section for section in sections if section.blocks],
    )


_NOTE = (
    "After minus before. Paired: by seed, where both have the same; unpaired: Welch's interval. Seconds are never "
    "paired: a seed does not decide them, and those of two machines or loads differ for reasons that no interval knows."
    " Of twenty 95 % intervals of no difference, one leaves out 0 by chance."
)


def _outcome(sides: Sides) -> str:
    finals = [change for change in sides.changes if change.quantity != "seconds"]
    same = sum(change.difference.verdict == "the same" for change in finals)
    known = sum(change.difference.is_known for change in finals)
    unclaimed = len(finals) - same - known
    return (
        f"Of {counted(len(finals), 'row')} that both have, {same} are the same, {known} changed beyond noise, "
        f"{unclaimed} changed without such a claim; {len(sides.gone)} are gone, {len(sides.new)} new."
    )


def _targets(before: Run, after: Run) -> list[Answer]:
    """Targets whose verdict changed."""
    old = {answer.text: answer for answer in targets(before.summary)}
    found = []
    for new in targets(after.summary):
        earlier = old.get(new.text)
        if earlier is not None and earlier.kind != new.kind:
            words = {"open": "no verdict"}
            was, now = (words.get(kind, kind) for kind in (earlier.kind, new.kind))
            found.append(Answer(new.kind, f"{new.text}: {was}, now {now}", f"{earlier.value} → {new.value}"))
    return found


def _answer(change: Change) -> Answer:
    found = change.difference
    kind: Kind = "plain" if found.is_known else "open"
    text = f"{' '.join(change.row)}: {change.quantity} {number(change.before)} → {number(change.after)}"
    seeds = counted(found.seeds, "paired seed" if found.paired else "seed")
    return Answer(kind, text, f"{difference(found)}, {seeds}: {found.verdict}")


def _changes(sides: Sides) -> Table:
    header = (*sides.header, "quantity", "before", "after", "change", "seeds", "how", "verdict")
    lines = tuple(
        (
            *change.row,
            change.quantity,
            number(change.before),
            number(change.after),
            difference(change.difference),
            str(change.difference.seeds),
            "paired" if change.difference.paired else "unpaired",
            change.difference.verdict,
        )
        for change in sides.changes
    )
    return Table("Changes", header, lines)


def _missing(sides: Sides) -> list[Table]:
    named = (("only before", sides.gone), ("only after", sides.new))
    return [Table(title, sides.header, rows) for title, rows in named if rows]


def _facts(facts: Sequence[Fact]) -> list[Table]:
    lines = tuple((fact.where, fact.name, fact.before, fact.after) for fact in facts)
    return [Table("Differs", ("of", "name", "before", "after"), lines)] if lines else []
