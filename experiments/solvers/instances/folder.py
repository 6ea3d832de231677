"""Instance files of a folder, with the best values known."""

import csv
from pathlib import Path

from experiments.solvers.instances.assignment import read_qaplib, read_tsplib
from experiments.solvers.instances.problem import Instance, InstanceError, Known
from experiments.solvers.instances.quadratic import read_model, read_text
from experiments.solvers.instances.text import text_of

SUFFIXES = (".txt", ".mc", ".rud", ".rudy", ".sparse", ".bqm", ".dat", ".tsp")
BEST_KNOWN = "best_known.csv"


def read_folder(folder: Path) -> list[Instance]:
    """Every instance file under a folder, by name. Errors: InstanceError, also for a folder without any."""
    if not folder.is_dir():
        raise InstanceError(f"{folder}: no such folder of instances")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and not _ignored(path)]
    known = best_known(folder / BEST_KNOWN)
    found: dict[str, Instance] = {}
    for path in paths:
        beside = known if path.parent == folder else {**known, **best_known(path.parent / BEST_KNOWN)}
        for instance in read(path, beside):
            if instance.name in found:
                raise InstanceError(f"{path}: there is another instance {instance.name} under {folder}")
            found[instance.name] = instance
    if not found:
        raise InstanceError(f"{folder}: no instance files ({' '.join(SUFFIXES)})")
    return list(found.values())


def read(path: Path, known: Known | None = None) -> list[Instance]:
    """The problems of one file (several in an OR-Library file). known: what `best_known` read.

    Errors: InstanceError naming the file and the line.
    """
    known = {} if known is None else known
    readers = {".bqm": read_model, ".dat": read_qaplib, ".tsp": read_tsplib}
    if path.suffix in readers:
        return [readers[path.suffix](path, known)]
    return read_text(path, known)


def best_known(path: Path) -> Known:
    """{instance: (sense, value)} of a best_known.csv, sense -1 for "max"; empty where there is no such file.

    Errors: InstanceError naming the file and the line.
    """
    if not path.exists():
        return {}
    table = csv.DictReader(text_of(path).splitlines())
    if missing := {"instance", "best_known", "sense"} - set(table.fieldnames or ()):
        raise InstanceError(f"{path}:1: no column {sorted(missing)[0]!r}")
    found = {}
    for row in table:
        try:
            found[row["instance"]] = ({"min": 1, "max": -1}[row["sense"]], float(row["best_known"]))
        except (KeyError, TypeError, ValueError):
            raise InstanceError(f"{path}:{table.line_num}: needs a number and min or max, got {row}") from None
    return found


def _ignored(path: Path) -> bool:
    return path.name.startswith(".") or path.stem.lower() == "readme"
