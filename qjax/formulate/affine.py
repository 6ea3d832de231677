"""The parts of an encoding: affine maps from bits to leaves, leaves = p0 + B x, with B linear and structured.

    Digits       each parameter of a leaf has b digits of its own, or shares them with others (a mask of channels)
    Selection    each slot of a leaf (a parameter, or a slice along one axis) takes one of K atoms (one-hot)
    Combination  several leaves move together along given directions

Every part has, for its n bits x and its leaves v:

    paths, num_bits     the names of its leaves, and n
    origins             p0, leaves by name
    apply(x)            B x, leaves by name, for x (n,) of a floating-point dtype
    transpose(v)        B'v, (n,), in the dtype of v
    nearest(v)          the bits (n,) int8 whose leaves are nearest to v in the Euclidean norm, constraints kept
    bit_arrays          (name, shape) pairs for `Labels`, n bits in all
    constraints         what a state must satisfy
    blocks              the states that groups of bits may take together, each value once (qjax.energy.blocks)
    nonzeros            how many parameters each bit makes nonzero, (n,), or None where that is not linear in the bits

The channel of a leaf comes FIRST in the order of its bits: (channel, other axes of the leaf in their order, digit). So
the bits of a channel are contiguous: where a problem separates into C channels, x.reshape(C, n / C) splits it. The
channel is the last axis of a leaf, or `channel_axis` of its digits.
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

from qjax.energy import blocks
from qjax.energy.blocks import Blocks
from qjax.formulate.leaves import Leaves

# Digits moved as one: a move looks at all their states.
_MOST_DIGITS = 6


class Constraint(NamedTuple):
    """Exactly `required` of the bits in each row of indices (G, K) are 1."""

    indices: np.ndarray
    required: int


BitArray: TypeAlias = tuple[str, tuple[int, ...]]


@partial(
    register_dataclass,
    data_fields=["origin", "step"],
    meta_fields=["path", "weights", "units", "cardinality", "channel_axis"],
)
@dataclass(frozen=True)
class Digits:
    """leaf = origin + step * d,  d = bits (U, b) . weights (b,): one number d for each of U units of b digits.

    A unit is one parameter, or the parameters along some axes, which then share their bits.

    origin       (leaf shape)
    step         leaf shape, or 1 along any of its axes
    path         the leaf's name
    weights      (b,), static: the values of the digits (1, 2, 4, .. or 1, 1)
    units        static: the leaf's shape with 1 along the axes whose parameters share their bits; U = prod(units)
    cardinality  None, or how many units are 1 (b = 1 only)
    channel_axis static: the axis of the leaf that comes first in the order of the bits
    """

    origin: jax.Array
    step: jax.Array
    path: str
    weights: tuple[float, ...]
    units: tuple[int, ...]
    cardinality: int | None = None
    channel_axis: int = -1

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
        return ((self.path, (*_channel_first(self.units, self.channel_axis), len(self.weights))),)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        if self.cardinality is None:
            return ()
        return (Constraint(np.arange(self.num_bits)[None, :], self.cardinality),)

    @property
    def blocks(self) -> Blocks:
        if self.cardinality is not None:
            return blocks.choose([range(self.num_bits)], self.cardinality)
        return _blocks_of_digits(self.num_bits, self.weights)

    @property
    def nonzeros(self) -> jax.Array | None:
        """(n,) for a mask (one digit, origin 0), else None."""
        if len(self.weights) > 1:
            return None
        if isinstance(self.origin, jax.core.Tracer):
            raise ValueError(f"take nonzeros outside jit: whether {self.path} has a mask depends on its values")
        if bool(jnp.any(self.origin != 0)):
            return None
        kept = jnp.broadcast_to(self.step != 0, self.origin.shape).astype(self.origin.dtype)
        return self._flat(kept.sum(self._shared, keepdims=True))

    def apply(self, bits: jax.Array) -> Leaves:
        """B x, the leaf, for x (n,)."""
        digits = _digits(bits, self.weights)
        units = digits.reshape(_channel_first(self.units, self.channel_axis))
        units = _from_channel_first(units, self.channel_axis)
        shape = self.origin.shape
        return {self.path: jnp.broadcast_to(units, shape) * jnp.broadcast_to(self.step.astype(units.dtype), shape)}

    def transpose(self, leaves: Leaves) -> jax.Array:
        """B'v, (n,), for leaves v."""
        leaf = leaves[self.path]
        scaled = leaf * jnp.broadcast_to(self.step.astype(leaf.dtype), self.origin.shape)
        units = self._flat(scaled.sum(self._shared, keepdims=True))
        return (units[:, None] * jnp.asarray(self.weights, units.dtype)[None, :]).reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        """The bits (n,) int8 whose leaf is nearest to that of leaves in the Euclidean norm.

        A unit of several parameters takes the d nearest to their least-squares one. Ties take the lower d; units of
        step 0 take d = 0.
        """
        step = jnp.broadcast_to(self.step, self.origin.shape)
        target = leaves[self.path].astype(self.origin.dtype) - self.origin
        # Both (U,): the distance of a unit is sum (target - step d)^2 = const - 2 d along + d^2 squares.
        along = self._flat((target * step).sum(self._shared, keepdims=True))
        squares = self._flat((step * step).sum(self._shared, keepdims=True))
        if self.cardinality is not None:
            # Exactly k units are 1: those whose bit lowers the distance most.
            weight = self.weights[0]
            gain = weight * (2 * along - weight * squares)
            return jnp.zeros(self.num_bits, jnp.int8).at[jnp.argsort(-gain)[: self.cardinality]].set(1)
        return _nearest_digits(along / jnp.where(squares > 0, squares, 1), self.weights)

    @property
    def _shared(self) -> tuple[int, ...]:
        """The axes along which parameters share their bits."""
        return tuple(axis for axis, size in enumerate(self.units) if size != self.origin.shape[axis])

    def _flat(self, units: jax.Array) -> jax.Array:
        """units, an array of the shape `units`, in the order of the bits, (U,)."""
        return _to_channel_first(units, self.channel_axis).reshape(-1)


@partial(register_dataclass, data_fields=["atoms"], meta_fields=["path", "shape", "axis"])
@dataclass(frozen=True)
class Selection:
    """Slot j of the leaf = sum_k x[j, k] atoms[k], with exactly one of the K bits x[j, .] set.

    atoms   (K,) levels where axis is None, else (K, *leaf shape without `axis`)
    path    the leaf's name
    shape   static: the leaf's shape
    axis    static: None where every parameter is a slot, else the axis along which the slots lie
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
        slots = _channel_first(self.shape, -1) if self.axis is None else (self.shape[self.axis],)
        return ((self.path, (*slots, self.atoms.shape[0])),)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return (Constraint(np.arange(self.num_bits).reshape(self.num_slots, -1), 1),)

    @property
    def blocks(self) -> Blocks:
        return blocks.one_hot(np.arange(self.num_bits).reshape(self.num_slots, -1))

    @property
    def nonzeros(self) -> jax.Array | None:
        """(n,): how many nonzero entries the bit's atom has."""
        counts = (self.atoms.reshape(self.atoms.shape[0], -1) != 0).sum(-1).astype(self.atoms.dtype)
        return jnp.tile(counts, self.num_slots)

    def apply(self, bits: jax.Array) -> Leaves:
        """B x, the leaf, for x (n,)."""
        chosen = bits.reshape(self.num_slots, -1)
        slots = jnp.tensordot(chosen, self.atoms.astype(bits.dtype), axes=1, precision="highest")
        if self.axis is None:
            return {self.path: _from_channel_first(slots.reshape(_channel_first(self.shape, -1)), -1)}
        return {self.path: jnp.moveaxis(slots, 0, self.axis)}

    def transpose(self, leaves: Leaves) -> jax.Array:
        """B'v, (n,), for leaves v."""
        slots = self._slots(leaves[self.path])
        atoms = self.atoms.reshape(self.atoms.shape[0], -1).astype(slots.dtype)
        return jnp.matmul(slots, atoms.T, precision="highest").reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        """The bits (n,) int8 that give every slot its nearest atom; ties take the first."""
        atoms = self.atoms.reshape(self.atoms.shape[0], -1)
        slots = self._slots(leaves[self.path].astype(atoms.dtype))
        scores = (atoms**2).sum(-1)[None, :] - 2 * jnp.matmul(slots, atoms.T, precision="highest")
        return jax.nn.one_hot(jnp.argmin(scores, -1), atoms.shape[0], dtype=jnp.int8).reshape(-1)

    def _slots(self, leaf: jax.Array) -> jax.Array:
        """leaf as a matrix (slots, size of an atom)."""
        first = _to_channel_first(leaf, -1) if self.axis is None else jnp.moveaxis(leaf, self.axis, 0)
        return first.reshape(self.num_slots, -1)


@partial(register_dataclass, data_fields=["centre", "directions", "low", "step"], meta_fields=["weights"])
@dataclass(frozen=True)
class Combination:
    """leaves = centre + sum_k (low_k + step_k d_k) directions_k,  d = bits (K, b) . weights (b,).

    centre      leaves by name
    directions  the same leaves, each with a leading axis K
    low, step   (K,)
    weights     (b,), static: the values of the digits
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
    def blocks(self) -> Blocks:
        return _blocks_of_digits(self.num_bits, self.weights)

    @property
    def nonzeros(self) -> jax.Array | None:
        return None

    def apply(self, bits: jax.Array) -> Leaves:
        """B x, leaves by name, for x (n,)."""
        return self._along(_digits(bits, self.weights) * self.step.astype(bits.dtype))

    def transpose(self, leaves: Leaves) -> jax.Array:
        """B'v, (n,), for leaves v."""
        flat = [
            jnp.tensordot(d.astype(leaves[name].dtype), leaves[name], axes=leaves[name].ndim, precision="highest")
            for name, d in self.directions.items()
        ]
        along = sum(flat[1:], flat[0])
        along = along * self.step.astype(along.dtype)
        return (along[:, None] * jnp.asarray(self.weights, along.dtype)[None, :]).reshape(-1)

    def nearest(self, leaves: Leaves) -> jax.Array:
        """The bits (n,) int8 whose coefficients low + step d are nearest to the least-squares ones, one by one.

        The leaves are the nearest ones only where the directions are orthogonal.
        """
        names = list(self.directions)
        rows = jnp.concatenate([self.directions[n].reshape(self.low.shape[0], -1) for n in names], axis=1)
        target = jnp.concatenate([(leaves[n].astype(self.low.dtype) - self.centre[n]).reshape(-1) for n in names])
        coefficients = jnp.linalg.lstsq(rows.T, target)[0]
        return _nearest_digits((coefficients - self.low) / jnp.where(self.step != 0, self.step, 1), self.weights)

    def _along(self, coefficients: jax.Array) -> Leaves:
        """sum_k coefficients_k directions_k for coefficients (K,)."""
        return {
            n: jnp.tensordot(coefficients, d.astype(coefficients.dtype), axes=1, precision="highest")
            for n, d in self.directions.items()
        }


Part: TypeAlias = Digits | Selection | Combination


def _digits(bits: jax.Array, weights: tuple[float, ...]) -> jax.Array:
    """d = bits (U, b) . weights (b,), (U,), for bits (U * b,)."""
    return jnp.matmul(bits.reshape(-1, len(weights)), jnp.asarray(weights, bits.dtype), precision="highest")


def _blocks_of_digits(num_bits: int, weights: tuple[float, ...]) -> Blocks:
    """The digits of each unit as a group: every value once; many digits are cut into several groups of all states."""
    units = np.arange(num_bits).reshape(-1, len(weights))
    if len(weights) == 1:
        return Blocks()
    states = _states_of_values(weights) if len(weights) <= _MOST_DIGITS else None
    if states is not None and len(states) < 2 ** len(weights):
        return blocks.levels(units, states)
    joined = Blocks()
    for cut in np.array_split(np.arange(len(weights)), -(-len(weights) // _MOST_DIGITS)):
        joined += blocks.digits(units[:, cut])
    return joined


def _states_of_values(weights: tuple[float, ...]) -> np.ndarray:
    """One state (b,) for each value of bits . weights, that of the lowest code, by value."""
    codes = np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights)) & 1
    chosen: np.ndarray = codes[np.unique(codes @ np.asarray(weights), return_index=True)[1]]
    return chosen


def _nearest_digits(sums: jax.Array, weights: tuple[float, ...]) -> jax.Array:
    """The bits (U * b,) int8 whose d are nearest to sums (U,); where codes have the same d, those of the lowest code.

    weights (b,); code c of a unit stands for the bits c = sum_j 2^j x_j.
    """
    states = _states_of_values(weights)
    levels = states @ np.asarray(weights)
    middles = jnp.asarray((levels[1:] + levels[:-1]) / 2, sums.dtype)
    return jnp.asarray(states, jnp.int8)[jnp.searchsorted(middles, sums)].reshape(-1)


def _channel_first(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """shape with the size of `axis` moved to the front."""
    return (shape[axis], *np.delete(shape, axis).tolist()) if shape else ()


def _to_channel_first(leaf: jax.Array, axis: int) -> jax.Array:
    """leaf with `axis` moved to the front."""
    return jnp.moveaxis(leaf, axis, 0) if leaf.ndim else leaf


def _from_channel_first(units: jax.Array, axis: int) -> jax.Array:
    """The inverse of `_to_channel_first`."""
    return jnp.moveaxis(units, 0, axis) if units.ndim else units
