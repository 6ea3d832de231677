"""`python -m experiments --help` and `list`: what there is, before anything is loaded."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import tyro
from rich.console import Console

from experiments.commandline.parsing import PROGRAM, about, no_such
from experiments.commandline.registry import EXPERIMENTS, cells_by_experiment
from experiments.harness.presentation.cells import Cell, Scale, UsageError
from experiments.harness.presentation.terminal import say

EXIT_CODES = (
    (0, "done; a target that was missed is a result, not an error (summary.json has it)"),
    (1, "an error that one line explains; a traceback is a mistake of ours"),
    (2, "options that are not understood"),
    (130, "interrupted; the same command resumes where cells are kept"),
)


@dataclass(frozen=True)
class Listing:
    """The options of `list`."""

    experiment: tyro.conf.Positional[str] = ""
    """The problems and methods of this one; all experiments if not given."""
    smoke: bool = False
    """Those of its --smoke."""
    full: bool = False
    """Those of its --full."""

    @property
    def scale(self) -> Scale:
        if self.smoke and self.full:
            raise UsageError("--smoke and --full exclude each other")
        return "smoke" if self.smoke else "full" if self.full else "default"


def show_help(console: Console) -> None:
    """What `python -m experiments --help` prints."""
    say(console, f"usage: {PROGRAM} NAME [options]\n\nNAME --help has the options of one, with an example.\n")
    show(Listing(), console)
    say(console, "\nexit codes:")
    for code, meaning in EXIT_CODES:
        say(console, f"  {code:<4} {meaning}")


def show(listing: Listing, console: Console) -> None:
    """What `list` prints. Errors: UsageError for an unknown experiment."""
    name = listing.experiment
    if not name:
        for experiment in EXPERIMENTS.values():
            say(console, f"{experiment.name:<15} {experiment.asks}\n{'':<15} {experiment.cost}")
        say(console, f"{'list [NAME]':<15} these, or the problems and methods of one")
        return
    if name not in EXPERIMENTS:
        raise no_such("experiment", name, EXPERIMENTS)
    say(console, about(EXPERIMENTS[name]))
    if (cells := cells_by_experiment().get(name)) is not None:
        say(console, f"\nproblems and methods ({listing.scale}):")
        for line in problems(cells(listing.scale)):
            say(console, line)


def problems(cells: Iterable[Cell]) -> list[str]:
    """Problems with their methods, those that have the same ones together."""
    methods: dict[str, list[str]] = {}
    for cell in cells:
        found = methods.setdefault(cell.problem, [])
        if cell.method not in found:
            found.append(cell.method)
    groups: dict[tuple[str, ...], list[str]] = {}
    for problem, found in methods.items():
        groups.setdefault(tuple(found), []).append(problem)
    lines = []
    for of_them, names in groups.items():
        lines += textwrap.wrap(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ")
        lines += textwrap.wrap(", ".join(of_them), 100, initial_indent="      ", subsequent_indent="      ")
    return lines
