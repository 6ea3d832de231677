"""Steps per second of `qjax.refine` against hand-written flax/optax loops on the same networks.

    ratio = median over repeats of (refine's steps/s  /  the hand-written loop's steps/s in the same repeat)

The hand-written loop is the faster of two: a scan over the batches, and a jitted step with donated arguments that the
host dispatches. All are compiled, draw batches of the same data on the device, and are timed in turn; a ratio is taken
in each turn, so that a slow moment of the machine meets all.
"""

import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.networks import NETWORKS, Batch
from experiments.harness.presentation.cells import UsageError
from qjax.descend.refine import Refine
from qjax.spelling import unknown

BOUND = 0.95
HOPELESS = 3.0  # a hand-written loop whose first step takes this many times the other's is not timed further


@dataclass(frozen=True)
class BenchRefine:
    """Compare refine with hand-written loops: `python -m experiments bench-refine`.

    About 5 minutes on 2 CPU cores; the target is a ratio of at least 0.95 for every network.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    batch_size: int | None = None
    """None: each network's own."""
    num_images: int = 20_000
    steps: int = 10
    """Steps per repeat; the multilayer perceptron takes thirty times as many."""
    repeats: int = 15
    seed: int = 0


SMOKE: dict[str, Any] = {"networks": ("mlp",), "num_images": 1000, "steps": 2, "repeats": 2}


def bench_refine(config: BenchRefine) -> dict[str, Any]:
    """{"config", "rows": [{"network", "refine", "handwritten", "ratio", ...}], "target": {"ratio", "bound", "met"}}.

    refine and handwritten are medians of steps/s, rates the repeats of all loops, faster the hand-written loop that
    counts, ratio the median of the repeats' ratios, compile the seconds refine took to compile, loop where refine's
    loop runs.
    """
    for name in config.networks:
        if name not in NETWORKS:
            raise UsageError(str(unknown("network", name, NETWORKS)))
    rows = [_row(config, name) for name in config.networks]
    ratio = min(row["ratio"] for row in rows)
    return {"config": asdict(config), "rows": rows, "target": {"ratio": ratio, "bound": BOUND, "met": ratio >= BOUND}}


def table(summary: dict[str, Any]) -> str:
    """The rows as a Markdown table, and the verdict."""
    lines = ["| network | refine steps/s | hand-written steps/s | faster loop | ratio |", "|---|---|---|---|---|"]
    for row in summary["rows"]:
        rates = f"{row['refine']:.1f} | {row['handwritten']:.1f}"
        lines.append(f"| {row['network']} | {rates} | {row['faster']} | {row['ratio']:.3f} |")
    target = summary["target"]
    verdict = "met" if target["met"] else "MISSED"
    return "\n".join([*lines, "", f"target: ratios of at least {target['bound']:g}: {target['ratio']:.3f}, {verdict}"])


def _row(config: BenchRefine, name: str) -> dict[str, Any]:
    network, key = NETWORKS[name], jax.random.key(config.seed)
    steps, size = config.steps * network.steps, config.batch_size or network.batch_size
    generator = np.random.default_rng(config.seed)
    data = {
        "image": jnp.asarray(generator.integers(0, 256, (config.num_images, 32, 32, 3), dtype=np.uint8)),
        "label": jnp.asarray(generator.integers(0, 10, config.num_images, dtype=np.int32)),
    }
    loss, params, state = network.make(key)
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps))
    program = Refine(loss, optimizer, batch_size=size, chunk_size=steps)
    start = time.perf_counter()
    compiled = program.compile(params, data, state)
    seconds = time.perf_counter() - start
    written = {kind: make(loss, optimizer, size) for kind, make in (("scan", _scanned), ("host", _dispatched))}
    first = {kind: _seconds(partial(loop, key, params, state, data, 1)) for kind, loop in written.items()}
    loops: dict[str, Callable[[], Any]] = {"refine": lambda: compiled(key, params, data, steps, state=state).params}
    for kind, loop in written.items():
        if first[kind] <= HOPELESS * min(first.values()):
            loops[kind] = partial(loop, key, params, state, data, steps)
    rates: dict[str, list[float]] = {kind: [] for kind in loops}
    for repeat in range(config.repeats + 1):
        for kind in sorted(loops, reverse=repeat % 2 == 1):
            rate = steps / _once(loops[kind])
            if repeat:  # the first round warms up
                rates[kind].append(rate)
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    faster = max(medians.keys() - {"refine"}, key=medians.__getitem__)
    ratio = statistics.median(map(operator.truediv, rates["refine"], rates[faster]))
    return {
        "network": name,
        "refine": medians["refine"],
        "handwritten": medians[faster],
        "faster": faster,
        "ratio": ratio,
        "compile": seconds,
        "loop": type(compiled.programs.chunk).__name__,
        "first steps": first,
        "rates": rates,
    }


def _once(run: Callable[[], Any]) -> float:
    """The seconds of a call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _seconds(run: Callable[[], Any]) -> float:
    """The seconds of a second call: the first compiles."""
    _once(run)
    return _once(run)


def _updated(
    loss: Callable[..., Any], optimizer: optax.GradientTransformation, carry: tuple[Any, Any, Any], batch: Batch
) -> tuple[tuple[Any, Any, Any], jax.Array]:
    """A step as one writes it: nothing is checked, only the loss recorded. carry: (params, state, moments)."""
    params, state, moments = carry
    if state is None:
        value, gradient = jax.value_and_grad(loss)(params, batch)
    else:
        (value, (state, _)), gradient = jax.value_and_grad(loss, has_aux=True)(params, state, batch)
    updates, moments = optimizer.update(gradient, moments, params)
    return (optax.apply_updates(params, updates), state, moments), value


def _scanned(loss: Callable[..., Any], optimizer: optax.GradientTransformation, size: int) -> Callable[..., Any]:
    """The usual loop on accelerators: shuffle the epoch, scan over its batches."""

    @partial(jax.jit, static_argnums=3, donate_argnums=1)
    def scan(key: jax.Array, carry: Any, data: Batch, length: int) -> Any:
        order = jax.random.permutation(key, data["label"].shape[0])

        def step(carry: Any, rows: jax.Array) -> Any:
            return _updated(loss, optimizer, carry, jax.tree.map(lambda leaf: leaf[rows], data))

        return jax.lax.scan(step, carry, order[: length * size].reshape(length, size))

    def run(key: jax.Array, params: Any, state: Any, data: Batch, steps: int) -> Any:
        carry, done, epoch = jax.tree.map(jnp.copy, (params, state, optimizer.init(params))), 0, 0
        while done < steps:
            length = min(data["label"].shape[0] // size, steps - done)
            carry, losses = scan(jax.random.fold_in(key, epoch), carry, data, length)
            np.asarray(losses)
            done, epoch = done + length, epoch + 1
        return carry[0]

    return run


def _dispatched(loss: Callable[..., Any], optimizer: optax.GradientTransformation, size: int) -> Callable[..., Any]:
    """The usual loop on CPUs: shuffle the epoch, dispatch a jitted step for each batch."""
    shuffled = jax.jit(jax.random.permutation, static_argnums=1)

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, data: Batch, order: jax.Array, place: int) -> Any:
        rows = jax.lax.dynamic_slice_in_dim(order, place * size, size)
        return _updated(loss, optimizer, carry, jax.tree.map(lambda leaf: leaf[rows], data))

    def run(key: jax.Array, params: Any, state: Any, data: Batch, steps: int) -> Any:
        carry, losses = jax.tree.map(jnp.copy, (params, state, optimizer.init(params))), []
        count = data["label"].shape[0]
        for number in range(steps):
            epoch, place = divmod(number, count // size)
            if place == 0:
                order = shuffled(jax.random.fold_in(key, epoch), count)
            carry, value = step(carry, data, order, place)
            losses.append(value)
        np.asarray(losses)
        return carry[0]

    return run
