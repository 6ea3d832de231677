"""The inputs of a convolution as rows: what each of its outputs is a scalar product with.

    outputs.reshape(-1, C) = conv_patches(inputs, window, ...) kernel.reshape(-1, C)

for a kernel (*window, I, C), as Flax has it. The F = prod(window) I numbers of a row are in the order of that kernel:
window, then channel. `lax.conv_general_dilated_patches` has them as (channel, window), which is the order of a kernel
(C, I, *window), as Equinox and PyTorch have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def conv_patches(
    inputs: Any,
    window: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[int | tuple[int, int]] = "SAME",
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Patches (N * positions, F) of inputs (N, *spatial, I), rows for `layer_gram` and `least_squares`.

    window: the sizes of the kernel, one per spatial axis, as many as there are. strides, padding, dilation: as of
    `flax.linen.Conv` (its `kernel_dilation`), with its defaults: one number for all axes or one per axis; padding
    "SAME", "VALID", or widths, each a number or a pair (before, after). Positions are in C order, those of the outputs.
    Grouped convolutions are not covered: they have a Gram matrix for each group, where `layer_gram` shares one.
    Errors: ValueError for lengths that do not fit the spatial axes, or a window larger than the padded inputs.
    """
    x = jnp.asarray(inputs)
    window = tuple(window)
    spatial = x.shape[1:-1]
    if x.ndim < 3 or len(window) != len(spatial):
        raise ValueError(f"inputs must have shape (N, {len(window)} spatial axes, channels), got {x.shape}")
    steps, spread = _per_axis("strides", strides, len(window)), _per_axis("dilation", dilation, len(window))
    reach = tuple(rate * (size - 1) + 1 for rate, size in zip(spread, window, strict=True))
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(spatial, reach, steps, padding)
    else:
        widths = [padding] * len(window) if isinstance(padding, int) else padding
        pads = [(width, width) if isinstance(width, int) else (width[0], width[1]) for width in widths]
    if len(pads) != len(window):
        raise ValueError(f"padding must have one entry for each of {len(window)} axes, got {padding}")
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    lengths = [(size - used) // step + 1 for size, used, step in zip(x.shape[1:-1], reach, steps, strict=True)]
    if min(lengths, default=1) < 1:
        raise ValueError(f"window {window} with dilation {spread} is larger than the padded inputs {x.shape}")

    # One strided slice per place in the window: exact in every dtype, which a convolution with 0 and 1 is not.
    def slice_from(offset: tuple[int, ...]) -> jax.Array:
        starts = [place * rate for place, rate in zip(offset, spread, strict=True)]
        ends = [start + (n - 1) * step + 1 for start, n, step in zip(starts, lengths, steps, strict=True)]
        return lax.slice(x, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), (1, *steps, 1))

    places = [slice_from(offset) for offset in itertools.product(*map(range, window))]
    return jnp.concatenate(places, axis=-1).reshape(-1, len(places) * x.shape[-1])


def _per_axis(name: str, value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """value for each of count axes, each at least 1. ValueError for others."""
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count or min(values, default=1) < 1:
        raise ValueError(f"{name} must be at least 1, one number or one per axis ({count}), got {value}")
    return values
