"""A long experiment as cells: one (problem, method, seed, configuration) each, kept on disk as it finishes.

One JSON file per cell, written to a temporary name, flushed to the disk and renamed: a cell is stored whole or not at
all, whatever killed the process. The same command then computes only what is missing. A stored cell stands in for a new
one where its key (problem, method, seed, hash of the configuration) and its makers (code, device, JAX) are the same.

A command reads and parses each file at most once, and what it holds of thousands of cells is their scalars and curves:
lists among the results stay in the files (`Kept`) until something draws them.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from experiments.harness import artefacts

Standing: TypeAlias = Callable[[], Mapping[str, float]]
Scale = Literal["smoke", "default", "full"]


class StoreError(OSError):
    """The results folder cannot be written: no space, no permission, not a folder. One line, for people."""


class Failed(RuntimeError):
    """The run came to its end, and something in it did not. One line, for people."""


class UsageError(ValueError):
    """Options that contradict one another, or name what does not exist. One line, for people."""


class Progress(Protocol):
    """What a run says as it goes: the fraction done, a word, and at an evaluation what its results are by now.

    `standing()` makes those, by the names of results, and is called only where someone may end the run by them: then an
    exception passes through, and the cell is not stored. Seconds spent in here are not the run's.
    """

    def __call__(self, fraction: float, text: str = "", standing: Standing | None = None) -> None: ...


def unheard(fraction: float, text: str = "", standing: Standing | None = None) -> None:
    """A `Progress` that nobody listens to."""


@dataclass(frozen=True)
class Cell:
    """One run of one method. `run(progress)` returns {"results": deterministic, "timed": wall-clock}.

    results["final"] is the row's metric in percent, higher is better; other scalars are summarised over seeds by
    their key; where a run is judged by a solution, "solved" (true or false) says so, and final is 100 or 0;
    "sampled_energies" (a list) feeds the histogram. timed holds "seconds", "phases" that add up to them,
    "curve" as [[second, metric], ...] counted from the cell's start with data and compile charged, and
    "seconds_to_target" where the target is a fixed one. `varied(config, seed)` is the same row's cell with another
    configuration of the same shape, and another seed. A cell that `resumes` is run(progress, folder): what it left in
    there (None: nowhere) when its process was killed, it finds there. lacks: what it needs and this machine has not
    got, one line for people.
    """

    problem: str
    method: str
    seed: int
    config: Any
    run: Callable[..., dict[str, Any]] = field(compare=False)
    sampler: str = "-"
    cost: float = 30.0
    data: str = ""
    tags: Mapping[str, float | int | str] = field(default_factory=dict)
    varied: Callable[[Any, int], "Cell"] | None = field(default=None, compare=False, repr=False)
    resumes: bool = field(default=False, compare=False)
    lacks: str = field(default="", compare=False)

    def digest(self) -> str:
        """A hash of everything in the configuration that decides the numbers."""
        text = json.dumps(plain(self.config), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def key(self) -> str:
        """The cell's file name: readable, and different for different configurations."""
        return f"{_slug(self.problem)}--{_slug(self.method)}--{self.seed}--{self.digest()}"

    def record(self) -> dict[str, Any]:
        """What identifies the cell, as stored beside its outcome."""
        return {
            "problem": self.problem,
            "method": self.method,
            "seed": self.seed,
            "sampler": self.sampler,
            "data": self.data,
            "tags": dict(self.tags),
            "config": plain(self.config),
        }


@dataclass(frozen=True)
class Comparison:
    """`method` against `baseline` on one problem; the annealer's own gain is over the best of `controls`.

    targets: (quantity, "<=" | ">=" | ">", bound), the quantity one of time_ratio, gain, final_gain, annealer_gain,
    final, baseline_final. annealer_gain, and any gain against 0, is judged by the end of its interval (the lower one
    for ">" and ">="), and needs 10 paired seeds.
    shares: (label, method, minus): parts of the gain over the baseline that add up to it, each the gain of one method
    over another. Errors: ValueError for shares that do not.
    """

    problem: str
    baseline: str
    method: str
    controls: tuple[str, ...] = ()
    targets: tuple[tuple[str, str, float], ...] = ()
    shares: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        sums = Counter([self.baseline, *(method for _, method, _ in self.shares)])
        sums.subtract([self.method, *(minus for _, _, minus in self.shares)])
        if self.shares and any(sums.values()):
            raise ValueError(f"the shares of {self.method} over {self.baseline} do not add up to it: {self.shares}")


@dataclass(frozen=True)
class Kept:
    """A list among a stored cell's results: np.asarray reads it from the cell's file, a second time on purpose."""

    path: Path
    name: str
    length: int

    def __len__(self) -> int:
        return self.length

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Errors: those of a file that has gone or was damaged since (OSError, ValueError, KeyError)."""
        return np.array(json.loads(self.path.read_text())["outcome"]["results"][self.name], dtype)


@dataclass(frozen=True)
class Store:
    """Finished cells under `folder`. `makers` are the facts that a stored cell must share with this process; None: it
    may be anybody's."""

    folder: Path
    makers: Mapping[str, Any] | None
    any_code: bool = False

    def open(self) -> "Store":
        """Makes the folder and proves that it can be written, before the first minute is spent. Errors: StoreError."""
        with plain_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            write_atomic(probe, "")
            probe.unlink()
        return self

    def discard(self, cells: Sequence[Cell]) -> None:
        """Forgets what is stored for these cells. Errors: StoreError."""
        with plain_errors(self.folder):
            for cell in cells:
                (self.folder / f"{cell.key()}.json").unlink(missing_ok=True)
                shutil.rmtree(self._unfinished(cell), ignore_errors=True)

    def load(self, cell: Cell) -> dict[str, Any] | None:
        """The stored record of this cell, its lists `Kept`; None for none, a damaged one, or one that others made."""
        path = self.folder / f"{cell.key()}.json"
        try:
            record = json.loads(path.read_text())
            outcome, makers = record["outcome"], record["made_by"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(outcome, dict) or not {"results", "timed"} <= outcome.keys():
            return None
        return _slim(record, path) if self._stands_in(makers) else None

    @contextlib.contextmanager
    def unfinished(self, cell: Cell) -> Iterator[Path | None]:
        """A folder for the state of a cell that runs inside: it stays if the process is killed or cannot write, and
        goes when the cell is finished or fails. None if another process runs the cell. Errors: StoreError.
        """
        from filelock import FileLock, Timeout

        folder = self._unfinished(cell)
        with plain_errors(self.folder):
            folder.mkdir(exist_ok=True)
            try:
                lock = FileLock(folder / "lock").acquire(timeout=0)
            except Timeout:
                lock = None
        if lock is None:
            yield None
            return
        with lock:
            with plain_errors(self.folder):
                self._claim(folder)
            try:
                yield folder / "state"
            except OSError:
                raise
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)

    def _unfinished(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key()}.unfinished"

    def _claim(self, folder: Path) -> None:
        """Empties it, unless what is in it is as good as this process's own, and signs it."""
        signed = folder / "made_by.json"
        try:
            known = self._stands_in(json.loads(signed.read_text()))
        except (OSError, ValueError):
            known = False
        if not known:
            shutil.rmtree(folder / "state", ignore_errors=True)
            write_atomic(signed, json.dumps(dict(self.makers or {})))

    def _stands_in(self, makers: Mapping[str, Any]) -> bool:
        """Whether what these makers made is as good as this process's own."""
        if self.makers is None:
            return True
        ignored = {"code"} if self.any_code else set()
        wanted, found = ({k: v for k, v in of.items() if k not in ignored} for of in (self.makers, makers))
        return wanted == found

    def save(self, cell: Cell, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Stores a finished cell. Errors: StoreError (disk, permission), ValueError (NaN, or no value for JSON)."""
        check_outcome(cell, outcome)
        record = {**cell.record(), "outcome": plain(outcome), "made_by": dict(self.makers or {})}
        path = self.folder / f"{cell.key()}.json"
        text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
        with plain_errors(self.folder):
            write_atomic(path, text)
        # A JSON round trip, so that a resumed run and an uninterrupted one see the same values.
        return _slim(json.loads(text), path)


def named(identity: Mapping[str, Any]) -> Cell:
    """A cell of this name, which cannot run; identity: of `Cell.record`."""
    return Cell(identity["problem"], identity["method"], identity["seed"], identity["config"], lambda progress: {})


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    watch: Callable[[Cell, float, str], None] | None = None,
    records: list[dict[str, Any]] | None = None,
    judge: Callable[[float, Standing], None] | None = None,
) -> list[dict[str, Any]]:
    """The records of all cells in order, computing and storing those that are missing.

    watch(cell, fraction, text) hears of progress; fraction 1 means stored. judge(fraction, standing) hears of the
    running cell's evaluations, and may end it by an exception. KeyboardInterrupt and errors of a cell pass through,
    with everything finished before them on disk, and in `records` where an empty list is given.
    """
    seen: set[str] = set()
    for cell in cells:
        key = cell.key()
        if key in seen:
            raise ValueError(f"two cells share the key {key}: give them different configurations")
        seen.add(key)
    tell = watch or (lambda cell, fraction, text: None)
    records = [] if records is None else records
    for cell in cells:
        record = store.load(cell)
        if record is None:
            tell(cell, 0.0, "")
            progress = _inside(tell, cell, judge)
            unfinished = store.unfinished(cell) if cell.resumes else contextlib.nullcontext()
            with artefacts.kept_in(store.folder.parent / "artefacts"), unfinished as folder:
                outcome = cell.run(progress, folder) if cell.resumes else cell.run(progress)
                record = store.save(cell, outcome)
        tell(cell, 1.0, "")
        records.append(record)
    return records


def _slim(record: dict[str, Any], path: Path) -> dict[str, Any]:
    results = record["outcome"]["results"]
    lists = {name: Kept(path, name, len(value)) for name, value in results.items() if isinstance(value, list)}
    return {**record, "outcome": {**record["outcome"], "results": {**results, **lists}}}


def _inside(
    tell: Callable[[Cell, float, str], None], cell: Cell, judge: Callable[[float, Standing], None] | None
) -> Progress:
    def progress(fraction: float, text: str = "", standing: Standing | None = None) -> None:
        # Only a stored cell is finished, so a running one stays below 1.
        fraction = min(max(fraction, 0.0), 0.999)
        tell(cell, fraction, text)
        if judge is not None and standing is not None:
            judge(fraction, standing)

    return progress


def check_outcome(cell: Cell, outcome: Mapping[str, Any]) -> None:
    """Errors: ValueError naming the cell and what its outcome lacks, or the non-finite number in it."""
    name = f"{cell.problem}/{cell.method}/{cell.seed}"
    try:
        results, timed = outcome["results"], outcome["timed"]
        float(results["final"])
        curve, phases = timed["curve"], timed["phases"]
        seconds = float(timed["seconds"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the outcome of cell {name} lacks {error}") from None
    for path, value in _leaves(outcome):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the outcome of cell {name} has {value} at {path}; absent numbers are None")
    if any(len(point) != 2 for point in curve):
        raise ValueError(f"the curve of cell {name} must hold [second, metric] pairs")
    if abs(sum(phases.values()) - seconds) > 0.01 * seconds + 0.05:
        raise ValueError(
            f"the phases of cell {name} add up to {sum(phases.values()):.2f} s, not to its {seconds:.2f} s"
        )


def write_atomic(path: Path, content: str | bytes) -> None:
    """The file holds `content` whole, or what it held before. Errors: OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def plain(value: Any) -> Any:
    """Dataclasses, mappings, tuples and NumPy scalars as what JSON holds; a dataclass keeps its class name.

    Errors: ValueError for a value whose text would not name it (an array, a function, an object with an address).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "shape", None) == ():
        return value.item()
    raise ValueError(f"{type(value).__name__} cannot stand in a configuration or an outcome")


@contextlib.contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Inside, any OSError becomes a StoreError that names the folder and the reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write results to {folder}: {reason}") from error


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        return [leaf for k, v in tree.items() for leaf in _leaves(v, f"{path}/{k}")]
    if isinstance(tree, list | tuple):
        return [leaf for k, v in enumerate(tree) for leaf in _leaves(v, f"{path}/{k}")]
    return [(path, tree)]


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)
