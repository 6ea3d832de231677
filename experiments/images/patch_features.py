"""Cached features of images: one convolution with filters from the data, rectified and pooled.

    response = relu(<filter, window> + bias), filter and bias from `patches.whitened` (unit deviation)
    feature (block of a grid x grid, filter) = mean over the block; standardised over the training images

Source: Coates, Ng and Lee 2011, An analysis of single-layer networks. The filters come from random windows of the
training images, so another seed is another network. Nothing here is learnt from labels.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import sources
from experiments.images.models import gather_windows, grid_means
from experiments.images.patches import whitened

_BATCH = 500  # images at a time, so that their windows stay small


@dataclass(frozen=True)
class PatchFeatures:
    """`filters` filters of size x size at every stride-th pixel, pooled to grid x grid: filters * grid^2 features for
    each of `networks` networks, which share nothing but the images.

    The filters are windows of the first `shown` training images, whitened with `shrink`. `limit` keeps only the first
    images of either split; the last `validation` of the training images kept are held out.
    """

    networks: int = 1
    filters: int = 16
    size: int = 6
    stride: int = 2
    grid: int = 2
    shrink: float = 0.1
    shown: int = 1000
    validation: int = 5000
    limit: int | None = None


class NetworkFeatures(NamedTuple):
    """Standardised features (N, F) and labels (N,) of the three splits of one network."""

    train: tuple[jax.Array, jax.Array]
    validation: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]


class Features(NamedTuple):
    """The features of each network, and the seconds that decoding and computing took."""

    networks: tuple[NetworkFeatures, ...]
    decoding_seconds: float
    seconds: float


@functools.lru_cache(maxsize=2)
def features(dataset: str, config: PatchFeatures, seed: int) -> Features:
    """Computed once per process for equal arguments; its seconds are kept so that every run can be charged for them.

    Errors: those of `sources.load`.
    """
    images = sources.load(dataset)
    start = time.perf_counter()
    pixels, y = images.train_images[: config.limit], jnp.asarray(images.train_labels[: config.limit])
    pixels_test, y_test = images.test_images[: config.limit], jnp.asarray(images.test_labels[: config.limit])
    cut = len(pixels) - config.validation
    shown = jnp.asarray(pixels[: min(config.shown, cut)].astype(np.float32) / 255)
    count = config.networks * config.filters
    filters = whitened(jax.random.key(seed), shown, count, config.size, config.stride, config.shrink)
    raw, raw_test = (_responses(config, part, *filters) for part in (pixels, pixels_test))
    mean, spread = raw[:cut].mean(0), raw[:cut].std(0) + 1e-6
    networks = []
    for index in range(config.networks):
        x, x_test = (
            jnp.asarray(((part - mean) / spread)[:, :, index].reshape(len(part), -1)) for part in (raw, raw_test)
        )
        networks.append(NetworkFeatures((x[:cut], y[:cut]), (x[cut:], y[cut:]), (x_test, y_test)))
    jax.block_until_ready(networks)
    return Features(tuple(networks), images.seconds, time.perf_counter() - start)


def _responses(config: PatchFeatures, images: sources.Array, kernel: jax.Array, bias: jax.Array) -> sources.Array:
    """Pooled responses (N, blocks of the grid, networks, filters) of all images."""
    parts = [
        np.asarray(_pooled(jnp.asarray(images[i : i + _BATCH]), kernel, bias, config))
        for i in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts).reshape(len(images), config.grid**2, config.networks, config.filters)


@functools.partial(jax.jit, static_argnums=3)
def _pooled(images: jax.Array, kernel: jax.Array, bias: jax.Array, config: PatchFeatures) -> jax.Array:
    """Pooled responses (N, grid^2 K) of one batch, block by block of the grid."""
    windows = gather_windows(images.astype(jnp.float32) / 255, config.size, config.stride)
    flat = kernel.reshape(-1, kernel.shape[-1])
    responses = jax.nn.relu(windows @ flat + bias[None, None, None, :])
    return grid_means(responses, config.grid)
