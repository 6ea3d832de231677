"""The affine maps bits -> leaves that encodings are made of: leaves = origin + B x, with B linear and structured.

    Digits       a leaf in positional digits: origin + step * (bits . weights), digit by digit and unit by unit
    Selection    a leaf whose slots each take one atom of a dictionary (one-hot)
    Combination  several leaves moved together along given directions

Bits of one part are ordered (unit, digit) with the channel, the last axis of a leaf, OUTERMOST: the bits of a channel
are contiguous, and a problem that separates into channels is a reshape away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from qjax.formulate.leaves import Leaves


class Constraint(NamedTuple):
    """Exactly `required` of the bits in each row of indices (G, K) are 1."""

    indices: np.ndarray
    required: int


BitArray: TypeAlias = tuple[str, tuple[int, ...]]


@partial(register_dataclass, data_fields=["origin", "step"], meta_fields=["path", "weights", "units", "cardinality"])
@dataclass(frozen=True)
class Digits:
    """leaf = origin + step * d, digit sums d = bits (units, b) . weights (b,), one unit broadcast over shared axes.

    origin (leaf shape); step (leaf shape or 1 along any axis); units: the leaf's shape with 1 along the axes that share
    a bit; cardinality: None, or how many units are 1 (one digit only).
    """

    origin: jax.Array
    step: jax.Array
    path: str
    weights: tuple[float, ...]
    units: tuple[int, ...]
    cardinality: int | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    @property
    def num_bits(self) -> int:
        return prod(self.units) * len(self.weights)

    @property
    def origins(self) -> Leaves:
        return {self.path: self.origin}

    @property
    def bit_arrays(self) -> tuple[BitArray, ...]:
        return ((self.path, (*_channel_first(self.units), len(self.weights))),)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        if self.cardinality is None:
            return ()
        return (Constraint(np.arange(self.num_bits)[None, :], self.cardinality),)

    @property
    def nonzeros(self) -> jax.Array | None:
        """How many parameters a set bit makes nonzero, (n,), where that number is linear in the bits (a mask)."""
        if len(self.weights) > 1:
            return None
        if isinstance(self.origin, jax.core.Tracer):
            raise ValueError(f"take nonzeros outside jit: whether {self.path} has a mask depends on its values")
        if bool(jnp.any(self.origin != 0)):
            return None
        kept = jnp.broadcast_to(self.step != 0, self.origin.shape).astype(self.origin.dtype)
        return _to_channel_first(kept.sum(self._shared, keepdims=True)).reshape(-1)

    def apply(self, bits: jax.Array) -> Leaves:
        """B x for x (n,)."""
        digits = _digits(bits, self.weights)
        units = _channel_last(digits.reshape(_channel_first(self.units)))
        shape = self.origin.shape
        return {self.path: jnp.broadcast_to(units, shape) * jnp.broadcast_to(self.step, shape)}

    def transpose(self, leaves: Leaves) -> jax.Array:
        """B'v, (n,)."""
        scaled = leaves[self.path] * jnp.broadcast_to(self.step, self.origin.shape)
        units = _to_channel_first(scaled.sum(self._shared, keepdims=True)).reshape(-1)
        return (units[:, None] * jnp.asarray(self.weights, units.dtype)[None, :]).reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        """The bits whose leaf is nearest in the Euclidean norm, (n,) int8: of the parameters that share a bit, that is
        the level nearest to their least-squares one; ties take the lower level, zero steps level 0."""
        step = jnp.broadcast_to(self.step, self.origin.shape)
        target = leaves[self.path] - self.origin
        along = _to_channel_first((target * step).sum(self._shared, keepdims=True)).reshape(-1)
        squares = _to_channel_first((step * step).sum(self._shared, keepdims=True)).reshape(-1)
        if self.cardinality is not None:
            # Exactly k units are on: those whose bit lowers the distance most.
            weight = self.weights[0]
            gain = weight * (2 * along - weight * squares)
            return jnp.zeros(self.num_bits, jnp.int8).at[jnp.argsort(-gain)[: self.cardinality]].set(1)
        return _nearest_digits(along / jnp.where(squares > 0, squares, 1), self.weights)

    @property
    def _shared(self) -> tuple[int, ...]:
        """The axes along which parameters share a bit."""
        return tuple(axis for axis, size in enumerate(self.units) if size != self.origin.shape[axis])


@partial(register_dataclass, data_fields=["atoms"], meta_fields=["path", "shape", "axis"])
@dataclass(frozen=True)
class Selection:
    """Slot j of the leaf = sum_k x[j, k] atoms[k], exactly one x[j, .] set.

    axis None: every element is a slot and atoms (K,) are its levels. Otherwise slots lie along `axis` and atoms have
    shape (K, *leaf shape without that axis).
    """

    atoms: jax.Array
    path: str
    shape: tuple[int, ...]
    axis: int | None

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    @property
    def num_slots(self) -> int:
        return prod(self.shape) if self.axis is None else self.shape[self.axis]

    @property
    def num_bits(self) -> int:
        return self.num_slots * self.atoms.shape[0]

    @property
    def origins(self) -> Leaves:
        return {self.path: jnp.zeros(self.shape, self.atoms.dtype)}

    @property
    def bit_arrays(self) -> tuple[BitArray, ...]:
        slots = _channel_first(self.shape) if self.axis is None else (self.shape[self.axis],)
        return ((self.path, (*slots, self.atoms.shape[0])),)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return (Constraint(np.arange(self.num_bits).reshape(self.num_slots, -1), 1),)

    @property
    def nonzeros(self) -> jax.Array | None:
        counts = (self.atoms.reshape(self.atoms.shape[0], -1) != 0).sum(-1).astype(self.atoms.dtype)
        return jnp.tile(counts, self.num_slots)

    def apply(self, bits: jax.Array) -> Leaves:
        chosen = bits.reshape(self.num_slots, -1)
        slots = jnp.tensordot(chosen, self.atoms.astype(bits.dtype), axes=1, precision="highest")
        if self.axis is None:
            return {self.path: _channel_last(slots.reshape(_channel_first(self.shape)))}
        return {self.path: jnp.moveaxis(slots, 0, self.axis)}

    def transpose(self, leaves: Leaves) -> jax.Array:
        slots = self._slots(leaves[self.path])
        return jnp.matmul(slots, self.atoms.reshape(self.atoms.shape[0], -1).T, precision="highest").reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        slots, atoms = self._slots(leaves[self.path]), self.atoms.reshape(self.atoms.shape[0], -1)
        scores = (atoms**2).sum(-1)[None, :] - 2 * jnp.matmul(slots, atoms.T, precision="highest")
        return jax.nn.one_hot(jnp.argmin(scores, -1), atoms.shape[0], dtype=jnp.int8).reshape(-1)

    def _slots(self, leaf: jax.Array) -> jax.Array:
        """(slots, size of an atom)."""
        first = _to_channel_first(leaf) if self.axis is None else jnp.moveaxis(leaf, self.axis, 0)
        return first.reshape(self.num_slots, -1)


@partial(register_dataclass, data_fields=["centre", "directions", "low", "step"], meta_fields=["weights"])
@dataclass(frozen=True)
class Combination:
    """leaves = centre + sum_k (low_k + step_k * (bits (K, b) . weights)_k) directions_k.

    centre: leaves by name; directions: leaves with a leading axis K; low, step (K,).
    """

    centre: Leaves
    directions: Leaves
    low: jax.Array
    step: jax.Array
    weights: tuple[float, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.directions)

    @property
    def num_bits(self) -> int:
        return int(self.low.shape[0]) * len(self.weights)

    @property
    def origins(self) -> Leaves:
        shift = self._along(self.low)
        return {name: leaf + shift[name] for name, leaf in self.centre.items()}

    @property
    def bit_arrays(self) -> tuple[BitArray, ...]:
        return (("directions", (int(self.low.shape[0]), len(self.weights))),)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return ()

    @property
    def nonzeros(self) -> jax.Array | None:
        return None

    def apply(self, bits: jax.Array) -> Leaves:
        return self._along(_digits(bits, self.weights) * self.step.astype(bits.dtype))

    def transpose(self, leaves: Leaves) -> jax.Array:
        flat = [
            jnp.tensordot(d, leaves[name], axes=leaves[name].ndim, precision="highest")
            for name, d in self.directions.items()
        ]
        along = sum(flat[1:], flat[0]) * self.step
        return (along[:, None] * jnp.asarray(self.weights, along.dtype)[None, :]).reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        """Nearest along each direction of the least-squares coefficients."""
        names = list(self.directions)
        rows = jnp.concatenate([self.directions[n].reshape(self.low.shape[0], -1) for n in names], axis=1)
        target = jnp.concatenate([(leaves[n] - self.centre[n]).reshape(-1) for n in names])
        coefficients = jnp.linalg.lstsq(rows.T, target)[0]
        return _nearest_digits((coefficients - self.low) / jnp.where(self.step != 0, self.step, 1), self.weights)

    def _along(self, coefficients: jax.Array) -> Leaves:
        return {
            n: jnp.tensordot(coefficients.astype(d.dtype), d, axes=1, precision="highest")
            for n, d in self.directions.items()
        }


Part: TypeAlias = Digits | Selection | Combination


def _digits(bits: jax.Array, weights: tuple[float, ...]) -> jax.Array:
    """The digit sums of bits (units * b,), (units,)."""
    return jnp.matmul(bits.reshape(-1, len(weights)), jnp.asarray(weights, bits.dtype), precision="highest")


def _nearest_digits(sums: jax.Array, weights: tuple[float, ...]) -> jax.Array:
    """The bits (units * b,) whose digit sums are nearest to those given, (units,); of equal ones the lowest code."""
    codes = np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights)) & 1
    levels, first = np.unique(codes @ np.asarray(weights), return_index=True)
    middles = jnp.asarray((levels[1:] + levels[:-1]) / 2, sums.dtype)
    return jnp.asarray(codes[first], jnp.int8)[jnp.searchsorted(middles, sums)].reshape(-1)


def _channel_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[-1:] + shape[:-1]


def _to_channel_first(leaf: jax.Array) -> jax.Array:
    return jnp.moveaxis(leaf, -1, 0) if leaf.ndim else leaf


def _channel_last(units: jax.Array) -> jax.Array:
    return jnp.moveaxis(units, 0, -1) if units.ndim else units
