"""What a problem is: a Qubo, the sense of its objective, the best value known, and the states that are meant."""

from dataclasses import dataclass

import numpy as np

from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.qubo import Qubo

# Above this share of coupled pairs a matrix is both smaller and faster than neighbour lists.
_DENSE_SHARE = 0.1
Known = dict[str, tuple[int, float]]
"""(sense, value) of instances by name, sense -1 for "max"."""


class InstanceError(ValueError):
    """A file that cannot be read as a problem: one line that names the file and, where there is one, the line."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem. sense: -1 where its objective is maximised, 1 where minimised; objective = sense x energy."""

    name: str
    kind: str
    qubo: Qubo
    sense: int = 1
    best_known: float | None = None
    """In the file's own objective; None where nothing is known."""
    blocks: Blocks | None = None
    """The states that groups of bits are meant to take together, for which the Qubo has penalties already; None where
    all states are meant."""

    def feasible(self, bits: np.ndarray) -> np.ndarray:
        """Whether states (..., bits) are meant at all, (...)."""
        if self.blocks is None:
            return np.ones(np.shape(bits)[:-1], bool)
        return np.asarray(self.blocks.feasible(bits))

    def objective(self, energy: float) -> float:
        return self.sense * energy


def qubo_of(
    n: int,
    linear: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    weights: np.ndarray,
    offset: float = 0.0,
    scale: float = 1.0,
) -> Qubo:
    """scale (offset + linear.x + sum_edges w x_i x_j), dense where more than a tenth of the pairs are coupled."""
    couplings: Dense | Sparse
    if len(weights) > _DENSE_SHARE * n * (n - 1) / 2:
        matrix = np.zeros((n, n))
        np.add.at(matrix, (rows, cols), weights)
        couplings = Dense(Qubo.from_matrix(matrix).couplings.to_dense())
    else:
        couplings = Sparse.from_edges(n, rows, cols, weights)
    return Qubo.from_terms(linear, couplings, offset, scale)


def known_value(name: str, known: Known, sense: int | None) -> float | None:
    if name not in known:
        return None
    listed, value = known[name]
    if sense is not None and listed != sense:
        raise InstanceError(f"best_known.csv: {name} is to be {'minimised' if sense == 1 else 'maximised'}")
    return value
