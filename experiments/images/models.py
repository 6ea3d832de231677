"""Networks by name, one for all methods of an experiment; a new one is one entry of `NETWORKS`.

network = get("patch", num_classes=10)
params = network.init(key, images)["params"];  logits = network.apply({"params": params}, images)
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from qjax.spelling import unknown

Form = Literal["auto", "windows", "conv"]


def gather_windows(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
    """All size x size windows of x (N, H, W, C) at this stride, without padding: (N, H', W', size * size * C)."""
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    windows = [
        x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(windows, axis=-1)


def grid_means(x: jax.Array, grid: int) -> jax.Array:
    """Means over a grid of equal blocks: (N, H, W, C) -> (N, grid^2 C). Rows and columns past a multiple of `grid` are
    left out. Errors: ValueError for a grid finer than x."""
    n, h, w, c = x.shape
    if grid > min(h, w):
        raise ValueError(f"grid must be at most {min(h, w)} for responses of {h} x {w}, got {grid}")
    blocks = x[:, : h // grid * grid, : w // grid * grid].reshape(n, grid, h // grid, grid, w // grid, c)
    return _block_means(blocks).reshape(n, -1)


@jax.custom_jvp
def _block_means(blocks: jax.Array) -> jax.Array:
    """Means of (N, G, h, G, w, C) over h and w. As sums of slices, with which XLA on CPU takes vectors of channels: its
    reduction takes one number at a time, and is kept for derivatives, whose transpose is then a broadcast."""
    height, width = blocks.shape[2], blocks.shape[4]
    rows = sum((blocks[:, :, i] for i in range(1, height)), start=blocks[:, :, 0])
    total = sum((rows[:, :, :, j] for j in range(1, width)), start=rows[:, :, :, 0])
    return total / (height * width)


@_block_means.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _block_means(*primals), tangents[0].mean((2, 4))


class Convolution(nn.Module):
    """A convolution without padding or bias, kernel (size, size, C, features).

    form "windows" gathers windows and multiplies once, which XLA on CPU runs 40 times faster than a convolution inside
    a loop; "conv" is lax.conv, for accelerators; "auto" asks for the backend of the process that
    traces, so name the form of a program that is exported for another. Equal up to rounding.
    """

    features: int
    size: int
    stride: int = 1
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        form = self.form if self.form != "auto" else ("windows" if jax.default_backend() == "cpu" else "conv")
        if form == "windows":
            return gather_windows(x, self.size, self.stride) @ kernel.reshape(-1, self.features)
        return jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class PatchNetwork(nn.Module):
    """One wide convolution, both signs of its responses rectified, averaged over a grid, and a linear head.

        a = conv(x),   h = [max(a - t_0, 0), max(-a - t_1, 0)] - centre,   features = grid_means(h, grid)

    A threshold of its own for each sign of each filter, trained. `centre` is the mean of a rectified unit Gaussian at
    `threshold`, so that features start near zero. 0.1 million parameters with the defaults, 11 million multiplications
    per image forward. Sources: Coates, Ng and Lee 2011 (wide single layers); Shang et al. 2016 (both signs).
    """

    num_classes: int = 10
    filters: int = 512
    size: int = 6
    stride: int = 2
    grid: int = 2
    threshold: float = 0.5
    centre: float = 0.2
    form: Form = "auto"

    def setup(self) -> None:
        self.conv = Convolution(self.filters, self.size, self.stride, self.form)
        self.thresholds = self.param(
            "thresholds", nn.initializers.constant(self.threshold), (2, self.filters), jnp.float32
        )
        self.head = nn.Dense(self.num_classes)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (N, num_classes) of images (N, H, W, C), uint8."""
        return self.head(self.features(images))

    def features(self, images: jax.Array) -> jax.Array:
        """What the head sees, (N, 2 grid^2 filters): per block of the grid the positive, then the negative sides."""
        a = self.conv(scaled(images))
        positive, negative = self.thresholds[:, None, None, None, :]
        # Each side by itself: behind a concatenation XLA no longer sees where its channels lie.
        sides = [grid_means(jax.nn.relu(side), self.grid) for side in (a - positive, -a - negative)]
        blocks = [means.reshape(-1, self.grid**2, self.filters) - self.centre for means in sides]
        return jnp.concatenate(blocks, axis=-1).reshape(images.shape[0], -1)


def scaled(images: jax.Array) -> jax.Array:
    """uint8 pixels as numbers near zero: (x - 120) / 64."""
    return (images.astype(jnp.float32) - 120.0) / 64.0


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "patch": PatchNetwork,
    "patch-small": lambda **options: PatchNetwork(**{"filters": 32, "size": 3, "stride": 1, "grid": 3, **options}),
}


def get(name: str, **options: Any) -> nn.Module:
    """The network of this name. Errors: ValueError for an unknown name (suggests the nearest)."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](**options)
