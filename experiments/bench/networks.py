"""The networks that `bench-refine` times, on 32 x 32 images of 10 classes, each with its loss and where it starts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.images.models import Convolution

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class Network:
    """make(key) returns (loss, params, state) as `qjax.refine` takes them, state None where there is none.

    steps: how many steps a repeat takes, over those of the slowest networks.
    """

    make: Callable[[jax.Array], tuple[Callable[..., Any], Any, Any]]
    batch_size: int
    steps: int


class Perceptron(nn.Module):
    """3072 - 128 - 10: 394,000 weights. Steps of 4 milliseconds, where a loop's own cost shows."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1))))


class Patches(nn.Module):
    """5 x 5 stride-3 convolution of 64, 3 x 3 of 64, as products of windows; mean over positions, linear: 42,000
    weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(Convolution(64, 5, 3, "windows")(x))
        x = nn.relu(Convolution(64, 3, 1, "windows")(x))
        return nn.Dense(10)(x.mean(axis=(1, 2)))


class Convolutional(nn.Module):
    """Three 3 x 3 convolutions of 32, 64 and 128, each with a max-pool, then linear: 114,000 weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (32, 64, 128):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))  # type: ignore[no-untyped-call]
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class Transformer(nn.Module):
    """64 patches of 4 x 4 pixels, two layers of 4 heads, width 128, mean over positions, linear: 413,000 weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 64, 48)
        x = nn.Dense(128)(x) + self.param("positions", nn.initializers.normal(0.02), (1, 64, 128))
        for _ in range(2):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(y, y)
            x = x + nn.Dense(128)(nn.gelu(nn.Dense(512)(nn.LayerNorm()(x))))
        return nn.Dense(10)(nn.LayerNorm()(x).mean(axis=1))


class Block(nnx.Module):
    """x -> relu(shortcut(x) + two 3 x 3 convolutions with batch statistics), halved in size where stride is 2."""

    def __init__(self, width: int, features: int, stride: int, rngs: nnx.Rngs) -> None:
        strides = (stride, stride)
        self.first = nnx.Conv(width, features, (3, 3), strides, use_bias=False, rngs=rngs)
        self.second = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(features, rngs=rngs) for _ in range(2)])
        self.shortcut = nnx.Conv(width, features, (1, 1), strides, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norms[0](self.first(x)))
        return nnx.relu(self.shortcut(x) + self.norms[1](self.second(y)))


class Residual(nnx.Module):
    """A 3 x 3 convolution of 16, three blocks of 16, 32 and 64, mean over positions, dropout, linear: 78,000 weights.

    Its state: batch statistics, and the dropout's key and counter.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(16, 16, 1, rngs), Block(16, 32, 2, rngs), Block(32, 64, 2, rngs)])
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean(axis=(1, 2))))


def _linen(network: nn.Module, key: jax.Array) -> tuple[Callable[..., Any], Any, None]:
    def loss(params: Any, batch: Batch) -> jax.Array:
        logits: Any = network.apply(params, _scaled(batch["image"]))
        return _cross_entropy(logits, batch)

    return loss, network.init(key, jnp.zeros((1, 32, 32, 3), jnp.float32)), None


def _residual(key: jax.Array) -> tuple[Callable[..., Any], Any, Any]:
    graph, params, state = _parts(Residual(nnx.Rngs(key)))

    def loss(params: Any, state: Any, batch: Batch) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        network = nnx.merge(graph, params, state, copy=True)
        value = _cross_entropy(network(_scaled(batch["image"])), batch)
        return value, (_parts(network)[2], {})

    return loss, params, state


def _parts(network: nnx.Module) -> tuple[Any, Any, Any]:
    """Its graph, parameters and state."""
    parts: Any = nnx.split(network, nnx.Param, ...)
    return parts


def _scaled(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 127.5 - 1.0


def _cross_entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


NETWORKS = {
    "mlp": Network(partial(_linen, Perceptron()), 256, 30),
    "patches": Network(partial(_linen, Patches()), 256, 1),
    "cnn": Network(partial(_linen, Convolutional()), 128, 1),
    "resnet": Network(_residual, 128, 1),
    "transformer": Network(partial(_linen, Transformer()), 64, 1),
}
