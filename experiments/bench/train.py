"""Steps per second of a network's whole training against the same network in PyTorch, on the same cores.

    ratio = median over repeats of (ours steps/s  /  PyTorch's steps/s in the same repeat)

Ours is `qjax.refine` with the network and the recipe of `images.deep`; PyTorch's is `torch_network`, in a process of
its own. Both start from the same weights, hold the same data in memory, and are timed in turn with everything that a
step does: drawing a batch, shifting and mirroring it, forward, backward, AdamW.
"""

import importlib.util
import multiprocessing
import operator
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from experiments.bench import torch_worker
from experiments.harness.presentation.cells import UsageError
from experiments.images.deep import networks
from experiments.images.deep import recipe as recipes
from qjax.descend.refine import Refine
from qjax.spelling import unknown

BOUND = 0.6
# Those that `torch_network` has as well.
NETWORKS = ("conv", "conv-residual", "conv-small")
SHAPE = ("num_classes", "filters", "size", "stride", "widths", "pools", "bridged")


@dataclass(frozen=True)
class BenchTrain:
    """Compare training with PyTorch's: `python -m experiments bench-train`.

    About 2 minutes on 2 CPU cores; the target is a ratio of at least 0.6. Needs torch (third_party/README.md).
    """

    network: str = "conv-residual"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations, on both sides; PyTorch's by autocast. The target is for float32."""
    batch_size: int = 256
    num_images: int = 10_000
    steps: int = 10
    """Steps per repeat."""
    repeats: int = 9
    seed: int = 0


SMOKE: dict[str, Any] = {"network": "conv-small", "batch_size": 32, "num_images": 128, "steps": 2, "repeats": 2}


def bench_train(config: BenchTrain) -> dict[str, Any]:
    """{"config", "threads", "torch", "compile", "rates", "ours", "torch_rate", "target": {"ratio", "bound", "met"}}.

    rates are the steps/s of the repeats of both sides, ours and torch_rate their medians, compile the seconds that
    ours took to compile. Errors: UsageError for an unknown network, or without torch.
    """
    if config.network not in NETWORKS:
        raise UsageError(str(unknown("network", config.network, NETWORKS)))
    if importlib.util.find_spec("torch") is None:
        raise UsageError("bench-train compares with torch, which is not installed: third_party/README.md names its set")
    generator = np.random.default_rng(config.seed)
    images = generator.integers(0, 256, (config.num_images, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, config.num_images, dtype=np.int32)
    side = generator.integers(0, 2, config.num_images, dtype=np.int32)
    network = networks.get(config.network, dtype=jax.numpy.dtype(config.dtype).type)
    key, variables = jax.random.key(config.seed), network.init(jax.random.key(config.seed), images[:1], train=False)
    recipe, length = replace(recipes.Recipe(), batch_size=config.batch_size), config.steps * (config.repeats + 1)
    params, state = variables["params"], recipes.first_state(variables, recipe)
    program = Refine(
        partial(recipes.loss, network, recipe, config.num_images // config.batch_size),
        recipes.optimizer(recipe, length),
        batch_size=config.batch_size,
        augment=partial(recipes.augment, recipe),
        chunk_size=config.steps,
    )
    data = jax.device_put((images, labels, side))
    start = time.perf_counter()
    compiled = program.compile(params, data, state, networks.compiler_options(config.dtype))
    seconds = time.perf_counter() - start
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def ours() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(key, params, data, config.steps, state=state).params)
        return time.perf_counter() - start

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        weights = jax.tree.map(np.asarray, params)
        given = (threads, shape(network), weights, images, labels, asdict(recipe), length, config.dtype)
        version = pool.submit(torch_worker.load, *given).result()
        sides: dict[str, Callable[[], float]] = {
            "ours": ours,
            "torch": lambda: pool.submit(torch_worker.run, config.steps).result(),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(config.repeats + 1):
            for name in sorted(sides, reverse=repeat % 2 == 1):
                rate = config.steps / sides[name]()
                if repeat:  # the first round warms up
                    rates[name].append(rate)
    ratio = statistics.median(map(operator.truediv, rates["ours"], rates["torch"]))
    return {
        "config": asdict(config),
        "threads": threads,
        "torch": version,
        "compile": seconds,
        "rates": rates,
        "ours": statistics.median(rates["ours"]),
        "torch_rate": statistics.median(rates["torch"]),
        "target": {"ratio": ratio, "bound": BOUND, "met": ratio >= BOUND},
    }


def shape(network: Any) -> dict[str, Any]:
    """The fields of the network that `torch_network` takes."""
    return {name: getattr(network, name) for name in SHAPE}


def table(summary: dict[str, Any]) -> str:
    """The rates as a Markdown table, and the verdict."""
    target, config = summary["target"], summary["config"]
    verdict = "met" if target["met"] else "MISSED"
    lines = [
        "| network | batch | threads | ours steps/s | torch steps/s | ratio |",
        "|---|---|---|---|---|---|",
        f"| {config['network']} | {config['batch_size']} | {summary['threads']} | {summary['ours']:.3f} "
        f"| {summary['torch_rate']:.3f} | {target['ratio']:.3f} |",
        "",
        f"torch {summary['torch']}, {config['dtype']}; ours compiled in {summary['compile']:.1f} s",
        f"target: a ratio of at least {target['bound']:g}: {target['ratio']:.3f}, {verdict}",
    ]
    return "\n".join(lines)
