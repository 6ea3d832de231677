"""Solvers side by side: every sampler on every instance with the same wall-clock, cores and ladder of sweeps.

A cell is one sampler on one instance with one seed. Its seconds go into a ladder of runs (qjax.samplers.within): at
first `num_sweeps` sweeps, each further run twice as long while there is time, the last as long as fits; the best state
is kept. Our samplers compile, and peers build their models and start their processes, before the clock starts: those
seconds are reported apart. Energies are recomputed from the Qubo after it stops. Of problems with groups of bits our
samplers can be given the groups, have them looked for (those seconds count), or go without: solvers/ways.py.
"""

import hashlib
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.harness.presentation import driver, environment
from experiments.harness.presentation.cells import Cell, Progress, UsageError
from experiments.harness.presentation.driver import Report
from experiments.solvers import figures, peers, report
from experiments.solvers.generate import generate
from experiments.solvers.instances.folder import read_folder
from experiments.solvers.instances.problem import Instance, InstanceError
from experiments.solvers.report import REFERENCE
from experiments.solvers.ways import Answer, Entry, answered
from qjax import Qubo, samplers
from qjax.samplers.sharded import Sharded
from qjax.spelling import unknown

SMOKE = ("sk-24",)
# A sparse instance has programs of its own, some 17 MB a sampler, which no other instance uses.
STRUCTURES_KEPT = 8
_KEY = 17
_structures: set[Hashable] = set()


@dataclass(frozen=True)
class Solvers:
    """Samplers and peers on problem files: gaps to the best known, seconds to it, TTS99.

    python -m experiments solvers --instances DIR; instances x samplers x repeats x seconds, and compilation.
    """

    instances: Path | None = None
    """Every Gset, Biq Mac, OR-Library, QAPLIB, TSPLIB and dimod file under this folder, with its best_known.csv."""
    generate: tuple[str, ...] = ()
    """Generated problems as well: sk-500, regular3-1000, lattice3-10, wishart-100-0.6, tile-32, one-hot-19x6-P1000,
    queen8_8-9, myciel5-6, ..."""
    seconds: float = 10.0
    """Wall-clock of a run."""
    repeats: int = 5
    """Runs of each sampler on each instance, one per seed."""
    samplers: str = "auto,anneal,bifurcation,tabu,dwave-sa,dwave-tabu,openjij-sa,simulated-bifurcation"
    """Names with commas between them: any of `qjax.samplers.names()`, and the peers. NAME+given, NAME+found, NAME+none
    of ours: with the blocks of the problem, with those that as_dimod finds in the plain model, without any."""
    reads: int = 128
    """Reads of our samplers, spread over the cores."""
    peer_reads: int = 16
    """Reads of the peers, spread over the cores; simulated-bifurcation has its own default, 128 agents."""
    num_sweeps: int = 100
    """The first rung of the ladder."""
    reference_seconds: float = 0.0
    """Where nothing is known of an instance, `auto` runs this long once (600, say), and is what gaps are counted to."""
    only: tuple[str, ...] = ()
    """Only instances whose name starts with one of these."""
    out: Path = Path("results")
    """Results go to OUT/solvers."""
    smoke: bool = False
    """A small generated problem for a fraction of a second: shows that it runs, nothing else."""
    fresh: bool = False
    """Compute everything again, whatever is stored."""
    any_code: bool = False
    """Keep stored cells that another version of the code computed."""

    def __post_init__(self) -> None:
        for name in ("seconds", "repeats", "reads", "peer_reads", "num_sweeps"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")

    def sized(self) -> "Solvers":
        """What --smoke makes of the options."""
        if not self.smoke:
            return self
        names = "auto,anneal,dwave-sa" if self.samplers == Solvers.samplers else self.samplers
        return replace(self, generate=self.generate or SMOKE, seconds=0.2, repeats=2, samplers=names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.strip() for name in self.samplers.split(",") if name.strip()))


def run(config: Solvers, console: Console) -> dict[str, Any]:
    """Computes the missing cells, writes summary.json, summary.md and the figures; returns the summary."""
    config = config.sized()
    problems = chosen(config)
    cells = cells_of(config, problems, available(config.names, console))
    return driver.run(
        config.out / "solvers",
        cells,
        partial(reported, problems, config.seconds),
        console,
        {"options": config},
        config.fresh,
        config.any_code,
    )


def reported(
    problems: Sequence[Instance], seconds: float, records: Sequence[dict[str, Any]], env: dict[str, Any]
) -> Report:
    """Gaps, seconds and figures of these records."""
    summary = report.summary(records, problems, env, seconds)
    return Report(
        summary,
        report.markdown(summary),
        report.tables(summary),
        partial(figures.draw, records, summary),
    )


def chosen(config: Solvers) -> list[Instance]:
    """The instances of a run. Errors: UsageError, one line."""
    try:
        problems = read_folder(config.instances) if config.instances is not None else []
        problems += [generate(name) for name in config.generate]
    except (InstanceError, ValueError) as error:
        raise UsageError(str(error)) from None
    names = [problem.name for problem in problems]
    for name in config.only if problems else ():
        if not any(known.startswith(name) for known in names):
            raise UsageError(str(unknown("instance", name, names)))
    if config.only:
        problems = [problem for problem in problems if problem.name.startswith(config.only)]
    if not problems:
        raise UsageError("no instances: name a folder with --instances, or problems with --generate")
    return problems


def available(names: Sequence[str], console: Console) -> list[str]:
    """The samplers of those names; a peer that is not installed is left out with a line. Errors: UsageError."""
    kept = []
    for name in names:
        Entry.of(name)
        if name in peers.PACKAGES and not peers.installed(name):
            console.print(f"{name} is left out: {peers.PACKAGES[name]} is not installed or broken", highlight=False)
        else:
            kept.append(name)
    if not kept:
        raise UsageError("none of the samplers is there")
    return kept


def all_cells(config: Solvers, console: Console) -> list[Cell]:
    """Every run of these options. Errors: UsageError."""
    config = config.sized()
    return cells_of(config, chosen(config), available(config.names, console))


def cells_of(config: Solvers, problems: Sequence[Instance], names: Sequence[str]) -> list[Cell]:
    """Repeat by repeat, samplers side by side, so that an early stop leaves complete comparisons.

    Errors: UsageError where no sampler can be run on any problem.
    """
    cells = []
    for problem in problems:
        taken = [name for name in names if Entry.of(name).takes(problem)]
        plan = [(name, seed, config.seconds) for seed in range(config.repeats) for name in taken]
        if problem.best_known is None and config.reference_seconds > 0:
            plan.append((REFERENCE, 0, config.reference_seconds))
        for name, seed, seconds in plan:
            fixed = name if name in (*peers.PACKAGES, REFERENCE) else ""
            cells.append(_cell(problem, _digest(problem), fixed, options(config, name, seconds), seed))
    if not cells:
        raise UsageError("none of the problems has blocks that could be given")
    return cells


def options(config: Solvers, name: str, seconds: float) -> dict[str, Any]:
    """What decides the numbers of a run beside the problem and the seed: seconds, reads, and of ours the sampler, whose
    length is the ladder's first rung, and the way it is given groups."""
    if name in peers.PACKAGES:
        reads = peers.READS.get(name, config.peer_reads)
        return {"seconds": seconds, "reads": reads, "num_sweeps": config.num_sweeps}
    entry = Entry.of("auto" if name == REFERENCE else name)
    sampler = samplers.get(entry.sampler, length=config.num_sweeps)
    return {"seconds": seconds, "reads": config.reads, "sampler": sampler, "way": entry.way}


def _cell(problem: Instance, digest: str, fixed: str, given: dict[str, Any], seed: int) -> Cell:
    """fixed: the method's name where the sampler does not say it.

    Errors: UsageError for options that cannot be, or a way that this sampler or problem does not have.
    """
    for name in given.keys() - {"sampler", "way"}:
        if not given[name] > 0:
            raise UsageError(f"{name} must be positive, got {given[name]}")
    method = fixed or Entry.named(given["sampler"], given["way"])
    if not fixed and not Entry.of(method).takes(problem):
        raise UsageError(f"{method}: {problem.name} has no blocks that could be given")

    def varied(config: dict[str, Any], seed: int) -> Cell:
        changed = {**config}
        if changed.pop("instance") != digest:
            raise UsageError("instance: problems are chosen by --only")
        return _cell(problem, digest, fixed, changed, seed)

    return Cell(
        problem=problem.name,
        method=method,
        seed=seed,
        config={"instance": digest, **given},
        run=partial(solve, problem, method, given, seed),
        sampler=method,
        cost=given["seconds"] + 3,
        data=problem.name,
        varied=varied,
    )


def solve(problem: Instance, name: str, given: dict[str, Any], seed: int, progress: Progress) -> dict[str, Any]:
    """One cell: {"results", "timed"}, its curve the objective's negative energy by the second. given: as `options`.

    Errors: ValueError where a peer's energies are not those of the Qubo.
    """
    progress(0.0, "compiling")
    key = jax.random.fold_in(jax.random.key(_KEY), seed)
    seconds, reads = given["seconds"], given["reads"]
    if name in peers.PACKAGES:
        with peers.peer(name, problem.qubo, environment.cores(), given["num_sweeps"]) as host:
            samples = samplers.within(host, seconds)(key, problem.qubo, reads)
        answer = Answer.of(samples)
    else:
        forget_programs(problem.qubo)
        answer = answered(over_devices(given["sampler"], reads), given["way"], problem, seconds, key, reads)
    info = answer.info
    energy = float(problem.qubo.energies(answer.bits))
    if not np.isclose(energy, answer.energy, rtol=1e-4, atol=1e-3):
        raise ValueError(f"{name} claims the energy {answer.energy} for a state of {energy} on {problem.name}")
    spent, apart = float(info["seconds"]), float(info["compile_seconds"])
    ends = answer.looked + np.asarray(info["chunk_seconds"])
    results: dict[str, Any] = {
        "final": -energy,
        "objective": problem.objective(energy),
        "sweeps": int(info["sweeps"]),
        "chunks": int(info["chunks"]),
        "reads": reads,
    }
    if problem.blocks is not None:
        results["feasible"] = bool(problem.feasible(answer.bits))
    if name not in peers.PACKAGES:
        results |= {"blocks": answer.way, "groups": answer.groups}
    if "choice" in info:
        results["choice"] = int(info["choice"])
    rate = problem.qubo.num_bits * reads * int(info["sweeps"]) / spent
    timed = {
        "seconds": apart + answer.looked + spent,
        "phases": {"compile": apart, "formulate": answer.looked, "anneal": spent},
        "curve": rises(ends, -np.asarray(info["chunk_lowest"], np.float64)),
        "proposals_per_second": None if name == "dwave-tabu" else rate,
    }
    return {"results": results, "timed": timed}


def forget_programs(qubo: Qubo) -> None:
    """Drops all compiled programs where this Qubo's would be those of one structure too many."""
    leaves, tree = jax.tree.flatten(qubo)
    structure = (tree, tuple(jax.typeof(leaf) for leaf in leaves))
    if structure not in _structures and len(_structures) >= STRUCTURES_KEPT:
        _structures.clear()
        jax.clear_caches()
    _structures.add(structure)


def rises(seconds: Iterable[float], values: Iterable[float]) -> list[list[float]]:
    """[second, value] where the value rises, and the last: a run of many short chunks is kept in few points."""
    best, steps, points = -math.inf, [], list(zip(map(float, seconds), map(float, values), strict=True))
    for second, value in points:
        if value > best:
            best = value
            steps.append([second, value])
    return steps if steps[-1][0] == points[-1][0] else [*steps, [*points[-1]]]


def over_devices(sampler: Any, reads: int) -> Any:
    """The sampler with its reads spread over all devices, where they divide them."""
    devices = jax.devices()
    if sampler.is_host or len(devices) == 1 or reads % len(devices):
        return sampler
    return Sharded(sampler, jax.sharding.Mesh(np.array(devices), ("reads",)))


def _digest(problem: Instance) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((problem.qubo, problem.blocks)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]
