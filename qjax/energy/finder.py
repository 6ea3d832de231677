"""Blocks found in a plain Qubo: groups of bits whose number of ones a penalty fixes.

    E(x) = E_rest(x) + sum over groups P (sum_{i in group} x_i - k)^2,     P > 0

A penalty adds 2P to every pair of a group and P (1 - 2k) to every linear term, on top of what else the energy has. So
the pairs of a group are a clique of couplings near 2P: equal ones, or ones far above all others. Tried are the
couplings above each wide gap in their sorted values, and those equal to one or two of the most common values. Of the
connected components of such a graph a clique is a group (one-hot for k = 1, else choose-k), and N x N bits that are
neighbours along rows and columns are an assignment. k is 1/2 - linear / 2P, rounded, and must be the same for all bits.

A choice is accepted where the couplings of a group are equal, or where P is above the root of the sum of squares of all
else that a bit of it has: chance makes no such groups, as a rule. Of several choices that one is returned which leaves
the fewest states. Whatever is found, the equation above is exact (but for rounding): a find can be useless, not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from qjax.energy import candidates
from qjax.energy.blocks import Blocks
from qjax.energy.candidates import Held, Sum
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.energy.searched import Edges, Matrix
from qjax.energy.terms import Terms

# Samplers look for groups on their own in Qubos of at most so many bits: sweeps of groups go through the whole matrix.
MOST_BITS = 2048


@partial(register_dataclass, data_fields=["families", "rest", "weights"], meta_fields=[])
@dataclass(frozen=True)
class Found(Blocks):
    """Groups found in a Qubo, and the parts of its energy: rest, a Qubo without the penalties, and these.
    rest has dense couplings for up to `MOST_BITS` bits.

    Given to a sampler as its `blocks`, it says which moves are worth making, and keeps no state out.
    weights: P of the groups: for each family one array (R,) for each entry of its `sums()`, in order.
    """

    rest: Any = None
    weights: tuple[tuple[Any, ...], ...] = ()

    def check_states(self, name: str, states: Any) -> None:
        """All states are taken."""

    @property
    def least_weight(self) -> jax.Array:
        """The smallest P, ()."""
        return jnp.min(jnp.concatenate([weight for same in self.weights for weight in same]))

    def penalties(self, bits: Any) -> jax.Array:
        """sum over groups P (sum x - k)^2 of bits (..., n): (...), in the unit of E."""
        x = jnp.asarray(bits)
        total = jnp.zeros(x.shape[:-1], self.rest.linear.dtype)
        for family, weights in zip(self.families, self.weights, strict=True):
            for (indices, k), weight in zip(family.sums(), weights, strict=True):
                missed = x[..., indices].sum(-1, dtype=total.dtype) - k
                spread = jnp.broadcast_to(jnp.asarray(weight), missed.shape).astype(total.dtype)
                total = total + (spread * missed * missed).sum(-1)
        return total


def find_blocks(qubo: Qubo) -> Found | None:
    """The groups of bits whose number of ones penalties in the Qubo fix, or None where there are none.

    None, too, for Gram and implicit couplings, a batch, or a Qubo that is traced or spread over hosts. It runs on this
    host.
    """
    unknown = any(
        isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable)
        for leaf in jax.tree.leaves(qubo)
    )
    if unknown or qubo.batch_shape or not float(qubo.scale):
        return None
    with jax.ensure_compile_time_eval():
        return _found_in(qubo)


def _found_in(qubo: Qubo) -> Found | None:
    scale = float(qubo.scale)
    linear, offset = scale * np.asarray(qubo.linear, np.float64), scale * float(qubo.offset)
    match qubo.couplings:
        case Dense(matrix):
            return _found(Matrix(np.asarray(matrix), linear, offset, scale), scale)
        case Sparse() as held:
            rows, cols, weights = held.edges()
            return _found(Edges(Terms(linear, rows, cols, scale * weights, offset), scale), scale)
    return None


def found_in(terms: Terms, dense: bool) -> Found | None:
    """`find_blocks` of terms; dense: whether most pairs are coupled."""
    if not dense:
        return _found(Edges(terms))
    matrix = np.zeros((terms.linear.size, terms.linear.size))
    matrix[terms.rows, terms.cols] = matrix[terms.cols, terms.rows] = terms.weights
    return _found(Matrix(matrix, terms.linear, terms.offset))


def _found(held: Held, scale: float = 1.0) -> Found | None:
    """scale: of the rest."""
    sums = candidates.sums(held)
    if not sums:
        return None
    families = tuple(one.family for one in sums)
    weights = tuple(tuple(_device(strength) for _, _, strength in one.lines) for one in sums)
    return Found(families, _rest(held, sums, scale), weights)


def _rest(held: Held, sums: list[Sum], scale: float) -> Qubo:
    """The energy without the penalties: a matrix, which moves of groups need, for as many bits as they take."""
    linear, offset, n = held.linear.copy(), held.offset, held.linear.size
    firsts, seconds, pairs = [], [], []
    for bits, k, strength in (line for one in sums for line in one.lines):
        first, second = (bits[:, at] for at in np.triu_indices(bits.shape[1], 1))
        firsts.append(first.reshape(-1))
        seconds.append(second.reshape(-1))
        pairs.append(np.repeat(2 * strength, first.shape[1]))
        np.add.at(linear, bits, np.broadcast_to((strength * (2 * k - 1))[:, None], bits.shape))
        offset -= float(strength.sum()) * k * k
    left = held.less((np.concatenate(firsts), np.concatenate(seconds)), np.concatenate(pairs))
    linear, offset = linear / scale, offset / scale
    if not isinstance(left, np.ndarray):
        rows, cols = (np.asarray(ends, np.int64) for ends in left.tocoo().coords)
        if n > MOST_BITS:
            return scale * Terms(linear, rows, cols, left.data, offset).qubo("sparse")
        weights, left = left.data, np.zeros((n, n), jnp.result_type(float))
        left[rows, cols] = left[cols, rows] = weights
    return Qubo(_device(offset), _device(linear), Dense(_device(left)), _device(scale), Labels.range(n))


def _device(number: Any) -> jax.Array:
    """Converted by NumPy: JAX would run a program for each."""
    return jnp.asarray(np.asarray(number, jnp.result_type(float)))
