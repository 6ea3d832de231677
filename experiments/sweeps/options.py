"""The options of `python -m experiments sweep`. Apart from the rest, which needs Optuna."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.harness.presentation.cells import UsageError


@dataclass(frozen=True)
class Sweep:
    """Cells of an experiment over values of their configurations' fields, by any number of workers.

    python -m experiments sweep table1 --only digits-patch-1bit --methods hybrid greedy --seeds 3
    --grid lowbit.sampler=anneal,bifurcation lowbit.sampler.length=100,1000

    One worker is one command; more of them, on this machine or others, are the same command with the same --storage.
    Interrupted or killed, the same command resumes. Exit code 1 where some trials failed for good.
    """

    experiment: tyro.conf.Positional[str]
    """An experiment made of cells: table1, hardware, solvers."""
    grid: tuple[str, ...] = ()
    """field=a,b,c for values, field=low..high for a range (random, tpe). Without it: lists the fields."""
    seeds: int = 3
    """Every point is run with the seeds 0 .. SEEDS-1."""
    search: Literal["grid", "random", "tpe"] = "grid"
    """grid: every combination, each with every seed a trial; random, tpe: TRIALS points, all seeds in each trial."""
    trials: int = 20
    """Points that random or tpe draw."""
    objective: str = "final"
    """A number among a cell's results or timings; a trial's value is its mean over the cells."""
    minimise: bool = False
    """The objective is better when lower."""
    pruner: Literal["none", "median", "hyperband"] = "none"
    """Stops a bad trial of random or tpe: between seeds, and inside training where the cells say how they stand."""
    name: str = ""
    """Of the study and its folder; the experiment's if not given."""
    storage: str = ""
    """SQLAlchemy's address of a database (postgresql+psycopg://user@host/name); SQLite in OUT if not given."""
    workers: int = 1
    """Processes on this machine."""
    heartbeat: int = 15
    """Seconds between a worker's signs of life; four missed ones give its trial to another."""
    status: bool = False
    """Only print how far the sweep is."""
    smoke: bool = False
    """The cells of the experiment's --smoke."""
    full: bool = False
    """The cells of the experiment's --full."""
    only: tuple[str, ...] = ()
    """Only problems of these names, as the experiment has it."""
    methods: tuple[str, ...] = ()
    """Only these methods; of solvers, any of its samplers."""
    instances: Path | None = None
    """Of solvers, as there: a folder of problem files."""
    generate: tuple[str, ...] = ()
    """Of solvers, as there: generated problems."""
    out: Path = Path("results")
    """Results go to OUT/sweeps/NAME, cells to OUT/EXPERIMENT."""
    any_code: bool = False
    """Keep stored cells that another version of the code computed."""

    def __post_init__(self) -> None:
        for field in ("seeds", "trials", "workers", "heartbeat"):
            if getattr(self, field) < 1:
                raise UsageError(f"--{field} must be at least 1, got {getattr(self, field)}")
        if self.search == "grid" and self.pruner != "none":
            raise UsageError(f"--pruner {self.pruner} needs --search random or tpe: a grid must be complete")
        if self.experiment != "solvers" and (self.instances is not None or self.generate):
            raise UsageError("--instances and --generate are options of solvers")
        if self.smoke and self.full:
            raise UsageError("--smoke and --full exclude each other")

    @property
    def study(self) -> str:
        return self.name or self.experiment

    @property
    def folder(self) -> Path:
        return self.out / "sweeps" / self.study
