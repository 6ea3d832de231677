"""The steps of an encoding's grid: given, or found from the values of the leaf, per channel or for the whole leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Per: TypeAlias = Literal["channel", "leaf"]
Rule: TypeAlias = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def step_of(path: str, given: Any, leaf: jax.Array, per: Per, channel: int, rule: Rule) -> jax.Array:
    """A positive step, of the leaf's number of axes, that broadcasts to the leaf.

    `given` where it is not None, a vector being one per channel. Else rule(leaf, axes), which reduces all axes but
    `channel` (per="channel", two axes or more) or all axes, keeping them with size 1; a channel of zeros takes the
    largest step of the others.
    """
    if per not in ("channel", "leaf"):
        raise ValueError(f"per must be 'channel' or 'leaf', got {per!r}")
    if given is None:
        kept = channel if per == "channel" and leaf.ndim > 1 else None
        found = rule(leaf, tuple(axis for axis in range(leaf.ndim) if axis != kept))
        if not isinstance(found, jax.core.Tracer) and not np.any(np.asarray(found)):
            raise ValueError(f"leaf {path!r} is all zeros, so its step cannot be found from it: give step=")
        found = jnp.where(found > 0, found, jnp.broadcast_to(found.max(), found.shape))
        # Under a trace a leaf of zeros cannot be refused: it gets a step that is tiny, but not 0.
        smallest: Any = jnp.finfo(leaf.dtype)  # type: ignore[no-untyped-call]
        return jnp.maximum(found, float(smallest.tiny) ** 0.5)
    step = jnp.asarray(given, leaf.dtype)
    if not isinstance(step, jax.core.Tracer) and not bool(jnp.all((step > 0) & jnp.isfinite(step))):
        raise ValueError("step must be positive and finite")
    fits = step.ndim <= leaf.ndim
    if step.ndim == 1 and leaf.ndim > 1:
        fits = step.shape[0] in (1, leaf.shape[channel])
        step = step.reshape([-1 if axis == channel else 1 for axis in range(leaf.ndim)])
    trailing = leaf.shape[leaf.ndim - step.ndim :]
    if not fits or any(size not in (1, own) for size, own in zip(step.shape, trailing, strict=True)):
        raise ValueError(
            f"step must broadcast to the shape {leaf.shape} of {path} or have one entry per channel, got "
            f"{jnp.shape(given)}"
        )
    return step.reshape((1,) * (leaf.ndim - step.ndim) + step.shape)


def mean_size(w: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The step of `Sign` for w of any shape, the mean of |w| over axes, which stay with size 1."""
    return jnp.abs(w).mean(axes, keepdims=True)


def ternary_scale(w: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The step of `Ternary` for w of any shape, reduced over axes, which stay with size 1."""
    size = jnp.abs(w)
    kept = size > 0.7 * size.mean(axes, keepdims=True)
    kept = kept.astype(w.dtype)
    return (size * kept).sum(axes, keepdims=True) / jnp.maximum(kept.sum(axes, keepdims=True), 1.0)


def reaching(half: float, w: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The step of `FixedPoint` for w of any shape, max |w| / half over axes, which stay with size 1."""
    return jnp.abs(w).max(axes, keepdims=True) / half


def half_range(bits: int) -> float:
    """(2^b - 1) / 2 for b = bits, half the range of b digits. ValueError for b outside 1 .. 16."""
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be in 1 .. 16, got {bits}")
    return (2**bits - 1) / 2


def channel_of(path: str, leaf: jax.Array, axis: int) -> int:
    """The axis of the leaf's channels, counted from the front; -1 for a leaf without axes."""
    return axis_of(path, leaf, axis) if leaf.ndim else -1


def axis_of(path: str, leaf: jax.Array, axis: int) -> int:
    """axis, counted from the front. ValueError where the leaf has no such axis."""
    if not -leaf.ndim <= axis < leaf.ndim:
        raise ValueError(f"axis {axis} is out of range for {path} of shape {leaf.shape}")
    return axis % leaf.ndim
