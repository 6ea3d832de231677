"""`python -m experiments report [RESULTS ...] [--against RESULTS] [--out FILE]`."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from experiments.harness.presentation.cells import UsageError, plain_errors, write_atomic
from experiments.harness.presentation.terminal import written
from experiments.report import against_part, run_part, sweep_part
from experiments.report.charts import styles_of
from experiments.report.collect import Run, Swept, collected
from experiments.report.energies import is_drawn
from experiments.report.options import Report
from experiments.report.page import page
from experiments.report.parts import Part
from experiments.report.wording import joined

DEFAULT = Path("results")
Found = list[Run | Swept]


def run(config: Report, console: Console) -> Path:
    """Writes the page; returns its path. Errors: UsageError, StoreError, one line each."""

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    found = collected(config.results or (DEFAULT,), say)
    parts = _compared(collected((config.against,), say), found, say) if config.against is not None else []
    records = [record for one in found if isinstance(one, Run) for record in one.records]
    # Those that charts draw in their colours come first: colours are few.
    drawn = sorted(records, key=lambda record: not is_drawn(record))
    styles = styles_of(dict.fromkeys(record["method"] for record in drawn))
    parts += [run_part.part(one, styles) if isinstance(one, Run) else sweep_part.part(one) for one in found]
    title = joined([one.name for one in found]) + (f", against {config.against}" if config.against is not None else "")
    text = page(f"Results: {title}", parts, _command(config))
    with plain_errors(config.out.parent):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(config.out, text)
    written(console, config.out)
    say(f"{len(text.encode()) / 1e6:.1f} MB")
    return config.out


def _command(config: Report) -> str:
    against = [] if config.against is None else ["--against", config.against]
    return " ".join(map(str, ["python -m experiments report", *config.results, *against, "--out", config.out]))


def _compared(earlier: Found, found: Found, say: Callable[[str], None]) -> list[Part]:
    """Each result beside the earlier one of its name; a single one beside a single one, whatever they are called."""
    parts = []
    for now in found:
        same = earlier if len(found) == len(earlier) == 1 else [one for one in earlier if one.name == now.name]
        part = against_part.part(same[0], now) if same else None
        if part is None:
            say(f"{now.folder}: nothing in --against to compare it with")
        else:
            parts.append(part)
    if not parts:
        raise UsageError("--against has nothing of the same kind and name")
    return parts
