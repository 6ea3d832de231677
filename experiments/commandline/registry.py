"""Every experiment by name. A new one is an entry of `EXPERIMENTS`, and a function that imports it when it is asked
for: `list` and `--help` load no more than they show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from experiments.harness.presentation.cells import Cell, Failed, Scale

Cells = Callable[[Scale], list[Cell]]


@dataclass(frozen=True)
class Command:
    """What an experiment does: run(options, console), `options` a frozen dataclass whose fields are the options."""

    options: Any
    run: Callable[[Any, Console], object]


@dataclass(frozen=True)
class Experiment:
    """What an experiment asks, in one line; its cost on 2 cores; the options of an example; what imports it.

    device_per_core: reads are spread over one XLA device per core, in this process alone: one program on several
    threads is slower than several programs on one thread each, for operations as small as those of a sweep.
    keeps_memory: the option with which freed memory is kept for the next step (`harness.memory`), "" for always: long
    training gains an eighth by it, and compilation loses a third.
    """

    name: str
    asks: str
    cost: str
    example: str
    load: Callable[[], Command]
    device_per_core: bool = False
    keeps_memory: str | None = None


def _table1() -> Command:
    from experiments import table1

    return Command(table1.Table1, table1.run)


def _hardware() -> Command:
    from experiments.hardware import compare

    return Command(compare.Hardware, compare.run)


def _solvers() -> Command:
    from experiments.solvers import compare

    return Command(compare.Solvers, compare.run)


def _sweep() -> Command:
    from experiments.sweeps.options import Sweep

    def run(config: Sweep, console: Console) -> None:
        def solvers_cells(scale: Scale) -> list[Cell]:
            from experiments.solvers import compare

            chosen = compare.Solvers(config.instances, config.generate, smoke=scale == "smoke")
            named = replace(chosen, samplers=",".join(config.methods)) if config.methods else chosen
            return compare.all_cells(named, console)

        from experiments.sweeps import command  # Optuna and SQLAlchemy, which the options do not need

        if not command.run(config, cells_by_experiment() | {"solvers": solvers_cells}, console):
            raise Failed("some trials failed for good: the same command with --status says which")

    return Command(Sweep, run)


def _report() -> Command:
    from experiments.report.options import Report

    def run(config: Report, console: Console) -> None:
        from experiments.report import command  # Jinja2 and the plotting library, which the options do not need

        command.run(config, console)

    return Command(Report, run)


def _tables() -> Command:
    from experiments import tables

    return Command(tables.Tables, tables.run)


def _bench_build() -> Command:
    from experiments.bench.build import SMOKE, BenchBuild, bench_build, table

    return _benchmark("bench-build", BenchBuild, bench_build, table, SMOKE)


def _bench_bqm() -> Command:
    from experiments.bench.bqm import SMOKE, BenchBqm, bench_bqm, table

    return _benchmark("bench-bqm", BenchBqm, bench_bqm, table, SMOKE)


def _bench_qaoa() -> Command:
    from experiments.bench.qaoa import SMOKE, BenchQaoa, bench_qaoa, table

    return _benchmark("bench-qaoa", BenchQaoa, bench_qaoa, table, SMOKE)


def _bench_refine() -> Command:
    from experiments.bench.refine import SMOKE, BenchRefine, bench_refine, table

    return _benchmark("bench-refine", BenchRefine, bench_refine, table, SMOKE)


def _bench_samplers() -> Command:
    from experiments.bench.samplers import SMOKE, BenchSamplers, bench_samplers, table

    return _benchmark("bench-samplers", BenchSamplers, bench_samplers, table, SMOKE)


def _bench_sweeps() -> Command:
    from experiments.bench.sweeps import SMOKE, BenchSweeps, bench_sweeps, table

    return _benchmark("bench-sweeps", BenchSweeps, bench_sweeps, table, SMOKE)


def _bench_train() -> Command:
    from experiments.bench.train import SMOKE, BenchTrain, bench_train, table

    return _benchmark("bench-train", BenchTrain, bench_train, table, SMOKE)


def _benchmark(
    name: str,
    options: Any,
    measure: Callable[[Any], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    smoke: Mapping[str, Any],
) -> Command:
    from experiments.bench.benchmark import Benchmarked, benchmark

    def run(given: Benchmarked[Any], console: Console) -> None:
        config = replace(given.config, **smoke) if given.smoke else given.config
        benchmark(name, config, measure, table, given.out, console)

    return Command(Benchmarked[options], run)


def cells_by_experiment() -> dict[str, Cells]:
    """The experiments made of cells that are known before any option is: what `sweep` sweeps and `list NAME` lists."""
    from experiments import table1
    from experiments.hardware import cells

    return {"table1": table1.all_cells, "hardware": cells.cells}


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "table1",
            "does quantum-assisted training beat Adam, and is it the annealer that does it?",
            "12 minutes; --smoke 30 seconds, --full hours",
            "--only digits-patch --methods adam hybrid",
            _table1,
            keeps_memory="--full",
        ),
        Experiment(
            "hardware",
            "what do mocks of processors, a noise model and gates make of the same hybrid step?",
            "1 minute; --smoke 10 seconds",
            "--only glass --methods anneal noisy qaoa",
            _hardware,
        ),
        Experiment(
            "solvers",
            "which sampler finds the lowest states at equal wall-clock and cores, ours or a peer?",
            "instances x samplers x repeats x seconds, and compilation; --smoke 10 seconds",
            "--generate sk-500 tile-32 --samplers auto,anneal,dwave-sa --seconds 2",
            _solvers,
            device_per_core=True,
        ),
        Experiment(
            "sweep",
            "what do the fields of an experiment's configuration do to its cells? (docs/sweeps.md)",
            "its cells': a minute to a night",
            "hardware --smoke --methods anneal --grid settings.num_sweeps=10,100",
            _sweep,
        ),
        Experiment(
            "report",
            "how did finished runs come out, as one page; with --against, what changed? (docs/report.md)",
            "seconds: it reads what is stored",
            "results/table1 --against other/table1 --out report.html",
            _report,
        ),
        Experiment(
            "tables",
            "what do finished cells of table1 say that are kept in a folder? (its tables and figures, made again)",
            "seconds: it reads what is stored",
            "experiments/measured/cifar10-conv",
            _tables,
        ),
        Experiment(
            "bench-build",
            "what does building a Qubo cost beyond the matmul that nobody can avoid?",
            "1 minute; --smoke 2 seconds",
            "--features 512 --repeats 3",
            _bench_build,
        ),
        Experiment(
            "bench-bqm",
            "what does a Qubo's way to dimod's model and back cost, and is anything lost?",
            "10 seconds; --smoke 2 seconds",
            "--bits 2000",
            _bench_bqm,
        ),
        Experiment(
            "bench-qaoa",
            "how fast is QAOA's statevector, and does it keep the published guarantees?",
            "1 minute; --smoke 10 seconds",
            "--bits 10 --guarantee-graphs 0",
            _bench_qaoa,
        ),
        Experiment(
            "bench-refine",
            "what does `refine` cost beyond a hand-written optax loop?",
            "5 minutes; --smoke 5 seconds",
            "--networks mlp patches --repeats 7",
            _bench_refine,
        ),
        Experiment(
            "bench-train",
            "how fast does a network of several convolutions train beside PyTorch?",
            "3 minutes; --smoke 20 seconds; with torch alone",
            "--repeats 5",
            _bench_train,
            keeps_memory="",
        ),
        Experiment(
            "bench-sweeps",
            "what does a sweep's machinery cost a trial, beside its cells?",
            "10 seconds; --smoke 2 seconds",
            "--values 3 3 3",
            _bench_sweeps,
        ),
        Experiment(
            "bench-samplers",
            "what do the samplers' steps cost beside a peer's, bare products and one another?",
            "20 minutes; --smoke 30 seconds",
            "--measures proposals bifurcation --repeats 3",
            _bench_samplers,
            device_per_core=True,
        ),
    )
}
