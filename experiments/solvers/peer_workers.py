"""What runs in the processes of single-threaded peers: a model built once, then one call per rung. Imports no JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Model(NamedTuple):
    """E = offset + linear.x + sum_edges w x_i x_j: what a process is given to build its peer's own form of it."""

    linear: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    weights: np.ndarray
    offset: float


_loaded: list[tuple[Any, Callable[[Any, int, int, int], Any]]] = []


def load(name: str, model: Model) -> None:
    """Builds the dimod model once, before any clock starts."""
    import dimod

    edges = (model.rows, model.cols, model.weights)
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(model.linear, edges, model.offset, "BINARY")
    for missing in range(bqm.num_variables, len(model.linear)):
        bqm.add_linear(missing, float(model.linear[missing]))
    _loaded[:] = [(bqm, SINGLE_THREADED[name])]


def answer(num_reads: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(bits (num_reads, n), energies (num_reads,)) as the peer gives them."""
    bqm, call = _loaded[0]
    found = call(bqm, num_reads, length, seed)
    binary = found if found.vartype.name == "BINARY" else found.change_vartype("BINARY", inplace=False)
    places = np.argsort(list(binary.variables))
    record = binary.record
    repeats = np.resize(np.repeat(np.arange(len(record)), record.num_occurrences), num_reads)
    return record.sample[repeats][:, places].astype(np.int8), np.asarray(record.energy, float)[repeats]


def _dwave_sa(bqm: Any, num_reads: int, length: int, seed: int) -> Any:
    from dwave.samplers import SimulatedAnnealingSampler

    return SimulatedAnnealingSampler().sample(bqm, num_reads=num_reads, num_sweeps=length, seed=seed)


def _dwave_tabu(bqm: Any, num_reads: int, length: int, seed: int) -> Any:
    from dwave.samplers import TabuSampler

    # Its length is a time: the milliseconds that all its reads share. A rung of 100 sweeps is 20 ms.
    timeout = max(length // (5 * num_reads), 1)
    return TabuSampler().sample(bqm, num_reads=num_reads, timeout=timeout, seed=seed)


def _openjij_sa(bqm: Any, num_reads: int, length: int, seed: int) -> Any:
    import openjij

    # No seed: with one, all its reads are the same.
    del seed
    return openjij.SASampler().sample(bqm, num_reads=num_reads, num_sweeps=length)


SINGLE_THREADED: dict[str, Callable[[Any, int, int, int], Any]] = {
    "dwave-sa": _dwave_sa,
    "dwave-tabu": _dwave_tabu,
    "openjij-sa": _openjij_sa,
}
