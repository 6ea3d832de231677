"""A layer of a network in few bits a weight: what moves of whole weights gain over flips of their bits.

A network is trained for a few epochs; the layer is its last convolution, 3 x 3 of `level_width` channels. W are its
weights, one column a channel, D = W in b bits less W, and G is the Gram matrix of the layer's inputs:

    layer error = tr D'GD / tr W'GW

All anneals start from the same states, those of sequential rounding with error feedback (GPTQ), and take the same
seconds; level descent goes on from there until no weight has a better level.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.implicit import seconds
from experiments.data.sources import Dataset, load
from experiments.images.models import grid_means, scaled
from qjax import samplers
from qjax.descend.refine import refine
from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import Encoding, FixedPoint, encode
from qjax.formulate.patches import conv_patches
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import Quadratic, layer_gram
from qjax.formulate.rounding import sequential
from qjax.interop.flax import Split, linen

if TYPE_CHECKING:
    from experiments.bench.samplers import BenchSamplers

_BATCH = 128
_KERNEL = "Conv_2/kernel"
# Temperatures of a schedule; how often each is swept at is what a call's seconds allow.
_TEMPERATURES = 12
_ONE_PROGRAM_EACH = ("--xla_force_host_platform_device_count", "--xla_cpu_multi_thread_eigen")


class Layer(NamedTuple):
    """The change of its outputs as a quadratic in its kernel, and the accuracy of the network on test images."""

    quadratic: Quadratic
    accuracy: float


class Errors(NamedTuple):
    """Layer errors in `bits` bits a weight, of anneals medians over keys, and the median seconds of a call.

    flips: with the automatic range of temperatures, and with that of levels.
    """

    bits: int
    nearest: float
    rounded: float
    descent: float
    flips: tuple[float, float]
    levels: float
    seconds: tuple[float, float, float]
    sweeps: tuple[int, int]
    accuracy: float

    def __str__(self) -> str:
        descent, flips, levels = self.seconds
        return (
            f"nearest {self.nearest:.5f}, GPTQ {self.rounded:.5f}, level descent {self.descent:.5f} ({descent:.1f} s), "
            f"flip anneal {self.flips[0]:.5f}, by the levels' range {self.flips[1]:.5f} ({self.sweeps[0]} sweeps, "
            f"{flips:.1f} s), level anneal {self.levels:.5f} ({self.sweeps[1]} sweeps, {levels:.1f} s); "
            f"float accuracy {100 * self.accuracy:.1f} %"
        )


def layer_errors(config: BenchSamplers) -> list[Errors]:
    """For each of `level_bits`. Errors: DataUnavailable."""
    # One program on all cores: its products are large, unlike those that bench-samplers spreads over devices.
    kept = (flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_ONE_PROGRAM_EACH))
    os.environ["XLA_FLAGS"] = " ".join(kept)
    layer = trained_layer(config, load(config.level_data))
    return [_errors(config, layer, bits) for bits in config.level_bits]


class _Network(nn.Module):
    """Convolutions of 5 x 5 and 3 x 3 with stride 2 and one of 3 x 3, each with batch statistics; 16 means, linear."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, inputs_only: bool = False) -> Any:
        x = scaled(images)
        for features, size, stride in ((self.width // 2, 5, 2), (self.width, 3, 2), (self.width, 3, 1)):
            if stride == 1 and inputs_only:
                return x
            x = nn.Conv(features, (size, size), (stride, stride), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(10)(grid_means(x, min(4, x.shape[1])))


def trained_layer(config: BenchSamplers, data: Dataset) -> Layer:
    """The last convolution after `level_epochs` epochs, its inputs' Gram matrix over `level_images` images."""
    network, key = _Network(config.level_width), jax.random.key(config.seed)
    train = (jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    split = linen(network, jax.jit(network.init, static_argnums=2)(key, train[0][:1], False))

    def loss(params: Any, state: Any, batch: Any) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        logits, state = split.apply(params, state, batch[0], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), (state, {})

    steps = config.level_epochs * (len(train[0]) // _BATCH)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(max(steps, 2), 3e-3), weight_decay=1e-3)
    found = refine(key, loss, split.params, train, optimizer, steps, state=split.state, batch_size=_BATCH)
    return _layer(split, found.params, found.state, data, config.level_images)


def _layer(split: Split, params: Any, state: Any, data: Dataset, images: int) -> Layer:
    @jax.jit
    def inputs(images: jax.Array) -> jax.Array:
        hidden, _ = split.apply(params, state, images, inputs_only=True)
        return conv_patches(hidden, (3, 3))

    @jax.jit
    def right(images: jax.Array, labels: jax.Array) -> jax.Array:
        logits, _ = split.apply(params, state, images)
        hits: jax.Array = (logits.argmax(-1) == labels).sum()
        return hits

    def batches(array: Any) -> list[Any]:
        return [array[start : start + 250] for start in range(0, len(array), 250)]

    tests = zip(batches(data.test_images), batches(data.test_labels), strict=True)
    correct = sum(int(right(jnp.asarray(x), jnp.asarray(y))) for x, y in tests)
    rows = (inputs(jnp.asarray(x)) for x in batches(data.train_images[:images]))
    return Layer(layer_gram(params, _KERNEL, rows), correct / len(data.test_labels))


@dataclass(frozen=True)
class _Problem:
    """gram, weights: G (F, F) and W (F, C), float64, on the host."""

    gram: np.ndarray
    weights: np.ndarray
    encoding: Encoding
    qubo: Qubo
    blocks: Blocks

    def error(self, bits: Any) -> float:
        """The layer error of bits (C, 1, n / C), or (n,)."""
        kernel = self.encoding.decode(jnp.asarray(bits).reshape(-1))[_KERNEL]
        change = np.asarray(kernel, np.float64).reshape(self.weights.shape) - self.weights
        return float(np.sum(change * (self.gram @ change)) / np.sum(self.weights * (self.gram @ self.weights)))


def _errors(config: BenchSamplers, layer: Layer, bits: int) -> Errors:
    quadratic, key = layer.quadratic, jax.random.key(config.seed)
    curvature: Any = quadratic.curvature
    kernel = quadratic.centre[_KERNEL]
    weights, gram = np.asarray(kernel, np.float64), np.asarray(curvature.gram, np.float64)
    weights = weights.reshape(-1, weights.shape[-1])
    step = jnp.asarray(_steps(weights, np.diag(gram), bits), kernel.dtype)
    encoding = encode({_KERNEL: kernel}, {_KERNEL: FixedPoint(bits, step=step)})
    qubo = pull_back(quadratic, encoding)
    channels, size = qubo.batch_shape[0], qubo.num_bits
    held = encoding.blocks.within(0, size)
    problem = _Problem(gram, weights, encoding, qubo, held)
    rounded = sequential(key, quadratic, encoding, order=config.level_order)
    start = jnp.asarray(rounded).reshape((channels, 1, size))

    def descended() -> Any:
        return samplers.Greedy()(key, qubo, 1, start, blocks=held)

    descent, levels = descended(), samplers.Anneal(_TEMPERATURES)
    by_level, level_seconds, level_sweeps, beta_range = _annealed(config, problem, levels, start, held)
    hot, cold = (float(end) for end in np.median(beta_range, axis=0))
    flips = [levels, samplers.Anneal(_TEMPERATURES, beta_range=(hot, cold))]
    by_flip = [_annealed(config, problem, sampler, start, None) for sampler in flips]
    return Errors(
        bits,
        problem.error(encoding.nearest(encoding.params)),
        problem.error(rounded),
        problem.error(descent.bits),
        (by_flip[0][0], by_flip[1][0]),
        by_level,
        (seconds(descended), by_flip[0][1], level_seconds),
        (by_flip[0][2], level_sweeps),
        layer.accuracy,
    )


def _annealed(
    config: BenchSamplers, problem: _Problem, sampler: Any, start: jax.Array, held: Blocks | None
) -> tuple[float, float, int, np.ndarray]:
    """(median error over `repeats` keys, median seconds of a call, its sweeps, the betas of each channel (C, 2))."""

    def call(repeats: int, number: int = 0) -> Any:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        return jax.block_until_ready(sampler.repeated(key, problem.qubo, 1, start, jnp.int32(repeats), held))

    call(1)
    one = statistics.median(seconds(lambda: call(1)) for _ in range(3))
    three = statistics.median(seconds(lambda: call(3)) for _ in range(3))
    # As many as end within the seconds.
    repeats = max(1, int(1 + 2 * (config.level_seconds - one) / max(three - one, 1e-6)))
    errors, taken = [], []
    for number in range(config.repeats):
        began = time.perf_counter()
        found = call(repeats, number)
        taken.append(time.perf_counter() - began)
        errors.append(problem.error(found.bits))
    betas = np.asarray(found.info["beta_range"])
    return statistics.median(errors), statistics.median(taken), repeats * _TEMPERATURES, betas


def _steps(weights: np.ndarray, diagonal: np.ndarray, bits: int) -> np.ndarray:
    """For each column of W (F, C) the step of the grid of b = `bits` digits around 0 with the least
    sum_i G_ii (nearest_i - W_i)^2, of 41 between 0.2 and 1.2 times that which reaches max |W|, (C,)."""
    half = (2**bits - 1) / 2
    best, least = np.zeros(weights.shape[1]), np.full(weights.shape[1], np.inf)
    for part in np.linspace(0.2, 1.2, 41):
        step = part * np.abs(weights).max(axis=0) / max(half, 1.0)
        nearest = (np.clip(np.round(weights / step + half), 0, 2 * half) - half) * step
        cost = (diagonal[:, None] * (nearest - weights) ** 2).sum(axis=0)
        best, least = np.where(cost < least, step, best), np.minimum(cost, least)
    return best
