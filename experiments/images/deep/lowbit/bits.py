"""The bits of one layer, by a QUBO for each of its output channels, all with one Gram matrix.

    X (N, F)   rows of what the layer sees in the network whose layers before it are bits already, less their mean
    Y (N, C)   what it gave in the network before its weights became bits, less the mean
    channel c  min over b in {-1, 1}^F, s:   1/(2N) |s X b - Y_c|^2 + ridge/2 |s b|^2

So each layer makes up for the errors of those before it. Means do not count: BatchNorm takes them off again, and the
head's bias makes up for them. For a given s that is a Qubo of F bits; s is refitted to the bits, then the bits are
sampled again. Rows are windows at random places, and X is in units of its own size, so that one ridge fits all layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.harness.controls import sampler_of
from experiments.images.deep.lowbit import observed
from experiments.images.deep.statistics import placed
from qjax import Quadratic, Qubo, Sign, encode, least_squares, pull_back, samplers
from qjax.formulate.curvature import ChannelGram
from qjax.formulate.minimiser import minimiser
from qjax.formulate.rounding import sequential
from qjax.hybrid import Sample

Tree = Any
_KERNEL = "kernel"


@dataclass(frozen=True)
class Choosing:
    """images: that a layer is observed on; rows: windows of them in all; num_rounds: of bits, each after a refit of the
    scales."""

    images: int = 2048
    rows: int = 16384
    ridge: float = 1e-3
    num_rounds: int = 2
    num_reads: int = 1
    sampler: samplers.Sampler = field(default_factory=lambda: samplers.Anneal(num_sweeps=100))

    def __post_init__(self) -> None:
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")


class Layer(NamedTuple):
    """quadratic: of the kernel (F, C) in units of `unit`; size: Y's mean square; inputs, outputs: the means; first,
    rounded: states (C, F) that samplers start from, and those of the control `rounded`."""

    quadratic: Quadratic
    unit: jax.Array
    size: jax.Array
    inputs: jax.Array
    outputs: jax.Array
    first: jax.Array
    rounded: jax.Array


@dataclass(frozen=True)
class Formulation:
    """(key, variables, before, images) -> `Layer`; before: the variables before any weights became bits."""

    network: nn.Module
    name: str
    config: Choosing

    def __call__(self, key: jax.Array, variables: Tree, before: Tree, images: jax.Array) -> Layer:
        keys = jax.random.split(key)
        inputs, _ = observed.layer(self.network, self.name, variables, images)
        _, outputs = observed.layer(self.network, self.name, before, images)
        x, y = self._rows(keys[0], inputs, outputs)
        means = x.mean(0), y.mean(0)
        x, y = x - means[0][None, :], y - means[1][None, :]
        unit = jnp.sqrt((x**2).mean())
        kernel = _leaf(before["params"], self.name)
        params = {_KERNEL: kernel.reshape(-1, kernel.shape[-1]) * unit}
        quadratic = least_squares(params, _KERNEL, x / unit, y, ridge=self.config.ridge)
        solution = minimiser(quadratic, params, regular=True).params[_KERNEL]
        rounded = (solution.T >= 0).astype(jnp.int8)  # (C, F)
        _, step = _fitted(quadratic, rounded)
        encoding = encode(params, {_KERNEL: Sign(step=step)})
        first = sequential(keys[1], quadratic, encoding, regular=True).reshape(rounded.shape)
        return Layer(quadratic, unit, (y**2).mean(), *means, first, rounded)

    def _rows(self, key: jax.Array, inputs: jax.Array, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(N, F) and (N, C): windows at random places with what was made of them; of a dense layer all rows."""
        if inputs.ndim == 2:
            return inputs, outputs
        count, height, width, channels = inputs.shape
        places = jax.random.randint(key, (count, max(1, self.config.rows // count), 2), 0, jnp.array([height, width]))
        padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))

        def windows(image: jax.Array, made: jax.Array, corners: jax.Array) -> tuple[jax.Array, jax.Array]:
            cut = jax.vmap(lambda corner: jax.lax.dynamic_slice(image, (*corner, 0), (3, 3, channels)))(corners)
            return cut.reshape(len(corners), -1), made[corners[:, 0], corners[:, 1]]

        x, y = jax.vmap(windows)(padded, outputs, places)
        return x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])


@dataclass(frozen=True)
class Scaled:
    """(quadratic, bits (C, F)) -> (bits, the Qubo of all channels at the scales that fit those bits).

    A scale below 0 turns the channel's bits over.
    """

    def __call__(self, quadratic: Quadratic, bits: jax.Array) -> tuple[jax.Array, Qubo]:
        signs, step = _fitted(quadratic, bits)
        encoding = encode(quadratic.centre, {_KERNEL: Sign(step=step)})
        return (signs > 0).astype(jnp.int8), pull_back(quadratic, encoding)


@dataclass(frozen=True)
class Placed:
    """(variables, layer, bits (C, F)) -> (variables with the layer's weights at these bits, its relative error)."""

    name: str

    def __call__(self, variables: Tree, layer: Layer, bits: jax.Array) -> tuple[Tree, jax.Array]:
        signs, step = _fitted(layer.quadratic, bits)
        rows = (signs * step[:, None]).T
        error = 2 * layer.quadratic({_KERNEL: rows}) / (layer.size * len(step))
        kernel = rows / layer.unit
        own = _module(variables["params"], self.name)
        new = {**own, "kernel": kernel.reshape(own["kernel"].shape)}
        if "bias" in own:
            new["bias"] = layer.outputs - jnp.matmul(layer.inputs, kernel, precision="highest")
        params = placed(variables["params"], self.name.split("/"), new)
        return {**variables, "params": params}, error


@dataclass(frozen=True)
class Nearest:
    """variables -> the same with the layer's weights at their signs, times the mean size of the channel's."""

    name: str

    def __call__(self, variables: Tree) -> Tree:
        kernel = _leaf(variables["params"], self.name)
        encoding = encode({_KERNEL: kernel}, {_KERNEL: Sign()})
        rounded = encoding.decode(encoding.nearest({_KERNEL: kernel}))[_KERNEL]
        path = (*self.name.split("/"), "kernel")
        return {**variables, "params": placed(variables["params"], path, rounded)}


def chosen(
    config: Choosing, method: str, key: jax.Array, network: nn.Module, name: str, variables: Tree, before: Tree,
    images: jax.Array, account: Any,
) -> tuple[Tree, float]:  # fmt: skip
    """(variables with the layer's weights at bits chosen by the method's sampler, the layer's relative error)."""
    key, *keys = jax.random.split(key, 1 + config.num_rounds)
    layer = account.call("formulate", Formulation(network, name, config), key, variables, before, images)
    bits = layer.rounded if method == "rounded" else layer.first
    sample = Sample(sampler_of(method, config.sampler), config.num_reads)
    for round_key in keys:
        bits, qubo = account.call("formulate", Scaled(), layer.quadratic, bits)
        start = jnp.broadcast_to(bits[:, None], (len(bits), config.num_reads, bits.shape[1]))
        samples = account.call("anneal", sample, round_key, qubo, start)
        bits = samples.best_bits
    variables, error = account.call("decode", Placed(name), variables, layer, bits)
    return variables, float(error)


def _fitted(quadratic: Quadratic, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(b (C, F) in {-1, 1}, s (C,)) of least q(s b), s >= 0, for bits (C, F) or their opposites."""
    curvature = quadratic.curvature
    assert isinstance(curvature, ChannelGram)
    signs = 2.0 * bits.astype(jnp.float32) - 1.0
    slope = curvature.product(quadratic.centre)[_KERNEL] - quadratic.gradient[_KERNEL]  # (F, C)
    bent = jnp.matmul(signs, curvature.gram, precision="highest")
    step = (signs * slope.T).sum(1) / (signs * bent).sum(1)
    return jnp.where(step[:, None] < 0, -signs, signs), jnp.abs(step)


def _module(params: Tree, name: str) -> Tree:
    for part in name.split("/"):
        params = params[part]
    return params


def _leaf(params: Tree, name: str) -> jax.Array:
    leaf: jax.Array = _module(params, name)["kernel"]
    return leaf
