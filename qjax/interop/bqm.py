"""Qubo <-> dimod.BinaryQuadraticModel, vectorised in both directions. dimod is imported on the first call."""

from __future__ import annotations

from typing import Any

import numpy as np

from qjax.energy.couplings import Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.energy.terms import Terms
from qjax.samplers.samples import Samples

_ROUNDING = 2.0**-48
# Names of a sample set's own: `num_occurrences` means there what it means here.
_TAKEN = frozenset({"sample", "energy", "vartype", "info", "aggregate_samples", "sort_labels", "samples_like", "bqm"})


def to_bqm(qubo: Qubo) -> Any:
    """E(x) as a binary `dimod.BinaryQuadraticModel` in float64, its variables named by the Qubo's labels.

    The Qubo's scale is multiplied in. Errors: ValueError for a batch of problems.
    """
    import dimod

    if qubo.batch_shape:
        raise ValueError(f"a binary quadratic model is one problem, this Qubo has the batch shape {qubo.batch_shape}")
    n, scale = qubo.num_bits, float(qubo.scale)
    linear = scale * np.asarray(qubo.linear, np.float64)
    offset = scale * float(qubo.offset)
    if isinstance(qubo.couplings, Sparse):
        rows, cols, weights = qubo.couplings.edges()
        bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(linear, (rows, cols, scale * weights), offset, dimod.BINARY)
        for missing in range(bqm.num_variables, n):
            bqm.add_linear(missing, float(linear[missing]))
    else:
        matrix = np.asarray(qubo.couplings.to_dense())
        # Implicit couplings keep their diagonal: on bits x^2 = x makes it a linear term.
        linear = linear + 0.5 * scale * np.diagonal(matrix).astype(np.float64)
        upper = np.triu(matrix, 1).astype(np.float64)
        if scale != 1.0:
            upper *= scale
        bqm = dimod.BinaryQuadraticModel(n, "BINARY")
        bqm.add_linear_from_array(linear)
        bqm.add_quadratic_from_dense(upper)
        bqm.offset = offset
    labels = [qubo.labels[i] for i in range(n)]
    if labels != list(range(n)):
        bqm.relabel_variables(dict(enumerate(labels)))
    return bqm


def from_bqm(bqm: Any, form: str | None = None) -> Qubo:
    """The Qubo of a binary or spin model: bits in the model's order of variables, labelled with them.

    form: "dense", "sparse", or None: dense where more than a tenth of all pairs are coupled.
    The spin form of a binary model gives the same Qubo: linear terms that are no more than rounding become 0.
    Errors: ValueError for another form, and for biases that are not finite.
    """
    return terms_of(bqm).qubo(form, Labels.of_names(bqm.variables))


def terms_of(bqm: Any) -> Terms:
    """The terms of a binary or spin model in bits, in its order of variables."""
    is_spin = bqm.vartype.name != "BINARY"
    binary = bqm.change_vartype("BINARY", inplace=False) if is_spin else bqm
    n = binary.num_variables
    vectors = binary.to_numpy_vectors(variable_order=list(binary.variables))
    rows, cols = np.asarray(vectors.quadratic.row_indices), np.asarray(vectors.quadratic.col_indices)
    weights, linear = np.asarray(vectors.quadratic.biases), np.asarray(vectors.linear_biases)
    if is_spin:
        # 2h - 2 sum J: what is left of terms that cancel would break ties between states of equal energy.
        summed = sum(np.bincount(ends, np.abs(weights), n) for ends in (rows, cols))
        linear = np.where(np.abs(linear) <= _ROUNDING * summed, 0.0, linear)
    return Terms(linear, rows, cols, weights, float(vectors.offset))


def to_sampleset(qubo: Qubo, samples: Samples) -> Any:
    """The reads of one problem as a binary `dimod.SampleSet`, variables named by the Qubo's labels, float64 energies.

    Info of single reads is kept as data vectors, other info as plain lists and numbers in `info`.
    Errors: ValueError for a batch of problems, and for info of single reads under a name that sample sets use.
    """
    return sampleset_of(to_bqm(qubo), [qubo.labels[i] for i in range(qubo.num_bits)], samples)


def sampleset_of(bqm: Any, variables: list[Any], samples: Samples) -> Any:
    """Reads of a model's problem, whose bits are `variables` in order, as `to_sampleset` has them, in its vartype."""
    import dimod

    bits = np.asarray(samples.bits)
    values = bits if bqm.vartype is dimod.BINARY else 2 * bits - 1
    answer = dimod.SampleSet.from_samples_bqm((values, variables), bqm, **vectors_of(samples))
    answer.info.update(info_of(samples))
    return answer


def vectors_of(samples: Samples) -> dict[str, np.ndarray]:
    """Info of single reads as a sample set's data vectors. Errors: ValueError for a name that sample sets use."""
    vectors = {name: np.asarray(value) for name, value in samples.read_info.items()}
    if taken := vectors.keys() & _TAKEN:
        raise ValueError(f"info of single reads: sample sets use the name {sorted(taken)[0]!r} for something else")
    return vectors


def info_of(samples: Samples) -> dict[str, Any]:
    """Other info as plain lists and numbers."""
    return {name: _plain(value) for name, value in samples.call_info.items()}


def _plain(value: Any) -> Any:
    """Lists and numbers, as sample sets are stored."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return np.asarray(value).tolist() if hasattr(value, "dtype") or isinstance(value, int | float) else str(value)
