"""Experiments of qjax: `python -m experiments NAME [options]`; `NAME --help` lists the options of one."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments import bench, table1
from experiments.bench.benchmark import benchmark, smaller
from experiments.bench.bqm import BenchBqm
from experiments.bench.build import BenchBuild
from experiments.bench.qaoa import BenchQaoa
from experiments.bench.refine import BenchRefine
from experiments.bench.samplers import BenchSamplers
from experiments.data.sources import DataUnavailable
from experiments.hardware import cells as hardware_cells
from experiments.hardware import compare as hardware
from experiments.hardware.compare import Hardware
from experiments.harness.presentation.cells import StoreError, UsageError
from experiments.harness.presentation.environment import cores
from experiments.solvers import compare as solvers
from experiments.solvers.compare import Solvers
from experiments.sweeps.options import Sweep
from experiments.table1 import Table1

Flat = tyro.conf.arg(name="")
RESULTS = Path("results")


def run_table1(config: Annotated[Table1, Flat]) -> None:
    """Classical (Adam) against quantum-assisted training, with all controls: table, summary, figures.

    About 12 minutes on 2 cores; --smoke under a minute, --full hours. Interrupted, the same command resumes.
    """
    table1.run(config, _console())


def run_hardware(config: Annotated[Hardware, Flat]) -> None:
    """The hybrid step on small problems by exact, annealed, mock-processor, noisy and gate-based sampling.

    About a minute on 2 cores; --smoke less. Interrupted, the same command resumes.
    """
    hardware.run(config, _console())


def run_solvers(config: Annotated[Solvers, Flat] = Solvers()) -> None:  # noqa: B008 (frozen)
    """Samplers and peers on instance files at equal wall-clock: gaps, seconds to the best known, TTS99.

    --smoke takes seconds. Interrupted, the same command resumes.
    """
    solvers.run(config, _console())


def run_bench_build(
    config: Annotated[BenchBuild, Flat] = BenchBuild(),  # noqa: B008 (frozen)
    out: Path = RESULTS,
    smoke: bool = False,
) -> None:
    """Building a dense Qubo against the Gram matmul alone, dimod and PyQUBO. About a minute on 2 cores."""
    if smoke:
        config = smaller(config, rows=1000, features=32, pyqubo_features=8, repeats=2)
    benchmark("bench-build", config, bench.build.bench_build, bench.build.table, out, _console())


def run_bench_bqm(
    config: Annotated[BenchBqm, Flat] = BenchBqm(),  # noqa: B008 (frozen)
    out: Path = RESULTS,
    smoke: bool = False,
) -> None:
    """Converting a dense Qubo to dimod's model and back. About 10 seconds on 2 cores."""
    if smoke:
        config = smaller(config, bits=50, repeats=2)
    benchmark("bench-bqm", config, bench.bqm.bench_bqm, bench.bqm.table, out, _console())


def run_bench_qaoa(
    config: Annotated[BenchQaoa, Flat] = BenchQaoa(),  # noqa: B008 (frozen)
    out: Path = RESULTS,
    smoke: bool = False,
) -> None:
    """QAOA's statevector: steps per second, compilation, guarantees of published angles, training.

    About a minute on 2 cores.
    """
    if smoke:
        config = smaller(config, bits=8, layers=2, steps=10, repeats=1, weighted_bits=8, weighted_graphs=1)
        config = smaller(config, weighted_layers=3, weighted_steps=20, guarantee_graphs=0)
    benchmark("bench-qaoa", config, bench.qaoa.bench_qaoa, bench.qaoa.table, out, _console())


def run_bench_refine(
    config: Annotated[BenchRefine, Flat] = BenchRefine(),  # noqa: B008 (frozen)
    out: Path = RESULTS,
    smoke: bool = False,
) -> None:
    """Steps per second of `refine` against hand-written optax loops. About five minutes on 2 cores."""
    if smoke:
        config = smaller(config, networks=("mlp",), num_images=1000, steps=2, repeats=2)
    benchmark("bench-refine", config, bench.refine.bench_refine, bench.refine.table, out, _console())


def run_bench_samplers(
    config: Annotated[BenchSamplers, Flat] = BenchSamplers(),  # noqa: B008 (frozen)
    out: Path = RESULTS,
    smoke: bool = False,
) -> None:
    """Samplers against a peer's proposals, bare matmuls, Hessian products and bit flips; seconds to compile.

    About 20 minutes on 2 cores.
    """
    if smoke:
        config = smaller(config, reads=8, sweeps=2, peer_sweeps=2, dense_bits=60, dense_reads=4, steps=25, repeats=1)
        config = smaller(config, batch_bits=24, problems=4, problem_reads=2, implicit_widths=(4, 5))
        config = smaller(config, implicit_batch=4, implicit_reads=2, implicit_steps=25, compiled=("greedy",))
        config = smaller(config, convolution_widths=((2, 3, 4),), convolution_images=(2,), convolution_reads=2)
        config = smaller(config, convolution_steps=25, convolution_repeats=1, finder_bits=(20,))
        config = smaller(config, level_data="digits", level_epochs=1, level_width=8, level_images=50, level_bits=(2,))
        config = smaller(config, level_seconds=0.05)
    benchmark("bench-samplers", config, bench.samplers.bench_samplers, bench.samplers.table, out, _console())


def run_bench_sweeps(storage: str = "", out: Path = RESULTS, smoke: bool = False) -> None:
    """Seconds that a sweep's machinery takes a trial, beside the cells. Some ten seconds.

    storage: SQLAlchemy's address of a database that may get a new study; SQLite in a temporary folder if not given.
    """
    from experiments.bench.sweeps import BenchSweeps, bench_sweeps, table

    config = BenchSweeps(storage)
    if smoke:
        config = smaller(config, values=(2, 2, 1))
    benchmark("bench-sweeps", config, bench_sweeps, table, out, _console())


def run_sweep(config: Annotated[Sweep, Flat]) -> None:
    """Cells of an experiment over values of any of their fields, by any number of workers.

    A minute to a night. Interrupted or killed, the same command resumes; see docs/sweeps.md.
    """
    from experiments.sweeps import command  # Optuna and SQLAlchemy, which nothing else here needs

    if not command.run(config, {"table1": table1.all_cells, "hardware": hardware_cells.cells}, _console()):
        raise SystemExit(1)


def _console() -> Console:
    # A log has no width of its own; 80 columns would break every table.
    console = Console()
    return console if console.is_terminal else Console(width=130)


EXPERIMENTS: dict[str, Any] = {
    "table1": run_table1,
    "hardware": run_hardware,
    "solvers": run_solvers,
    "sweep": run_sweep,
    "bench-build": run_bench_build,
    "bench-bqm": run_bench_bqm,
    "bench-qaoa": run_bench_qaoa,
    "bench-refine": run_bench_refine,
    "bench-samplers": run_bench_samplers,
    "bench-sweeps": run_bench_sweeps,
}


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 1 for an error that one line explains, 2 for bad options, 130 interrupted."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            EXPERIMENTS,
            args=arguments,
            prog="python -m experiments",
            description=__doc__,
            sort_subcommands=False,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (StoreError, DataUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("qjax", "experiments")):
            raise
        print(f"error: {error}: this experiment needs a package that is not installed", file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def quick_compilation(arguments: list[str]) -> None:
    """A smoke run is mostly compilation, and its numbers mean nothing: let XLA optimise less, in this process alone."""
    if "--smoke" in arguments:
        flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


def one_device_per_core(arguments: list[str]) -> None:
    """Reads are spread over one XLA device per core, in this process alone: one program on several threads is slower
    than several programs on one thread each, for operations as small as those of a sweep."""
    if arguments[1:2] in (["solvers"], ["bench-samplers"]):
        flags = f"--xla_force_host_platform_device_count={cores()} --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


if __name__ == "__main__":
    quick_compilation(sys.argv)
    one_device_per_core(sys.argv)
    sys.exit(main())
