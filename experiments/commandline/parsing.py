"""Options by tyro, from dataclasses; its mistakes in one line, with the nearest name.

tyro draws a box for what it cannot read. Here the box's first part is the line; unknown options never reach it.
"""

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import tyro

from experiments.commandline.registry import Experiment
from experiments.harness.presentation.cells import UsageError
from experiments.harness.presentation.terminal import Flat

Options = TypeVar("Options")
PROGRAM = "python -m experiments"
# The command that completions are for: shells complete one word, not `python -m experiments` (experiments/README.md).
COMPLETED = "experiments"
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
SHELLS = ("bash", "zsh", "tcsh", "fish")
_CONFIG = (tyro.conf.FlagCreatePairsOff,)
_POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]
_RULE = re.compile(r"[─-]{5,}")
_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of (\(.*\))\.")


@dataclass(frozen=True)
class Given(Generic[Options]):
    """The options of an experiment, and the one that all of them have."""

    options: Annotated[Options, Flat]
    quiet: bool = False
    """Print errors and the paths of what was written, nothing else."""


def given(experiment: Experiment, arguments: Sequence[str]) -> Given[Any]:
    """The options of an experiment as these arguments give them. Errors: UsageError; SystemExit(0) after --help."""
    kind = given_kind(experiment)
    described = [about(experiment), *(inspect.getdoc(innermost(kind)) or "").split("\n\n")[1:]]
    found: Given[Any] = parsed(kind, experiment.name, arguments, "\n\n".join(described))
    return found


def given_kind(experiment: Experiment) -> Any:
    """The dataclass of all options of an experiment."""
    generic: Any = Given
    return generic[experiment.load().options]


def about(experiment: Experiment) -> str:
    """What --help says above the options."""
    return (
        f"{experiment.name}: {experiment.asks}\n\ncost on 2 cores: {experiment.cost}\n\nexample: {example(experiment)}"
    )


def example(experiment: Experiment) -> str:
    return f"{PROGRAM} {experiment.name} {experiment.example}"


def parsed(kind: Any, name: str, arguments: Sequence[str], description: str) -> Any:
    """An instance of the dataclass `kind`. Errors: as `given`."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            found, rest = tyro.cli(
                kind,
                args=list(arguments),
                prog=f"{PROGRAM} {name}",
                description=description,
                return_unknown_args=True,
                config=_CONFIG,
            )
    except SystemExit as stop:
        if stop.code:
            raise UsageError(f"{name}: {one_line(shown.getvalue())}") from None
        raise
    if rest:
        raise UsageError(f"{name}: {_unknown(rest[0], kind)} {PROGRAM} {name} --help lists all")
    return found


def one_line(box: str) -> str:
    """What a box of tyro's says below its title, with the nearest of the choices where it lists some."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    parts = [
        list(part) for rule, part in itertools.groupby(lines, lambda line: bool(_RULE.fullmatch(line))) if not rule
    ]
    text = " ".join(parts[0]) if parts else "these options are not understood"
    if found := _CHOICE.fullmatch(text):
        return f"{found[2]}: {no_such('value', found[1], ast.literal_eval(found[3]))}"
    return text.removeprefix("Error parsing options: ")


def no_such(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest."""
    from qjax.spelling import unknown  # brings all of qjax, and JAX, which --help does without

    return UsageError(str(unknown(kind, name, known)))


def flags(kind: Any) -> list[str]:
    """The options of a dataclass, those of the generic ones around it included: --num-reads, ..."""
    origin, found = typing.get_origin(kind) or kind, []
    for name, hint_of in typing.get_type_hints(origin, include_extras=True).items():
        marks = getattr(hint_of, "__metadata__", ())
        if Flat in marks:
            found += flags(typing.get_args(kind)[0])
        elif _POSITIONAL not in marks and name in {field.name for field in dataclasses.fields(origin)}:
            found.append(f"--{name.replace('_', '-')}")
    return found


def innermost(kind: Any) -> type:
    """X of Given[Benchmarked[X]] and of Given[X]."""
    inner = typing.get_args(kind)
    found: type = innermost(inner[0]) if inner else kind
    return found


def print_completion(kinds: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """The script that completes names and options in a shell. Errors: UsageError; SystemExit(0) when it is printed."""
    if arguments[1:2] == [] or arguments[1] not in SHELLS:
        raise UsageError(f"{arguments[0]} needs one of {', '.join(SHELLS)}")
    tyro.extras.subcommand_cli_from_dict(dict(kinds), args=list(arguments), prog=COMPLETED, config=_CONFIG)


def _unknown(token: str, kind: Any) -> str:
    if not token.startswith("-"):
        return f"unexpected {token!r}."
    option = token.partition("=")[0]
    from qjax.spelling import hint

    return f"unknown option {option!r}{hint(option, flags(kind))}"
