"""Networks by name, one for all methods of an experiment; a new one is one entry of `NETWORKS`.

network = get("two-scale", num_classes=10)
params = network.init(key, images)["params"];  logits = network.apply({"params": params}, images)
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Form = Literal["auto", "patches", "conv"]


def patches(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
    """All size x size windows of x (N, H, W, C) at this stride, without padding: (N, H', W', size * size * C)."""
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    windows = [
        x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(windows, axis=-1)


def two_sided(x: jax.Array) -> jax.Array:
    """(max(x, 0), max(-x, 0)) side by side on the last axis: both signs of a filter's answer at the price of one.

    Source: Shang et al. 2016, concatenated ReLU.
    """
    return jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1)


def halved(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 blocks: (N, H, W, C) -> (N, H // 2, W // 2, C); an odd last row or column is left out."""
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def cells(x: jax.Array, grid: int) -> jax.Array:
    """Means over a grid of equal windows, which overlap where `grid` does not divide: (N, H, W, C) -> (N, grid^2 C)."""

    def spans(length: int) -> list[slice]:
        return [slice(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)]

    means = [x[:, rows, columns].mean((1, 2)) for rows in spans(x.shape[1]) for columns in spans(x.shape[2])]
    return jnp.concatenate(means, axis=-1)


class Convolution(nn.Module):
    """A convolution without padding, kernel (size, size, C, features), bias (features,).

    form "patches" gathers windows and multiplies once, which XLA on CPU runs 40 times faster than a convolution inside
    a loop; "conv" is lax.conv, for accelerators; "auto" asks for the backend. Equal up to rounding.
    """

    features: int
    size: int
    stride: int = 1
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        form = self.form if self.form != "auto" else ("patches" if jax.default_backend() == "cpu" else "conv")
        if form == "patches":
            y = patches(x, self.size, self.stride) @ kernel.reshape(-1, self.features)
        else:
            y = jax.lax.conv_general_dilated(
                x, kernel, (self.stride, self.stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return y + bias[None, None, None, :]


class TwoScale(nn.Module):
    """Two convolutions; the head sees the answers of both, averaged over a coarse and a coarser grid.

        h = halved(two_sided(conv1(x))),   features = [cells(h, grids[0]), cells(two_sided(conv2(h)), grids[1])]

    About 0.33 million parameters with the defaults on 32 x 32 x 3, and 10 million multiplications a picture forward.
    """

    num_classes: int = 10
    filters: tuple[int, int] = (128, 128)
    size: int = 6
    stride: int = 2
    grids: tuple[int, int] = (2, 2)
    form: Form = "auto"

    def setup(self) -> None:
        self.conv1 = Convolution(self.filters[0], self.size, self.stride, self.form)
        self.conv2 = Convolution(self.filters[1], 3, 1, self.form)
        self.head = nn.Dense(self.num_classes)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (N, num_classes) of images (N, H, W, C), uint8."""
        return self.head(self.features(images))

    def features(self, images: jax.Array) -> jax.Array:
        """What the head sees, (N, F)."""
        h = self.first(images)
        return jnp.concatenate([cells(h, self.grids[0]), cells(two_sided(self.conv2(h)), self.grids[1])], axis=-1)

    def first(self, images: jax.Array) -> jax.Array:
        """The first layer's answers, both signs, halved: (N, H', W', 2 filters[0])."""
        return halved(two_sided(self.conv1(scaled(images))))


def scaled(images: jax.Array) -> jax.Array:
    """uint8 pixels as numbers near zero: (x - 120) / 64."""
    return (images.astype(jnp.float32) - 120.0) / 64.0


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "two-scale": TwoScale,
    "two-scale-digits": lambda **options: TwoScale(
        **{"filters": (16, 32), "size": 3, "stride": 1, "grids": (3, 1), **options}
    ),
}


def get(name: str, **options: Any) -> nn.Module:
    """The network of this name. Errors: ValueError for an unknown name (suggests the nearest)."""
    if name not in NETWORKS:
        nearest = get_close_matches(name, NETWORKS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown network {name!r}; did you mean {nearest!r}? known: {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](**options)
