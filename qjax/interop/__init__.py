"""Where qjax meets other libraries: dimod, D-Wave, Qiskit, flax, loggers. Each is imported when it is first used.

as_dimod(sampler)         a qjax sampler as a `dimod.Sampler`
qjax.interop.dimod        dimod samplers as qjax samplers
qjax.interop.dwave        quantum processors and Leap's hybrid solvers
qjax.interop.flax         flax models, linen and nnx, as pure functions of parameters and state
qjax.interop.loggers      metrics of a run to TensorBoard or Weights & Biases
qjax.interop.qiskit       QAOA's circuit on Qiskit's simulators and IBM's processors
qjax.interop.discrete     DiscreteQuadraticModel -> Qubo and blocks
qjax.interop.constrained  ConstrainedQuadraticModel -> Qubo and blocks
qjax.interop.bqm          Qubo <-> BinaryQuadraticModel, Samples -> SampleSet
"""

from __future__ import annotations

from typing import Any


def as_dimod(sampler: Any) -> Any:
    """`sampler` as a `dimod.Sampler`; see `qjax.interop.adapter.AsDimod`. Errors: ImportError without dimod."""
    from qjax.interop.adapter import AsDimod

    return AsDimod(sampler)


__all__ = ["as_dimod"]
