"""Steps per second of `qjax.refine` against a hand-written flax/optax scan loop on the same network.

    ratio = median over repeats of (refine's steps/s  /  the hand-written loop's steps/s right after or before it)

Both are compiled, draw batches of the same data on the device, and are timed in turn; a ratio is taken in each turn,
so that a slow moment of the machine meets both.
"""

import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.presentation.cells import UsageError
from experiments.images.models import Convolution
from qjax.descend.refine import Refine

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class BenchRefine:
    """Compare refine with a hand-written loop: `python -m experiments bench-refine`.

    About 2 minutes on 2 CPU cores; the target is a ratio of at least 0.9 (within 10 % of the hand-written loop).
    """

    networks: tuple[str, ...] = ("conv", "mlp")
    batch_size: int = 256
    num_images: int = 20_000
    steps: int = 10
    """Steps per repeat; the multilayer perceptron takes ten times as many."""
    repeats: int = 15
    seed: int = 0


class Conv(nn.Module):
    """5 x 5 stride-3 convolution of 64, 3 x 3 convolution of 64, mean over positions, linear: 45,000 weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(Convolution(64, 5, 3, "windows")(x))
        x = nn.relu(Convolution(64, 3, 1, "windows")(x))
        return nn.Dense(10)(x.mean(axis=(1, 2)))


class Perceptron(nn.Module):
    """3072 - 128 - 10: steps of about a millisecond, where a loop's own cost would show."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1))))


TIMED_NETWORKS: dict[str, tuple[nn.Module, int]] = {"conv": (Conv(), 1), "mlp": (Perceptron(), 10)}


def bench_refine(config: BenchRefine) -> dict[str, Any]:
    """{"config", "rows": [{"network", "refine", "handwritten", "ratio", ...}], "target": {"ratio", "bound", "met"}}.

    refine and handwritten are medians of steps/s, rates their repeats, ratio the median of the repeats' ratios, compile
    the seconds refine took to compile.
    """
    if unknown := [name for name in config.networks if name not in TIMED_NETWORKS]:
        raise UsageError(f"unknown networks {', '.join(unknown)}; there are {', '.join(sorted(TIMED_NETWORKS))}")
    rows = [_row(config, name) for name in config.networks]
    ratio = min(row["ratio"] for row in rows)
    return {"config": asdict(config), "rows": rows, "target": {"ratio": ratio, "bound": 0.9, "met": ratio >= 0.9}}


def table(summary: dict[str, Any]) -> str:
    """The rows as a Markdown table, and the verdict."""
    lines = ["| network | refine steps/s | hand-written steps/s | ratio |", "|---|---|---|---|"]
    for row in summary["rows"]:
        lines.append(f"| {row['network']} | {row['refine']:.1f} | {row['handwritten']:.1f} | {row['ratio']:.3f} |")
    target = summary["target"]
    verdict = "met" if target["met"] else "MISSED"
    return "\n".join([*lines, "", f"target: a ratio of at least {target['bound']:g}: {target['ratio']:.3f}, {verdict}"])


def _row(config: BenchRefine, name: str) -> dict[str, Any]:
    network, factor = TIMED_NETWORKS[name]
    steps, key = config.steps * factor, jax.random.key(config.seed)
    generator = np.random.default_rng(config.seed)
    data = {
        "image": jnp.asarray(generator.integers(0, 256, (config.num_images, 32, 32, 3), dtype=np.uint8)),
        "label": jnp.asarray(generator.integers(0, 10, config.num_images, dtype=np.int32)),
    }
    params = network.init(key, jnp.zeros((1, 32, 32, 3), jnp.float32))

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits = network.apply(params, batch["image"].astype(jnp.float32) / 127.5 - 1.0)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps))
    program = Refine(loss, optimizer, batch_size=config.batch_size, chunk_size=steps)
    start = time.perf_counter()
    compiled = program.compile(params, data)
    seconds = time.perf_counter() - start
    loops: dict[str, Callable[[], Any]] = {
        "refine": lambda: compiled(key, params, data, steps).params,
        "handwritten": partial(_handwritten(loss, optimizer, config.batch_size, steps), key, params, data),
    }
    rates: dict[str, list[float]] = {loop: [] for loop in loops}
    for repeat in range(config.repeats + 1):
        for loop, run in sorted(loops.items(), reverse=repeat % 2 == 1):
            start = time.perf_counter()
            jax.tree.map(lambda leaf: leaf.block_until_ready(), run())
            if repeat:  # the first round warms up
                rates[loop].append(steps / (time.perf_counter() - start))
    medians = {loop: statistics.median(values) for loop, values in rates.items()}
    ratio = statistics.median(map(operator.truediv, rates["refine"], rates["handwritten"]))
    return {"network": name, **medians, "ratio": ratio, "compile": seconds, "rates": rates}


def _handwritten(
    loss: Callable[..., Any], optimizer: optax.GradientTransformation, size: int, steps: int
) -> Callable[[jax.Array, Any, Batch], Any]:
    """The usual loop: shuffle the epoch, scan over its batches; nothing is checked, only the loss recorded."""

    @partial(jax.jit, static_argnums=4, donate_argnums=(1, 2))
    def scan(key: jax.Array, params: Any, state: Any, data: Batch, length: int) -> tuple[Any, Any, jax.Array]:
        order = jax.random.permutation(key, data["label"].shape[0])

        def step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[rows], data))
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, state), losses = jax.lax.scan(step, (params, state), order[: length * size].reshape(length, size))
        return params, state, losses

    def run(key: jax.Array, params: Any, data: Batch) -> Any:
        params = jax.tree.map(jnp.copy, params)
        state, done, epoch = optimizer.init(params), 0, 0
        while done < steps:
            length = min(data["label"].shape[0] // size, steps - done)
            params, state, losses = scan(jax.random.fold_in(key, epoch), params, state, data, length)
            np.asarray(losses)
            done, epoch = done + length, epoch + 1
        return params

    return run
