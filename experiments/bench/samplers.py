"""What the samplers cost, each against the work that nobody can do without or against a peer, from one run.

    proposals     single-flip proposals/s of `anneal` on sparse graphs (reads x sweeps x bits / s), over those of
                  dwave-samplers' simulated annealing in one process per core
    bifurcation   a bare matmul (n, n) x (n, reads) over one bifurcation step of that size: linear terms, walls and the
                  read-out of the best states included
    batch         many problems of few reads over one J, over one problem of as many reads in all
    implicit      a whole call of bifurcation on a Gauss-Newton Qubo, its spectrum and read-outs included, over as
                  many Hessian products alone as it makes steps, and the memory that takes
    convolutions  a step of bifurcation, in the loop of a call, on the Gauss-Newton Qubo of a flax network of
                  convolutions and max-pools, over one product of the same reads outside of any loop; and the seconds
                  from a process's first call to its first step
    finder        a look for groups that penalties fix, over a whole default call of `auto` outside of jit
    levels        a 3 x 3 convolution of a network trained here, in 1, 2 and 3 bits a weight: the layer error by
                  annealing whole weights (`encoding.blocks`), over that by annealing their bits for as many seconds,
                  and over that by descent of whole weights
    kernel        on NVIDIA GPUs: a call of `anneal` with XLA's loop over the flips inside a block, over one with the
                  Pallas kernel (`qjax.samplers.moves.block_kernel`)
    compile       seconds from the first call of a sampler to its compiled program

Everything is compiled before it is timed; a ratio is taken in each repeat, its two sides one right after the other,
and the median of the ratios is reported.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.finder import finder_costs
from experiments.bench.implicit import convolutional_cost, implicit_cost, seconds
from experiments.bench.kernel import gains
from experiments.bench.levels import layer_errors
from experiments.data.sources import SOURCES
from experiments.data.unavailable import DataUnavailable
from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import UsageError
from experiments.solvers import peers
from experiments.solvers.compare import over_devices
from experiments.solvers.instances.folder import read_folder
from experiments.solvers.instances.problem import Instance, InstanceError, qubo_of
from qjax import samplers
from qjax.energy.couplings import Dense
from qjax.energy.qubo import Qubo
from qjax.spelling import unknown

Measure: TypeAlias = Literal[
    "proposals", "bifurcation", "batch", "implicit", "convolutions", "finder", "levels", "kernel", "compile"
]


@dataclass(frozen=True)
class BenchSamplers:
    """Speeds of the samplers against peers and bare products: `python -m experiments bench-samplers`.

    About 20 minutes on 2 CPU cores, a quarter of them for the implicit Qubo, which is measured once, a quarter for the
    convolutional networks, a quarter for the levels of a layer, which need CIFAR-10 (`make data`).
    """

    measures: tuple[Measure, ...] = get_args(Measure)
    """Those to be made."""
    instances: Path | None = None
    """A folder with Gset's files; without it, a random graph of the size of G22."""
    graphs: tuple[str, ...] = ("G22", "G35")
    """Which of them."""
    reads: int = 512
    sweeps: int = 300
    peer_sweeps: int = 100
    """Sweeps of the peer's 16 reads."""
    dense_bits: int = 2000
    dense_reads: int = 64
    steps: int = 200
    batch_bits: int = 1024
    problems: int = 256
    problem_reads: int = 8
    implicit_widths: tuple[int, int] = (300, 362)
    """Channels of the two convolutions: 75 a + 9 a b bits, a million."""
    implicit_batch: int = 256
    implicit_reads: int = 8
    implicit_steps: int = 100
    convolution_widths: tuple[tuple[int, int, int], ...] = ((32, 64, 128), (64, 192, 512))
    """Features of the three convolutions of each network: 9 a b + 9 b c bits, 92,160 and a million."""
    convolution_images: tuple[int, ...] = (128, 16)
    """Images for each network."""
    convolution_reads: int = 8
    convolution_steps: int = 25
    convolution_repeats: int = 3
    finder_bits: tuple[int, ...] = (114, 500, 2000)
    level_data: str = "cifar10"
    level_epochs: int = 4
    """Of the network whose layer is brought to few bits; about 2 minutes."""
    level_width: int = 128
    """Inputs and outputs of its 3 x 3 convolution."""
    level_images: int = 2000
    """Images whose patches make the Gram matrix."""
    level_bits: tuple[int, ...] = (1, 2, 3)
    level_order: Literal["given", "descending"] = "given"
    """In which weights are rounded at first (`qjax.sequential`)."""
    level_seconds: float = 2.0
    """Of each anneal."""
    kernel_bits: tuple[int, ...] = (500, 2000, 8000)
    kernel_reads: tuple[int, ...] = (64, 1024)
    kernel_sweeps: int = 50
    compiled: tuple[str, ...] = (
        *("anneal", "temper", "population", "path_integral"),
        *("bifurcation", "mean_field", "tabu", "greedy", "auto"),
    )
    """Samplers whose compilation is timed, on every graph."""
    repeats: int = 5
    seed: int = 0


SMOKE: dict[str, Any] = {
    **{"reads": 8, "sweeps": 2, "peer_sweeps": 2, "dense_bits": 60, "dense_reads": 4, "steps": 25, "repeats": 1},
    **{"batch_bits": 24, "problems": 4, "problem_reads": 2, "compiled": ("greedy",), "finder_bits": (20,)},
    **{"implicit_widths": (4, 5), "implicit_batch": 4, "implicit_reads": 2, "implicit_steps": 25},
    **{"convolution_widths": ((2, 3, 4),), "convolution_images": (2,), "convolution_reads": 2},
    **{"convolution_steps": 25, "convolution_repeats": 1},
    **{"level_data": "digits", "level_epochs": 1, "level_width": 8, "level_images": 50, "level_bits": (2,)},
    **{"level_seconds": 0.05, "kernel_bits": (20,), "kernel_reads": (2,), "kernel_sweeps": 2},
}


def bench_samplers(config: BenchSamplers) -> dict[str, Any]:
    """{"config", "rows": [{"measure", "name", "value", "unit", "bound", "met", "detail"}]}.

    bound: what is aimed at, at least (ratios of proposals, of the bifurcation step and of the kernel) or at most (all
    others), None where nothing is. value: None where the peer, the data or the device is missing.
    """
    check_names(config)
    rows = [row for measure in config.measures for row in _MEASURES[measure](config)]
    return {"config": asdict(config) | {"instances": str(config.instances)}, "rows": rows}


def check_names(config: BenchSamplers) -> None:
    """Errors: UsageError for a sampler, a data set or a graph that there is not, with the nearest."""
    graphs = [] if config.instances is None else [problem.name for problem in _instances(config.instances)]
    given = (("sampler", config.compiled, samplers.names()), ("data set", (config.level_data,), SOURCES))
    for kind, names, known in (*given, ("graph", config.graphs if graphs else (), graphs)):
        for name in names:
            if name not in known:
                raise UsageError(str(unknown(kind, name, known)))


def table(found: dict[str, Any]) -> str:
    """The rows as a Markdown table, with what is aimed at."""
    lines = ["| measure | | value | aimed at | | detail |", "|---|---|---|---|---|---|"]
    for row in found["rows"]:
        value = "not measured" if row["value"] is None else f"{row['value']:.3g} {row['unit']}".strip()
        aim = "" if row["bound"] is None else f"{'>=' if row['least'] else '<='} {row['bound']:g}"
        verdict = "" if row["met"] is None else "met" if row["met"] else "MISSED"
        lines.append(f"| {row['measure']} | {row['name']} | {value} | {aim} | {verdict} | {row['detail']} |")
    return "\n".join(lines)


def _row(
    measure: str, name: str, value: float | None, unit: str, bound: float | None, least: bool, detail: str
) -> dict[str, Any]:
    met = None if value is None or bound is None else bool(value >= bound if least else value <= bound)
    return {
        **{"measure": measure, "name": name, "value": value, "unit": unit},
        **{"bound": bound, "least": least, "met": met, "detail": detail},
    }


def _graphs(config: BenchSamplers) -> list[Instance]:
    if config.instances is None:
        n, edges = min(2000, config.dense_bits), 10 * min(2000, config.dense_bits)
        rng = np.random.default_rng(config.seed)
        rows, cols = np.triu_indices(n, 1)
        chosen = rng.choice(rows.size, edges, replace=False)
        rows, cols, ones = rows[chosen], cols[chosen], np.ones(edges)
        # Max-Cut: minus the cut, sum over edges of 2 x_i x_j - x_i - x_j.
        linear = -(np.bincount(rows, minlength=n) + np.bincount(cols, minlength=n)).astype(float)
        return [Instance("random graph", "cut", qubo_of(n, 0.5 * linear, rows, cols, ones, 0.0, 2.0), -1)]
    return [problem for problem in _instances(config.instances) if problem.name in config.graphs]


def _instances(folder: Path) -> list[Instance]:
    try:
        return read_folder(folder)
    except InstanceError as error:
        raise UsageError(str(error)) from None


def _proposals(config: BenchSamplers) -> list[dict[str, Any]]:
    return [_proposed(config, graph, 8.0 if graph.name != "G35" else 4.0) for graph in _graphs(config)]


def _proposed(config: BenchSamplers, graph: Instance, bound: float) -> dict[str, Any]:
    n, key = graph.qubo.num_bits, jax.random.key(config.seed)
    sampler = over_devices(samplers.Anneal(num_sweeps=config.sweeps), config.reads)

    def ours() -> Any:
        return sampler(key, graph.qubo, config.reads)

    seconds(ours)
    if not peers.installed("dwave-sa"):
        rate = n * config.reads * config.sweeps / statistics.median(seconds(ours) for _ in range(config.repeats))
        return _row("proposals", graph.name, None, "", bound, True, f"{rate / 1e6:.0f} M/s")
    with peers.peer("dwave-sa", graph.qubo, environment.cores(), config.peer_sweeps) as peer:

        def theirs() -> Any:
            return peer(key, graph.qubo, 16)

        seconds(theirs)
        rates = [
            (config.reads * config.sweeps / seconds(ours), 16 * config.peer_sweeps / seconds(theirs))
            for _ in range(config.repeats)
        ]
    own, other = (statistics.median(rate[k] for rate in rates) * n / 1e6 for k in range(2))
    ratio = statistics.median(a / b for a, b in rates)
    return _row("proposals", graph.name, ratio, "x", bound, True, f"{own:.0f} M/s, dwave-samplers {other:.0f} M/s")


def _dense(config: BenchSamplers, n: int, problems: int | None = None) -> Qubo:
    rng = np.random.default_rng(config.seed)
    matrix = np.triu(rng.choice([-1.0, 1.0], (n, n)), 1).astype(np.float32)
    linear = rng.standard_normal((n,) if problems is None else (problems, n)).astype(np.float32)
    return Qubo.from_terms(jnp.asarray(linear), Dense(jnp.asarray(matrix + matrix.T)))


def _bifurcation(config: BenchSamplers) -> list[dict[str, Any]]:
    qubo, reads = _dense(config, config.dense_bits), config.dense_reads
    sampler = samplers.Bifurcation(num_steps=config.steps)
    matrix, start = qubo.couplings.to_dense(), jnp.ones((config.dense_bits, reads))

    @jax.jit
    def matmuls(matrix: jax.Array, x: jax.Array, times: jax.Array) -> jax.Array:
        # The smallest thing that makes each product depend on the one before.
        found: jax.Array = jax.lax.fori_loop(0, times, lambda _, x: 1e-3 * (matrix @ x), x)
        return found

    def step(repeats: int) -> float:
        key = jax.random.key(config.seed)
        return seconds(lambda: sampler.repeated(key, qubo, reads, None, jnp.int32(repeats)))

    step(1), seconds(lambda: matmuls(matrix, start, jnp.int32(1)))
    ratios, taken = [], []
    for _ in range(config.repeats):
        # What a call costs besides its steps, the spectrum above all, cancels.
        both = (step(3) - step(1)) / 2
        bare = seconds(lambda: matmuls(matrix, start, jnp.int32(config.steps)))
        ratios.append(bare / max(both, 1e-9))
        taken.append(both / config.steps)
    detail = f"{1e3 * statistics.median(taken):.2f} ms per step of {reads} reads, n = {config.dense_bits}"
    return [_row("bifurcation", "bare matmul / step", statistics.median(ratios), "", 0.8, True, detail)]


_BATCHED = {"bifurcation": samplers.Bifurcation(num_steps=50), "anneal": samplers.Anneal(num_sweeps=5)}


def _batch(config: BenchSamplers) -> list[dict[str, Any]]:
    return [_batched(config, name, sampler) for name, sampler in _BATCHED.items()]


def _batched(config: BenchSamplers, name: str, sampler: Any) -> dict[str, Any]:
    many, one = _dense(config, config.batch_bits, config.problems), _dense(config, config.batch_bits)
    reads, key = config.problems * config.problem_reads, jax.random.key(config.seed)
    calls = (lambda: sampler(key, many, config.problem_reads), lambda: sampler(key, one, reads))
    for call in calls:
        seconds(call)
    ratio = statistics.median(seconds(calls[0]) / seconds(calls[1]) for _ in range(config.repeats))
    detail = f"{config.problems} problems x {config.problem_reads} reads over 1 x {reads}, n = {config.batch_bits}"
    return _row("batch", name, ratio, "x", 1.5, False, detail)


def _implicit(config: BenchSamplers) -> list[dict[str, Any]]:
    bits, ratio, step, memory = _alone(implicit_cost, config)
    detail = f"{step:.2f} s per step of {config.implicit_reads} reads, batch {config.implicit_batch}"
    return [
        _row("implicit", f"{bits} bits, call / products", ratio, "x", 1.3, False, detail),
        _row("implicit", f"{bits} bits, memory", memory, "GB", 4.0, False, "the whole process at its largest"),
    ]


def _convolutions(config: BenchSamplers) -> list[dict[str, Any]]:
    rows = []
    for widths, images in zip(config.convolution_widths, config.convolution_images, strict=True):
        bits, ratio, step, first = _alone(convolutional_cost, config, widths, images)
        detail = f"{step:.2f} s per step of {config.convolution_reads} reads, {images} images"
        rows += [
            _row("convolutions", f"{bits} bits, step / product", ratio, "x", 1.5, False, detail),
            _row("convolutions", f"{bits} bits, first step", first, "s", 20.0, False, "compilation and spectrum"),
        ]
    return rows


def _finder(config: BenchSamplers) -> list[dict[str, Any]]:
    return [
        _row("finder", name, ratio, "", 0.01, False, f"{1e3 * look:.2f} of {1e3 * call:.0f} ms, found {found}")
        for name, ratio, look, call, found in finder_costs(config)
    ]


# At most so much of the error of level descent.
_OF_DESCENT = {2: 0.97, 3: 0.98}


def _levels(config: BenchSamplers) -> list[dict[str, Any]]:
    rows = []
    try:
        found = _alone(layer_errors, config)
    except DataUnavailable as error:
        return [_row("levels", config.level_data, None, "", None, False, str(error))]
    for errors in found:
        over_flips, over_best, over_descent = (errors.levels / e for e in (*errors.flips, errors.descent))
        name, bound = f"{errors.bits} bit" + "s" * (errors.bits > 1), _OF_DESCENT.get(errors.bits)
        rows += [
            _row("levels", f"{name}, level / flip anneal", over_flips, "", 1.0, False, str(errors)),
            _row("levels", f"{name}, the same at the levels' range", over_best, "", None, False, ""),
            _row("levels", f"{name}, level anneal / descent", over_descent, "", bound, False, ""),
        ]
    return rows


def _kernel(config: BenchSamplers) -> list[dict[str, Any]]:
    rows = []
    for gain in gains(config):
        loop, kernel = (f"{rate / 1e6:.0f} M/s" for rate in gain.rates)
        detail = f"loop {loop}, kernel {kernel}, {100 * gain.same:.1f} % of the bits equal"
        rows.append(_row("kernel", gain.name, gain.ratio, "x", 1.0, True, detail))
    return rows or [_row("kernel", "loop / kernel", None, "", None, True, "needs an NVIDIA GPU")]


def _alone(measure: Callable[..., Any], *args: Any) -> Any:
    """measure(*args) in a process of its own, whose largest memory and first call are then those of the measurement."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()


def _compile(config: BenchSamplers) -> list[dict[str, Any]]:
    return [_compiled(graph, name) for graph in _graphs(config) for name in config.compiled]


def _compiled(graph: Instance, name: str) -> dict[str, Any]:
    sampler, key = samplers.get(name), jax.random.key(0)
    start = time.perf_counter()
    jax.jit(lambda key, qubo: sampler(key, qubo, 64)).lower(key, graph.qubo).compile()
    taken = time.perf_counter() - start
    return _row("compile", name, taken, "s", 5.0, False, f"{graph.name}, n = {graph.qubo.num_bits}")


_MEASURES: dict[Measure, Callable[[BenchSamplers], list[dict[str, Any]]]] = {
    "proposals": _proposals,
    "bifurcation": _bifurcation,
    "batch": _batch,
    "implicit": _implicit,
    "convolutions": _convolutions,
    "finder": _finder,
    "levels": _levels,
    "kernel": _kernel,
    "compile": _compile,
}
