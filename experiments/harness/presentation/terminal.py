"""Where experiments print: one console for a terminal, a log or a pipe, and what `--quiet` leaves of it.

Off a terminal there are lines only: no colours, no bars, no carriage returns, whatever the environment asks for.
"""

import sys
from pathlib import Path

import tyro
from rich.console import Console

# Marks a field that is a dataclass of options: those stand beside the others, without its name before theirs.
Flat = tyro.conf.arg(name="")
# A log has no width of its own; 80 columns would break every table.
LOG_WIDTH = 130


def terminal(quiet: bool = False) -> Console:
    """The console of standard output. quiet: it prints nothing but what `written` says."""
    on_terminal = sys.stdout.isatty()
    return Console(force_terminal=on_terminal, width=None if on_terminal else LOG_WIDTH, quiet=quiet)


def animated(console: Console) -> bool:
    """Whether bars and spinners may be drawn."""
    return console.is_terminal and not console.quiet


def written(console: Console, *paths: Path) -> None:
    """Says where the results are. On a quiet console, the paths alone, one a line."""
    if console.quiet:
        print(*paths, sep="\n", file=console.file)
    else:
        say(console, f"written to {', '.join(map(str, paths))}")


def say(console: Console, line: str) -> None:
    """A line as it is, however long."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)
