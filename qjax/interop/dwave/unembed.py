"""From spins of qubits to spins of bits: how a broken chain is resolved, by rule.

majority_vote     the sign of the chain's sum; a tie is broken at random
weighted_random   the spin of a qubit drawn from the chain, anew for every read
minimize_energy   broken chains one by one, the one with the strongest local field first, each set against its field
discard           reads with a broken chain are left out; the intact reads are repeated in turn to fill their places

The rules are those of dwave.embedding.chain_breaks, which the tests compare with. They are written again because that
module resolves every tie to +1, draws one qubit per chain for all reads from NumPy's global generator, loops over reads
and chains in Python, and reports broken chains per read but not per bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RULES = ("majority_vote", "weighted_random", "minimize_energy", "discard")


def unembedded(
    rule: str, qubits: np.ndarray, lengths: np.ndarray, spin: Any, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(spins (reads, n) int8, whether chains were broken (reads, n)).

    qubits    (reads, qubits): spins of the qubits, chain after chain
    lengths   (n,): numbers of qubits in the chains
    spin      the problem as a dimod model in spins, with variables 0 .. n - 1

    "discard" resolves as "majority_vote" does; the caller drops the reads that have broken chains.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    sums = np.add.reduceat(qubits.astype(np.int64), starts, axis=1)
    broken = np.abs(sums) != lengths
    if rule == "weighted_random":
        chosen = starts + draw.integers(0, lengths, size=sums.shape)
        return np.take_along_axis(qubits, chosen, axis=1).astype(np.int8), broken
    coin = draw.choice(np.array([-1, 1]), size=sums.shape)
    spins = np.where(sums == 0, coin, np.sign(sums)).astype(np.int8)
    if rule == "minimize_energy":
        for read in np.flatnonzero(broken.any(1)):
            _settle(spins[read], set(np.flatnonzero(broken[read]).tolist()), spin)
    return spins, broken


def _settle(state: np.ndarray, unknown: set[int], spin: Any) -> None:
    """Sets the unknown spins of one read, state (n,), in place."""
    fields = {
        v: spin.get_linear(v) + sum(b * state[w] for w, b in spin.iter_neighborhood(v) if w not in unknown)
        for v in unknown
    }
    while fields:
        v = max(fields, key=lambda u: abs(fields[u]))
        if fields[v] != 0:
            state[v] = -1 if fields[v] > 0 else 1
        del fields[v]
        for w, bias in spin.iter_neighborhood(v):
            if w in fields:
                fields[w] += bias * state[v]
