"""Encodings: the parameters that a state x of n bits stands for, p(x) = p0 + B x.

    encoding = encode(params, {"head/kernel": FixedPoint(bits=4), "conv/kernel": Ternary()})
    encoding = encode(params, Direction(directions, bits=3))

A spec is what the user writes; `encode` binds it to the current values of the leaves. Leaves without a spec keep their
values. By default each channel has one step, found from its values. per="leaf" takes one step for the whole leaf; step=
gives the steps: a scalar, a vector of one per channel, or an array that broadcasts to the leaf. A leaf whose values are
all 0 needs step=.

The channels are the last axis of a leaf, as in Flax's kernels (in, out) and (h, w, in, out). Weights that have them
elsewhere need channel_axis=, here and in the quadratic: 0 for Equinox's and PyTorch's (out, in) and (out, in, h, w). It
decides which parameters share a step, and it comes first in the order of the bits.

Leaves of less than float32 are encoded in float32 and decoded to their own dtype: decode rounds p0 + B x to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from qjax.energy.blocks import Blocks
from qjax.energy.labels import Labels
from qjax.formulate.affine import Combination, Constraint, Digits, Part, Selection
from qjax.formulate.leaves import Leaves, cast, floating, known_finite, names, replace, select, wide
from qjax.formulate.steps import Per, axis_of, channel_of, half_range, mean_size, reaching, step_of, ternary_scale


@partial(register_dataclass, data_fields=["params", "parts"], meta_fields=[])
@dataclass(frozen=True)
class Encoding:
    """p(x) = p0 + B x over a parameter pytree.

    params  the pytree that was encoded
    parts   one per encoded leaf (or one over several leaves); the n bits of x are those of the parts, one after another
    """

    params: Any
    parts: tuple[Part, ...]

    @property
    def num_bits(self) -> int:
        return sum(part.num_bits for part in self.parts)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for part in self.parts for path in part.paths)

    @property
    def labels(self) -> Labels:
        """(leaf name, index) of every bit; the index is (channel, other axes of the leaf in their order, digit).

        The channel is the spec's channel_axis, else the last axis. Where bits stand for slices along an axis (`Mask`,
        `Codebook` with axis=), the other axes have index 0 or are left out: (slice, atom) for `Codebook`.
        """
        return Labels(tuple(array for part in self.parts for array in part.bit_arrays))

    @property
    def origin(self) -> Any:
        """p0: the parameters of the state whose bits are all 0, the encoded leaves in float32 or float64."""
        return replace(self.params, {path: leaf for part in self.parts for path, leaf in part.origins.items()})

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a state (n,) must satisfy to stand for parameters that the specs allow."""
        found, start = [], 0
        for part in self.parts:
            found += [Constraint(c.indices + start, c.required) for c in part.constraints]
            start += part.num_bits
        return tuple(found)

    @property
    def blocks(self) -> Blocks:
        """The states that groups of bits may take: every one that the specs allow, each value of a parameter once.

        Digits of a parameter (in groups of at most six), the levels of a ternary, the atoms of a slot, a mask of fixed
        cardinality; single bits are free.
        """
        joined, start = Blocks(), 0
        for part in self.parts:
            joined += part.blocks.shifted(start)
            start += part.num_bits
        return joined

    @property
    def nonzeros(self) -> jax.Array:
        """How many parameters each bit makes nonzero when it is 1, (n,).

        Errors: ValueError where the number of nonzero parameters is not linear in the bits.
        """
        counts = []
        for part in self.parts:
            if part.nonzeros is None:
                raise ValueError(f"nonzeros of {', '.join(part.paths)} are not linear in bits: use Mask or Codebook")
            counts.append(part.nonzeros)
        return jnp.concatenate(counts)

    def apply(self, bits: jax.Array) -> Leaves:
        """B x for x (n,), as a dict of the encoded leaves."""
        result: Leaves = {}
        for part, chosen in zip(self.parts, self._split(bits), strict=True):
            result |= part.apply(chosen)
        return result

    def transpose(self, leaves: Leaves) -> jax.Array:
        """B'v, (n,), for a dict v that holds the encoded leaves."""
        return jnp.concatenate([part.transpose(leaves) for part in self.parts])

    def decode(self, bits: Any) -> Any:
        """p(x) for bits x (..., n): the pytree, in which encoded leaves have the leading axes of bits, others have not.

        Every leaf has the dtype that it has in `params`. Errors: ValueError for bits of another length.
        """
        bits = jnp.asarray(bits)
        if bits.shape[-1:] != (self.num_bits,):
            raise ValueError(f"bits must have shape (..., {self.num_bits}), got {bits.shape}")
        lead = bits.shape[:-1]
        origins = select(self.origin, self.paths)
        own = select(self.params, self.paths)

        def one(x: jax.Array) -> Leaves:
            moved = cast(self.apply(x.astype(jnp.zeros(0).dtype)), origins)
            return cast({name: leaf + moved[name] for name, leaf in origins.items()}, own)

        leaves = jax.vmap(one)(bits.reshape((-1, self.num_bits))) if lead else one(bits)
        if lead:
            leaves = {name: leaf.reshape((*lead, *leaf.shape[1:])) for name, leaf in leaves.items()}
        return replace(self.params, leaves)

    def nearest(self, params: Any) -> jax.Array:
        """The state (n,) int8 whose leaves are nearest to those of params (Euclidean norm, part by part): rounding."""
        leaves = select(params, self.paths)
        return jnp.concatenate([part.nearest(leaves) for part in self.parts])

    def feasible(self, bits: Any) -> jax.Array:
        """Whether bits (..., n) satisfy every constraint, (...)."""
        x = jnp.asarray(bits)
        holds = jnp.ones(x.shape[:-1], bool)
        for indices, required in self.constraints:
            holds &= (x[..., indices].sum(-1) == required).all(-1)
        return holds

    def repair(self, bits: Any, fields: Any | None = None) -> jax.Array:
        """bits (..., n) as int8, with every constraint satisfied by as few changes as possible.

        fields dE/dx, of the shape of bits: where a group has too many set bits, those with the lowest fields stay set;
        where it has too few, the unset bits with the lowest fields are set. Without fields, bits that are set in
        `self.nearest(self.params)` come first, then lower indices.
        """
        x = jnp.asarray(bits).astype(jnp.int8)
        if not self.constraints:
            return x
        order = -self.nearest(self.params).astype(jnp.float32) if fields is None else jnp.asarray(fields, jnp.float32)
        order = jnp.broadcast_to(order, x.shape)
        for indices, required in self.constraints:
            group, preference = x[..., indices], order[..., indices]
            rank = jnp.lexsort((preference, -group), axis=-1)
            place = jnp.argsort(rank, axis=-1)
            x = x.at[..., indices].set((place < required).astype(jnp.int8))
        return x

    def _split(self, bits: jax.Array) -> list[jax.Array]:
        """bits (n,) as one vector per part."""
        return jnp.split(bits, np.cumsum([part.num_bits for part in self.parts])[:-1].tolist())


class Spec(Protocol):
    """How a leaf is to be encoded: `bind` makes a part of an encoding from the leaf's name and its value."""

    def bind(self, path: str, leaf: jax.Array) -> Part: ...


def encode(params: Any, specs: Mapping[str, Spec] | Direction) -> Encoding:
    """The encoding of params by specs, a dict by leaf name, or by one Direction over several leaves.

    Errors: ValueError for a leaf that does not exist (with the nearest name), is empty, not floating-point, or concrete
    and not finite, and whatever a spec rejects.
    """
    if isinstance(specs, Direction):
        return Encoding(params, (specs.bind_tree(params),))
    if not specs:
        raise ValueError("specs name no leaf")
    leaves = wide(floating(select(params, specs)))
    if broken := [path for path, leaf in leaves.items() if not known_finite(leaf)]:
        raise ValueError(f"leaf {broken[0]!r} holds NaN or infinity")
    if empty := [path for path, leaf in leaves.items() if not leaf.size]:
        raise ValueError(f"leaf {empty[0]!r} has no parameters to encode, its shape is {leaves[empty[0]].shape}")
    return Encoding(params, tuple(spec.bind(path, leaves[path]) for path, spec in specs.items()))


@dataclass(frozen=True)
class Sign:
    """w in {-s, +s}, as s (2 x - 1): one bit per parameter.

    s: `step`, else the mean of |w|, which makes s sign(w) nearest to w (Rastegari et al. 2016).
    """

    step: Any = None
    per: Per = "channel"
    channel_axis: int = -1

    def bind(self, path: str, leaf: jax.Array) -> Digits:
        channel = channel_of(path, leaf, self.channel_axis)
        step = step_of(path, self.step, leaf, self.per, channel, mean_size)
        origin = -jnp.broadcast_to(step, leaf.shape)
        return Digits(origin, 2 * step, path, (1.0,), leaf.shape, channel_axis=channel)


@dataclass(frozen=True)
class Ternary:
    """w in {-s, 0, +s}, as s (x1 + x2 - 1): two bits per parameter.

    s: `step`, else the mean of those |w| that are above 0.7 times the mean of |w| (Li et al. 2016).
    """

    step: Any = None
    per: Per = "channel"
    channel_axis: int = -1

    def bind(self, path: str, leaf: jax.Array) -> Digits:
        channel = channel_of(path, leaf, self.channel_axis)
        step = step_of(path, self.step, leaf, self.per, channel, ternary_scale)
        origin = -jnp.broadcast_to(step, leaf.shape)
        return Digits(origin, step, path, (1.0, 1.0), leaf.shape, channel_axis=channel)


@dataclass(frozen=True)
class FixedPoint:
    """w = centre + step (k - (2^b - 1) / 2), k = sum_j 2^j x_j in 0 .. 2^b - 1: b = `bits` bits per parameter.

    centre: 0, or the current leaf with around="current" (for rounds that re-centre).
    step: given, else max |w| / ((2^b - 1) / 2), with which the grid around 0 just reaches max |w|, per channel or leaf.
    """

    bits: int = 4
    step: Any = None
    per: Per = "channel"
    around: Literal["zero", "current"] = "zero"
    channel_axis: int = -1

    def bind(self, path: str, leaf: jax.Array) -> Digits:
        half, channel = half_range(self.bits), channel_of(path, leaf, self.channel_axis)
        step = step_of(path, self.step, leaf, self.per, channel, partial(reaching, half))
        centre = leaf if self.around == "current" else jnp.zeros_like(leaf)
        origin = centre - half * jnp.broadcast_to(step, leaf.shape)
        weights = tuple(float(2**j) for j in range(self.bits))
        return Digits(origin, step, path, weights, leaf.shape, channel_axis=channel)


@dataclass(frozen=True)
class Rounding:
    """w = step (floor(w0 / step) + x), w0 the current value: each parameter is rounded down (x = 0) or up (x = 1).

    One bit per parameter, whatever `bits` is. step: given, else that of FixedPoint(bits), max |w| / (2^(b-1) - 1/2)
    with b = `bits`, per channel or leaf. The grid is that of the multiples of the step, not that of FixedPoint between
    them: with the default step it has 2^b + 1 levels, -2^(b-1) step .. 2^(b-1) step. `bits` has no other use.
    """

    step: Any = None
    bits: int = 4
    per: Per = "channel"
    channel_axis: int = -1

    def bind(self, path: str, leaf: jax.Array) -> Digits:
        channel = channel_of(path, leaf, self.channel_axis)
        step = step_of(path, self.step, leaf, self.per, channel, partial(reaching, half_range(self.bits)))
        full = jnp.broadcast_to(step, leaf.shape)
        return Digits(jnp.floor(leaf / full) * full, step, path, (1.0,), leaf.shape, channel_axis=channel)


@dataclass(frozen=True)
class Mask:
    """w = x w0, w0 the current value: pruning.

    axis: None for one bit per parameter, else one bit per slice along this axis (-1 or 0: per channel or filter).
    cardinality: how many bits must be 1; None for any number.
    """

    axis: int | None = None
    cardinality: int | None = None

    def bind(self, path: str, leaf: jax.Array) -> Digits:
        units = leaf.shape
        if self.axis is not None:
            axis = axis_of(path, leaf, self.axis)
            units = tuple(size if i == axis else 1 for i, size in enumerate(leaf.shape))
        part = Digits(jnp.zeros_like(leaf), leaf, path, (1.0,), units, self.cardinality)
        if self.cardinality is not None and not 0 <= self.cardinality <= part.num_bits:
            raise ValueError(f"cardinality must be in 0 .. {part.num_bits}, got {self.cardinality}")
        return part


@dataclass(frozen=True, eq=False)
class Codebook:
    """Every slot of the leaf takes one of K atoms: K bits per slot, of which exactly one is 1 (one-hot).

    axis None: slots are single parameters, and atoms (K,) are their levels. Otherwise slots are the slices along
    `axis`, and atoms have shape (K, *leaf shape without that axis): filters from a dictionary.
    """

    atoms: Any
    axis: int | None = None

    def bind(self, path: str, leaf: jax.Array) -> Selection:
        atoms = jnp.asarray(self.atoms, leaf.dtype)
        axis = None if self.axis is None else axis_of(path, leaf, self.axis)
        shape = () if axis is None else leaf.shape[:axis] + leaf.shape[axis + 1 :]
        if atoms.ndim != len(shape) + 1 or atoms.shape[1:] != shape or atoms.shape[0] == 0:
            raise ValueError(f"atoms for {path} must have shape (K, {', '.join(map(str, shape))}), got {atoms.shape}")
        return Selection(atoms, path, leaf.shape, axis)


@dataclass(frozen=True, eq=False)
class Direction:
    """p = p0 + sum_k radius_k t_k directions_k, p0 the current parameters: coordinates t in a subspace of K directions.

    t_k = 2 m_k / (2^b - 1) - 1 in [-1, 1], with m_k = sum_j 2^j x_kj in 0 .. 2^b - 1: b = `bits` bits per direction.
    directions: a pytree like params, or a dict of some leaves by name, each leaf with a leading axis K.
    radius: scalar or (K,).
    """

    directions: Any
    bits: int = 3
    radius: Any = 1.0

    def bind_tree(self, params: Any) -> Combination:
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits must be in 1 .. 16, got {self.bits}")
        by_name = isinstance(self.directions, dict) and set(self.directions) <= set(names(params))
        directions = dict(self.directions) if by_name else select(self.directions, names(self.directions))
        centre = wide(floating(select(params, directions)))
        directions = {name: jnp.asarray(d, centre[name].dtype) for name, d in directions.items()}
        sizes = {d.shape[0] if d.ndim else -1 for d in directions.values()}
        if len(sizes) != 1 or any(d.shape[1:] != centre[n].shape for n, d in directions.items()):
            raise ValueError("directions must have the shapes of their leaves behind one leading axis K")
        dtype = next(iter(centre.values())).dtype
        radius = jnp.broadcast_to(jnp.asarray(self.radius, dtype), (sizes.pop(),))
        weights = tuple(float(2**j) for j in range(self.bits))
        return Combination(centre, directions, -radius, 2 * radius / (2**self.bits - 1), weights)
