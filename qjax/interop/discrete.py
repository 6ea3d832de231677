"""`dimod.DiscreteQuadraticModel` to a Qubo and its blocks: one bit for each case, one-hot for each variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from qjax.energy import blocks as made
from qjax.energy.blocks import Blocks
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.energy.terms import Terms


class Formulated(NamedTuple):
    """A model as bits. The Qubo's energies are the model's where all of its constraints hold, and decode takes bits
    (reads, n) to values (reads, variables). penalised: the constraints that penalties keep; blocks keep all others."""

    qubo: Qubo
    blocks: Blocks
    decode: Callable[[Any], np.ndarray]
    penalised: tuple[Any, ...] = ()


def from_dqm(dqm: Any, form: str | None = None) -> Formulated:
    """The Qubo of a discrete model, labelled by (variable, case), in the model's order of both.

    decode: the number of the case of each variable; where several bits are set the first of these, where none is case 0
    (which a sampler that keeps the blocks never returns). form: as `qjax.interop.bqm.from_bqm`.
    """
    vectors = dqm.to_numpy_vectors(return_offset=True)
    starts, linear = np.asarray(vectors.case_starts, np.int64), np.asarray(vectors.linear_biases, np.float64)
    names, n = list(dqm.variables), linear.size
    ends = np.append(starts[1:], n) if names else starts
    rows, cols = (np.asarray(part, np.int64) for part in vectors.quadratic[:2])
    terms = Terms(linear, rows, cols, np.asarray(vectors.quadratic.biases), float(vectors.offset))
    labels = Labels(tuple((name, (int(count),)) for name, count in zip(names, ends - starts, strict=True)))

    def decode(bits: Any) -> np.ndarray:
        x = np.asarray(bits)
        cases = [x[:, a:b].argmax(1) for a, b in zip(starts, ends, strict=True)]
        return np.stack(cases, axis=1) if cases else np.zeros((len(x), 0), np.int64)

    held = made.one_hot([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    return Formulated(terms.qubo(form, labels), held, decode)
