"""A chip: its couplers, and the chain of qubits that represents each bit of a problem.

In spins, with C_i the chain of bit i and K_ij the number of couplers between C_i and C_j:

    h_q  = h_i / |C_i|      for every qubit q of C_i
    J_pq = J_ij / K_ij      on every coupler between C_i and C_j
    J_pq = -strength        on every coupler inside a chain

A state without broken chains then has the energy of its bits minus strength for every coupler inside a chain. A
coupling J_ij with K_ij = 0 is an error: couplings are never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo


class MissingEdge(ValueError):
    """A coupling of the problem has no coupler between the chains of its two bits."""


@dataclass(frozen=True)
class Chip:
    """The couplers of a chip and the chains of a problem's n bits, made by `Chip.of`.

    The fields are the bytes of int64 arrays, so that a Chip can be hashed and equal ones compile once.

    edges      (couplers, 2): the two qubits of each coupler
    qubits     (qubits,): the used qubits, chain after chain
    lengths    (n,): the number of qubits in each chain
    """

    edges: bytes
    qubits: bytes
    lengths: bytes

    @staticmethod
    def of(edges: Iterable[tuple[int, int]], chains: Sequence[Iterable[int]] | int) -> Chip:
        """edges: pairs of coupled qubits. chains: for each of n bits, the qubits of its chain; or the number n, for
        chains of one qubit each, 0 .. n - 1.

        Errors: ValueError for an empty or disconnected chain, or a qubit used twice.
        """
        pairs = np.asarray([tuple(edge) for edge in edges], np.int64).reshape(-1, 2)
        listed = [[q] for q in range(chains)] if isinstance(chains, int) else [list(chain) for chain in chains]
        flat = [q for chain in listed for q in chain]
        if len(set(flat)) != len(flat):
            raise ValueError("chains must not share qubits")
        neighbours: dict[int, set[int]] = {}
        for a, b in pairs.tolist():
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
        for bit, chain in enumerate(listed):
            if not chain:
                raise ValueError(f"the chain of bit {bit} is empty")
            reached, frontier = {chain[0]}, [chain[0]]
            while frontier:
                new = (neighbours.get(frontier.pop(), set()) & set(chain)) - reached
                reached |= new
                frontier += new
            if len(reached) != len(chain):
                raise ValueError(f"the chain of bit {bit} is not connected: {chain}")
        lengths = np.asarray([len(chain) for chain in listed], np.int64)
        return Chip(pairs.tobytes(), np.asarray(flat, np.int64).tobytes(), lengths.tobytes())

    @cached_property
    def chain_lengths(self) -> np.ndarray:
        """(n,) int64: the number of qubits of each bit."""
        return np.frombuffer(self.lengths, np.int64)

    @property
    def num_bits(self) -> int:
        return int(self.chain_lengths.size)

    @cached_property
    def owner(self) -> np.ndarray:
        """(qubits,): the bit that each used qubit belongs to, chain after chain."""
        return np.repeat(np.arange(self.num_bits), self.chain_lengths)

    @cached_property
    def _couplers(self) -> tuple[np.ndarray, np.ndarray]:
        """(inside chains, between chains), each (2, couplers): positions of a coupler's ends among the used qubits."""
        members = np.frombuffer(self.qubits, np.int64)
        pairs = np.frombuffer(self.edges, np.int64).reshape(-1, 2)
        top = int(max(members.max(initial=0), pairs.max(initial=0))) + 1  # type: ignore[call-overload, unused-ignore]
        place = np.full(top, -1, np.int64)
        place[members] = np.arange(members.size)
        ends = place[pairs].T
        ends = np.unique(np.sort(ends[:, (ends >= 0).all(0)], axis=0), axis=1)
        inside = self.owner[ends[0]] == self.owner[ends[1]]
        return ends[:, inside], ends[:, ~inside]

    @cached_property
    def counts(self) -> np.ndarray:
        """(n, n): K_ij, the number of couplers between the chains of bits i and j; 0 on the diagonal."""
        counts = np.zeros((self.num_bits, self.num_bits), np.int64)
        rows, cols = self.owner[self._couplers[1]]
        np.add.at(counts, (rows, cols), 1)
        np.add.at(counts, (cols, rows), 1)
        return counts

    def check(self, qubo: Qubo) -> None:
        """Checks that the chip can represent a problem.

        Errors: ValueError for another number of bits; MissingEdge for a coupling without a coupler, and for traced
        couplings, which cannot be checked, unless all chains touch.
        """
        if qubo.num_bits != self.num_bits:
            raise ValueError(f"the chip has chains for {self.num_bits} bits, the problem has {qubo.num_bits}")
        absent = self.counts == 0
        np.fill_diagonal(absent, False)
        if not absent.any():
            return
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(qubo.couplings)):
            raise MissingEdge(
                "not all chains of the chip touch, and traced couplings cannot be checked: close over the Qubo instead "
                "of passing it to jit, or embed a complete graph"
            )
        if isinstance(qubo.couplings, Sparse):
            rows, cols, _ = qubo.couplings.edges()
        else:
            rows, cols = np.nonzero(np.triu(np.asarray(qubo.couplings.to_dense()), 1))
        missing = absent[rows, cols]
        if missing.any():
            named = [
                f"{qubo.labels[int(i)]!r}-{qubo.labels[int(j)]!r}"
                for i, j in zip(rows[missing][:4], cols[missing][:4], strict=True)
            ]
            raise MissingEdge(f"no coupler joins the chains of {', '.join(named)} ({missing.sum()} couplings in all)")

    def spread(self, fields: jax.Array, couplings: jax.Array, strength: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(h (qubits,), J (qubits, qubits)) of the used qubits, by the formula above.

        fields (n,), couplings (n, n): those of the bits, in spins. strength (): of the chains.
        """
        owner = self.owner
        h = fields[owner] / jnp.asarray(self.chain_lengths[owner], fields.dtype)
        inside, between = self._couplers
        rows, cols = owner[between]
        shares = couplings[rows, cols] / jnp.asarray(self.counts[rows, cols], couplings.dtype)
        upper = jnp.zeros((owner.size, owner.size), couplings.dtype).at[between[0], between[1]].set(shares)
        upper = upper.at[inside[0], inside[1]].set(-strength)
        return h, upper + upper.T

    def vote(self, key: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(bits (reads, n) int8, fraction of broken chains (reads,)) of qubits' bits (reads, qubits).

        Each chain gives the value of its majority; ties are broken at random.
        """
        spins = (2 * bits - 1).astype(jnp.int32)
        sums = jnp.zeros((bits.shape[0], self.num_bits), jnp.int32).at[:, self.owner].add(spins)
        coin = jax.random.bernoulli(key, 0.5, sums.shape)
        voted = ((sums > 0) | ((sums == 0) & coin)).astype(jnp.int8)
        broken = jnp.abs(sums) != jnp.asarray(self.chain_lengths, jnp.int32)[None, :]
        return voted, broken.astype(jnp.zeros(0).dtype).mean(-1)


def torque_strength(couplings: Any, prefactor: float = 1.414) -> jax.Array:
    """prefactor * sqrt(mean degree) * rms(J), (), for couplings J (n, n); 1 where all are 0.

    The degree of a bit is the number of its couplings, rms runs over those that are not 0: the uniform torque
    compensation of dwave-system.
    """
    coupled = (couplings != 0).sum().astype(couplings.dtype)
    degree = coupled / couplings.shape[0]
    rms = jnp.sqrt((couplings**2).sum() / jnp.maximum(coupled, 1.0))
    return jnp.where(coupled > 0, prefactor * rms * jnp.sqrt(degree), 1.0)
