"""The options of `python -m experiments report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Report:
    """Finished results as one HTML page: targets, tables, curves, seconds, energies; of sweeps what the fields do.

    It reads what is stored and runs nothing; the page needs no network.
    """

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of finished results, or folders that hold such (results/table1, results/sweeps/NAME); results if none."""
    against: Path | None = None
    """An earlier run: what changed since, by how much, and whether seeds alone explain it."""
    out: Path = Path("results/report.html")
    """The file."""
