"""Minor embeddings: from the graph of a problem to chains of qubits, by a search or by the known layout of a clique."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from qjax.annealers.chains import Chip
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.interop.dwave import cache
from qjax.interop.dwave.cache import Chains
from qjax.interop.dwave.errors import NoEmbedding

METHODS = ("auto", "clique", "search")
# Where more than this share of all pairs is coupled, the complete graph is embedded: its layout serves all problems of
# that size.
_DENSE_SHARE = 0.5


class Embedded(NamedTuple):
    """chains: of each bit; origin: "memory", "disk", "search" or "given"; seconds: spent on embedding."""

    chains: Chains
    origin: str
    seconds: float


def graph(qubo: Qubo) -> np.ndarray:
    """The coupled pairs (m, 2) of a problem.

    Of sparse couplings, all pairs of their structure: a coupling whose value is 0 keeps the graph, and the embedding.
    """
    if isinstance(qubo.couplings, Sparse):
        order, pairs, start = np.asarray(qubo.couplings.order), [np.zeros((0, 2), np.int64)], 0
        for index in qubo.couplings.neighbours:
            own = np.repeat(np.arange(start, start + index.shape[0]), index.shape[1])
            other = np.asarray(index).reshape(-1)
            coupled = np.stack([order[own], order[other]], axis=1)[own != other]
            pairs.append(coupled.astype(np.int64))
            start += index.shape[0]
        return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return np.argwhere(np.triu(np.asarray(qubo.couplings.to_dense()), 1) != 0)


def embed(qubo: Qubo, device: Any, method: str | Chains, seed: int, folder: str | None) -> Embedded:
    """Chains of the device's qubits for the bits of a problem.

    method: of `METHODS`, or the chains themselves. folder: of the cache, or None.
    Errors: NoEmbedding; ValueError for given chains that are not an embedding of the problem.
    """
    started = time.perf_counter()
    n, source = qubo.num_bits, graph(qubo)
    edges = np.asarray(device.edgelist, np.int64).reshape(-1, 2)
    if not isinstance(method, str):
        chains = tuple(tuple(int(q) for q in chain) for chain in method)
        if len(chains) != n or not _carries(chains, edges, source):
            raise ValueError("embedding: the given chains are no embedding of the problem on this device")
        return Embedded(chains, "given", time.perf_counter() - started)
    complete = source.shape[0] > _DENSE_SHARE * n * (n - 1) / 2
    clique = method == "clique" or (method == "auto" and complete and n > 1)
    if clique:
        source = np.stack(np.triu_indices(n, 1), axis=1)
    key = cache.key_of(source, n, edges, device.nodelist, "clique" if clique else "search", seed)

    def search() -> Chains:
        return _found(device, source, n, edges, clique, method, seed)

    chains, origin = cache.fetched(
        key, folder, lambda chains: len(chains) == n and _carries(chains, edges, source), search
    )
    return Embedded(chains, origin, time.perf_counter() - started)


def _found(
    device: Any, source: np.ndarray, n: int, edges: np.ndarray, clique: bool, method: str | Chains, seed: int
) -> Chains:
    """Chains by minorminer: the layout of a clique where asked for, else a search. Errors: NoEmbedding."""
    from minorminer import find_embedding
    from minorminer.busclique import find_clique_embedding

    found: dict[int, Any] = {}
    if clique:
        try:
            found = find_clique_embedding(n, device.to_networkx_graph(), seed=seed)
        except (ValueError, AttributeError):
            # More bits than the largest clique of the chip, or a graph of none of D-Wave's topologies.
            found = {}
    if not found and method != "clique":
        loops = [(i, i) for i in range(n)]  # so that bits without couplings get a qubit
        found = find_embedding([*map(tuple, source.tolist()), *loops], [*map(tuple, edges.tolist())], random_seed=seed)
    chains = tuple(tuple(sorted(int(q) for q in found.get(i, ()))) for i in range(n))
    if not found or not _carries(chains, edges, source):
        kind = "a complete graph" if clique else f"{source.shape[0]} couplings"
        raise NoEmbedding(f"no chains found for {n} bits and {kind} on {len(device.nodelist)} qubits")
    return chains


def _carries(chains: Chains, edges: np.ndarray, source: np.ndarray) -> bool:
    """Whether chains are connected, share no qubit, and touch wherever bits are coupled.

    edges (couplers, 2): of the chip; source (m, 2): of the problem.
    """
    try:
        # As lists: Chip.of would iterate over the rows of an array, which is slow.
        counts = Chip.of(edges.tolist(), chains).counts
    except ValueError:
        return False
    return bool(np.all(counts[source[:, 0], source[:, 1]] > 0))
