"""What a person sees while cells run: a bar with the time left, and a line as each cell finishes."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from experiments.harness.presentation.cells import Cell
from experiments.harness.presentation.terminal import animated


class Watch:
    """Follows `run_cells`. The time left is the expected seconds of what is missing, times the pace measured so far.

    On a terminal there is a bar; elsewhere (a log) only the lines. Use as a context, and hand it over as `watch`.
    """

    def __init__(self, cells: Sequence[Cell], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.total = sum(cell.cost for cell in cells)
        self.count = len(cells)
        self.finished = 0
        self.spent = 0.0
        self.computed = 0.0
        self.expected = 0.0
        self.began: float | None = None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = RichProgress(*columns, console=console, transient=True, disable=not animated(console))
        self.task = self.bar.add_task("", total=max(self.total, 1e-9), left="")

    def __call__(self, cell: Cell, fraction: float, text: str) -> None:
        """Hears that a cell is `fraction` done; 0 when it starts, 1 when it is stored."""
        if fraction == 0.0:
            self.began = self.clock()
        done = self.spent + fraction * cell.cost
        name = f"{cell.problem} {cell.method}, seed {cell.seed}"
        left = self.left(cell, fraction)
        self.bar.update(self.task, completed=done, description=f"{name} {text}".strip(), left=f"{_clock(left)} left")
        if fraction >= 1.0:
            self._finish(cell, name)

    def left(self, cell: Cell, fraction: float) -> float:
        """Seconds to go: expected seconds of what is missing, times how much slower than expected it went so far."""
        running = 0.0 if self.began is None else self.clock() - self.began
        took, expected = self.computed + running, self.expected + fraction * cell.cost
        pace = took / expected if expected > 0.05 * cell.cost else 1.0
        return max(pace * (self.total - self.spent - fraction * cell.cost), 0.0)

    def _finish(self, cell: Cell, name: str) -> None:
        self.finished += 1
        self.spent += cell.cost
        place = f"[{self.finished}/{self.count}]"
        if self.began is None:
            self.console.print(f"{place} {name}: kept from an earlier run", highlight=False, markup=False)
            return
        took = self.clock() - self.began
        self.computed += took
        self.expected += cell.cost
        self.began = None
        pace = self.computed / max(self.expected, 1e-9)
        left = _clock(pace * max(self.total - self.spent, 0.0))
        self.console.print(f"{place} {name}: {took:.1f} s, {left} left", highlight=False, markup=False)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"
