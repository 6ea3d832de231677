"""Networks of several convolutions by name, for images (N, H, W, 3) in uint8; a new one is one entry of `NETWORKS`.

    network = get("conv", num_classes=10)
    variables = network.init(key, images, train=False)        {"params": ..., "batch_stats": ...}

    conv             for two cores: 50 million multiplications an image forward
    conv-residual    the same with the two pairs of equal widths bridged
    conv-deep        that with one more bridged layer at the end
    conv-narrow      windows of 2 x 2 at stride 1, as `airbench` has it, at a third of its widths
    airbench         94 % on CIFAR-10 in ten epochs on a GPU (Jordan 2024, arXiv:2404.00498)
    resnet           ResNet-18 for images of 32 x 32 (He et al. 2016)

Every network has its first convolution under the name "first": a start from data may fill it. `dtype` is that of the
activations (bfloat16 on accelerators); parameters and statistics stay in float32, and so do logits.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.images.models import scaled
from qjax.spelling import unknown

# BatchNorm's statistics follow quickly: runs last a few thousand steps.
_MOMENTUM = 0.9
_he = nn.initializers.he_normal()


def _convolution(features: int, size: int = 3, stride: int = 1, **options: Any) -> nn.Conv:
    options = dict[str, Any](padding="SAME", use_bias=False, kernel_init=_he, conv_general_dilated=_apart) | options
    return nn.Conv(features, (size, size), (stride, stride), **options)


def _apart(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any) -> jax.Array:
    """A convolution whose input is an array of its own. XLA would else compute the layers before it once more, on one
    thread, inside the transpose that the kernel's gradient begins with; on two cores that is a twentieth of a step."""
    x = jax.lax.optimization_barrier(x)
    if x.dtype == jnp.bfloat16 and padding == "SAME" and set(strides) == {1} and kernel.shape[0] % 2:
        return _same(x, kernel)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


@jax.custom_vjp
def _same(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution (N, H, W, C) with (odd, odd, C, D) at stride 1 that keeps H and W.

    Its gradient by x is the same convolution of what comes back with the mirrored kernel, its channels exchanged:
    written so, and the mirrored kernel an array of its own, oneDNN takes it on CPUs, three times as fast as what XLA
    makes of the derivative in bfloat16. Only reverse mode.
    """
    return _kept(x, kernel)


def _kept(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _same_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _kept(x, kernel), (x, kernel)


def _same_backward(saved: tuple[jax.Array, jax.Array], back: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    mirrored = jax.lax.optimization_barrier(jnp.swapaxes(kernel[::-1, ::-1], 2, 3))
    (by_kernel,) = jax.linear_transpose(partial(_kept, x), kernel)(back)
    return _kept(back, mirrored), by_kernel


_same.defvjp(_same_forward, _same_backward)


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Of blocks of size x size: (N, H, W, C) to (N, H // size, W // size, C), what is left over at the end dropped.

    Of equals the first gets the gradient. Values and gradients are those of `flax.linen.max_pool`, whose gradient is
    XLA's select-and-scatter: on CPUs ten times as long.
    """
    for axis in (2, 1):  # so that the first of equals is so row by row
        places = [jax.lax.slice_in_dim(x, place, x.shape[axis] // size * size, size, axis) for place in range(size)]
        x = functools.reduce(_larger, places)
    return x


def _larger(x: jax.Array, y: jax.Array) -> jax.Array:
    """The first of equals, and what is not a number of either."""
    return jnp.where((y > x) | jnp.isnan(y), y, x)


class Windows(NamedTuple):
    """What a start from data fills in a network's first layer: `filters` of size x size at this stride. signs: 2 where
    the layer holds each filter and its negative, 1 where the network rectifies both signs of every response."""

    filters: int
    size: int
    stride: int = 1
    signs: int = 1


class Normalised(nn.Module):
    """A convolution of 3 x 3, a pool where asked for, BatchNorm, then the nonlinearity."""

    features: int
    pool: int = 1
    stride: int = 1
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu
    dtype: Any = jnp.float32
    initial: Callable[..., jax.Array] = _he
    scaled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = _convolution(self.features, stride=self.stride, dtype=self.dtype, kernel_init=self.initial, name="conv")(x)
        if self.pool > 1:
            x = max_pool(x, self.pool)
        options = {"momentum": _MOMENTUM, "dtype": self.dtype, "use_scale": self.scaled, "name": "norm"}
        return self.activation(nn.BatchNorm(use_running_average=not train, **options)(x))


class ConvNetwork(nn.Module):
    """A first layer of both signs, then convolutions of 3 x 3, the mean of what the last one sees, and a linear head.

        a = first(x),   h = relu([a, -a])          both signs of a filter: Shang et al. 2016 (arXiv:1603.05201)

    widths, pools: of each convolution after the first; bridged: where two convolutions of equal width follow one
    another without a pool, the second one's output is added to its input.
    """

    num_classes: int = 10
    filters: int = 24
    size: int = 4
    stride: int = 2
    widths: tuple[int, ...] = (64, 128, 128, 256, 256)
    pools: tuple[int, ...] = (2, 1, 1, 2, 1)
    bridged: bool = False
    dtype: Any = jnp.float32

    @property
    def windows(self) -> Windows:
        return Windows(self.filters, self.size, self.stride)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (N, num_classes) in float32."""
        x = scaled(images).astype(self.dtype)
        x = _convolution(self.filters, self.size, self.stride, use_bias=True, dtype=self.dtype, name="first")(x)
        x = jax.nn.relu(jnp.concatenate([x, -x], axis=-1))
        for number, (width, pool) in enumerate(zip(self.widths, self.pools, strict=True)):
            y = Normalised(width, pool, dtype=self.dtype, name=f"block{number}")(x, train)
            x = x + y if self.bridged and x.shape == y.shape else y
        x = x.astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x)


class AirBench(nn.Module):
    """Windows of 2 x 2 at both signs, three groups of two convolutions with GELU, a maximum, a scaled linear head.

    Jordan 2024 (arXiv:2404.00498): without biases or BatchNorm's scales, later convolutions begin as the identity on
    as many channels as they can.
    """

    num_classes: int = 10
    filters: int = 12
    widths: tuple[int, ...] = (64, 256, 256)
    scale: float = 1 / 9
    dtype: Any = jnp.float32

    @property
    def windows(self) -> Windows:
        return Windows(self.filters, size=2)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (N, num_classes) in float32."""
        options = {"padding": "VALID", "use_bias": True, "dtype": self.dtype, "name": "first"}
        x = _convolution(self.filters, self.windows.size, **options)(scaled(images).astype(self.dtype))
        x = jax.nn.gelu(jnp.concatenate([x, -x], axis=-1))
        layer = partial(Normalised, activation=jax.nn.gelu, dtype=self.dtype, initial=_identity, scaled=False)
        for number, width in enumerate(self.widths):
            x = layer(width, pool=2, name=f"block{2 * number}")(x, train)
            x = layer(width, name=f"block{2 * number + 1}")(x, train)
        x = x.astype(jnp.float32).max((1, 2))
        return self.scale * nn.Dense(self.num_classes, use_bias=False, name="head")(x)


class ResNet(nn.Module):
    """ResNet-18 with a first layer of 3 x 3 and no first pool, as it is usual for images of 32 x 32."""

    num_classes: int = 10
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depth: int = 2
    dtype: Any = jnp.float32

    @property
    def windows(self) -> Windows:
        return Windows(self.widths[0] // 2, size=3, signs=2)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (N, num_classes) in float32."""
        normed = partial(nn.BatchNorm, use_running_average=not train, momentum=_MOMENTUM, dtype=self.dtype)
        x = _convolution(self.widths[0], use_bias=True, dtype=self.dtype, name="first")(scaled(images))
        x = jax.nn.relu(normed(name="norm")(x))
        for number, width in enumerate(self.widths):
            for place in range(self.depth):
                stride, name = (2 if number and not place else 1), f"block{number}{place}"
                y = Normalised(width, stride=stride, dtype=self.dtype, name=f"{name}a")(x, train)
                y = Normalised(width, activation=lambda x: x, dtype=self.dtype, name=f"{name}b")(y, train)
                if x.shape != y.shape:
                    x = _convolution(width, 1, stride, dtype=self.dtype, name=f"{name}conv")(x)
                    x = normed(name=f"{name}norm")(x)
                x = jax.nn.relu(x + y)
        x = x.astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x)


def compiler_options(dtype: str) -> dict[str, Any] | None:
    """XLA's for a program whose convolutions are in this dtype.

    Later jaxlibs can hand those in bfloat16 to oneDNN, which uses the CPU's instructions for it: on a core that has
    them a step of `conv` takes 0.45 of its time in float32. Products in float32 would be slower there, so other
    programs do without.
    """
    if dtype != "bfloat16" or jax.default_backend() != "cpu" or version("jaxlib").startswith("0.10."):
        return None
    return {"xla_cpu_experimental_onednn_custom_call": True}


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """He's draw, its first outputs replaced by the identity (Dirac) on the inputs, as many as there are of both."""
    drawn = _he(key, shape, dtype)
    same = min(shape[2:])
    return drawn.at[..., :same].set(0.0).at[shape[0] // 2, shape[1] // 2, jnp.arange(same), jnp.arange(same)].set(1.0)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "conv": ConvNetwork,
    "conv-residual": partial(ConvNetwork, bridged=True),
    "conv-deep": partial(ConvNetwork, widths=(64, 128, 128, 256, 256, 256), pools=(2, 1, 1, 2, 1, 1), bridged=True),
    "conv-narrow": partial(AirBench, widths=(24, 80, 80)),
    "conv-small": partial(ConvNetwork, filters=8, widths=(16, 16), pools=(2, 1)),
    "airbench": AirBench,
    "resnet": ResNet,
}


def get(name: str, **options: Any) -> nn.Module:
    """The network of this name. Errors: ValueError for an unknown name (suggests the nearest)."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](**options)
