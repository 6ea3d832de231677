"""Experiments of qjax: `python -m experiments NAME [options]`; `list` and `--help` say which there are."""

import os
import sys
from collections.abc import Sequence

from experiments.commandline import overview, parsing
from experiments.commandline.registry import EXPERIMENTS, Experiment
from experiments.data.unavailable import DataUnavailable
from experiments.harness.memory import keep_freed
from experiments.harness.presentation.cells import Failed, StoreError, UsageError
from experiments.harness.presentation.terminal import terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, see `overview.EXIT_CODES`; whatever is an error is one line on standard error."""
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as stop:  # tyro's, where help was asked for
        return int(stop.code or 0)
    except (StoreError, DataUnavailable, Failed) as error:
        return _told(f"error: {error}", 1)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("qjax", "experiments")):
            raise
        return _told(f"error: {error}: this experiment needs a package that is not installed", 1)
    except UsageError as error:
        return _told(f"error: {error}", 2)
    except BrokenPipeError:  # `| head`: what Python would flush at its end has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _told("error: nothing reads the output any more", 1)
    except KeyboardInterrupt:
        return _told("interrupted", 130)
    return 0


def run(arguments: Sequence[str]) -> None:
    """What the arguments ask for. Errors: those that `main` tells."""
    if not arguments:
        raise UsageError(f"which experiment? `{parsing.PROGRAM} list` has them all")
    name, *rest = arguments
    if name in ("-h", "--help"):
        overview.show_help(terminal())
    elif name.replace("_", "-") in parsing.COMPLETION:
        kinds = {name: parsing.given_kind(experiment) for name, experiment in EXPERIMENTS.items()}
        parsing.print_completion({**kinds, "list": overview.Listing}, arguments)
    elif name.startswith("-"):
        raise UsageError(f"an experiment's name comes before its options, got {name!r}")
    elif name == "list":
        listing = parsing.parsed(overview.Listing, name, rest, "list: what experiments there are, what one is made of")
        overview.show(listing, terminal())
    elif name not in EXPERIMENTS:
        raise parsing.no_such("experiment", name, [*EXPERIMENTS, "list"])
    else:
        given = parsing.given(EXPERIMENTS[name], rest)
        EXPERIMENTS[name].load().run(given.options, terminal(given.quiet))


def quick_compilation(arguments: Sequence[str]) -> None:
    """A smoke run is mostly compilation, and its numbers mean nothing: let XLA optimise less, in this process alone."""
    if "--smoke" in arguments:
        flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


def one_device_per_core(arguments: Sequence[str]) -> None:
    """As `Experiment.device_per_core` says, before JAX is first used."""
    experiment = _asked(arguments)
    if experiment is not None and experiment.device_per_core:
        from experiments.harness.presentation.environment import cores

        flags = f"--xla_force_host_platform_device_count={cores()} --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


def keep_memory(arguments: Sequence[str]) -> None:
    """As `Experiment.keeps_memory` says, before threads start."""
    experiment = _asked(arguments)
    if experiment is not None and experiment.keeps_memory in ("", *arguments):
        keep_freed()


def _asked(arguments: Sequence[str]) -> Experiment | None:
    names = [name for name in arguments[:2] if name in EXPERIMENTS]  # sweep solvers has the cells of solvers
    return EXPERIMENTS.get(names[-1]) if names else None


def _told(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    quick_compilation(sys.argv[1:])
    one_device_per_core(sys.argv[1:])
    keep_memory(sys.argv[1:])
    sys.exit(main())
