"""What bifurcation costs on implicit Qubos, Gauss-Newton models of networks, beside their products alone."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.images.models import gather_windows
from qjax import samplers
from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import Sign, encode
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import gauss_newton

if TYPE_CHECKING:
    from experiments.bench.samplers import BenchSamplers


def seconds(call: Callable[[], Any]) -> float:
    """Of the call, until its arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def implicit_cost(config: BenchSamplers) -> tuple[int, float, float, float]:
    """(bits, a call over its products, seconds of a step, GB at most) of a two-layer convolutional network."""
    first, second = config.implicit_widths
    rng = np.random.default_rng(config.seed)
    shapes = {"first": (5, 5, 3, first), "second": (3, 3, first, second), "head": (second, 10)}
    params = {
        name: jnp.asarray(rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)
        for name, shape in shapes.items()
    }
    images = jnp.asarray(rng.standard_normal((config.implicit_batch, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, config.implicit_batch))

    def outputs(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        del labels
        for name in ("first", "second"):
            images = jax.nn.relu(_convolved(images, params[name]))
        return images.mean((1, 2)) @ params["head"]

    def loss(logits: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
        del images
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    quadratic = gauss_newton(outputs, loss, params, images, labels, damping=1e-3)
    qubo = pull_back(quadratic, encode(params, {"first": Sign(), "second": Sign()}), form="implicit")
    reads, steps, n = config.implicit_reads, config.implicit_steps, qubo.num_bits
    sampler = samplers.Bifurcation(num_steps=steps)

    def call(repeats: int) -> float:
        key = jax.random.key(config.seed)
        return seconds(lambda: sampler.repeated(key, qubo, reads, None, jnp.int32(repeats)))

    @jax.jit
    def products(qubo: Qubo, x: jax.Array, times: jax.Array) -> jax.Array:
        found: jax.Array = jax.lax.fori_loop(0, times, lambda _, x: 1e-3 * qubo.couplings.matvec(x), x)
        return found

    x = jnp.ones((reads, n))
    # No step at all: compilation.
    call(0), seconds(lambda: products(qubo, x, jnp.int32(1)))
    taken, bare = call(1), seconds(lambda: products(qubo, x, jnp.int32(steps)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return n, taken / bare, taken / steps, memory


def convolutional_cost(config: BenchSamplers, widths: tuple[int, ...], images: int) -> tuple[int, float, float, float]:
    """(bits, a step over a product, seconds of a step, seconds of the first call without its steps) of a network with
    convolutions of so many features, on the kernels of all but the first."""
    qubo = _convolutional(widths, images, config.seed)
    reads, steps, key = config.convolution_reads, config.convolution_steps, jax.random.key(config.seed)
    sampler = samplers.Bifurcation(num_steps=steps)

    def call(repeats: int) -> float:
        return seconds(lambda: sampler.repeated(key, qubo, reads, None, jnp.int32(repeats)))

    first = call(0)
    x = jnp.where(jax.random.bernoulli(key, shape=(reads, qubo.num_bits)), 1.0, -1.0)
    # As the loss has it, outside of all loops.
    product = jax.jit(lambda qubo, x: jax.vmap(qubo.couplings.apply)(x))
    seconds(lambda: product(qubo, x))
    ratios, taken = [], []
    for _ in range(config.convolution_repeats):
        step = (call(1) - call(0)) / steps
        taken.append(step)
        ratios.append(step / statistics.median(seconds(lambda: product(qubo, x)) for _ in range(5)))
    return qubo.num_bits, statistics.median(ratios), statistics.median(taken), first


def _convolutional(widths: tuple[int, ...], count: int, seed: int) -> Qubo:
    rng = np.random.default_rng(seed)
    images = jnp.asarray(rng.standard_normal((count, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, count))
    network = _Network(widths)
    params = jax.jit(network.init)(jax.random.key(seed), images)["params"]

    # The loss of a user, who closes over data.
    def outputs(params: Any) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):  # of flax's biases
            return jnp.asarray(network.apply({"params": params}, images))

    def loss(logits: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    kernels = [f"Conv_{layer}/kernel" for layer in range(1, len(widths))]
    quadratic = gauss_newton(outputs, loss, params, leaves=kernels, damping=1e-3)
    return pull_back(quadratic, encode(params, {name: Sign() for name in kernels}), form="implicit")


class _Network(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        for width in self.widths:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))  # type: ignore[no-untyped-call]
        return nn.Dense(10)(x.reshape((x.shape[0], -1)))


def _convolved(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 3, no padding, as windows times a matrix."""
    return gather_windows(images, kernel.shape[0], 3) @ kernel.reshape(-1, kernel.shape[-1])
