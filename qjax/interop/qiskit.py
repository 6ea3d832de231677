"""QAOA's circuit on Qiskit's simulators and IBM's processors. Qiskit (`qjax[qiskit]`) is imported on the first call.

    Z_i |x> = (1 - 2 x_i) |x>, so s_i = -Z_i and c = - sum_i h_i Z_i + sum_{i<j} J_ij Z_i Z_j
    exp(-i g c)          rz(-2 g h_i) on every qubit with h_i != 0, rzz(2 g J_ij) on every coupled pair
    exp(i b sum_i X_i)   rx(-2 b) on every qubit

Bit i of the Qubo is qubit i. `circuit` prepares the state of `qjax.samplers.gates.statevector`, with the same order of
amplitudes and the same global phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.qubo import Qubo
from qjax.interop.host import HostSampler
from qjax.samplers.contract import one_of, positive
from qjax.samplers.qaoa import QAOA, cost_of

BACKENDS = ("statevector", "aer", "ibm")


def circuit(qubo: Qubo, angles: Any) -> Any:
    """The `QuantumCircuit` of p layers, without measurements, on one qubit per bit.

    angles (2, p): gamma and beta of each layer, as in `info["angles"]` of `QAOA`.
    Errors: ValueError for a batch of problems; ImportError where Qiskit is not installed.
    """
    from qiskit import QuantumCircuit

    if qubo.batch_shape:
        raise ValueError(f"a circuit is of one problem, this Qubo has the batch shape {qubo.batch_shape}")
    cost = cost_of(qubo)
    fields = np.asarray(cost.fields, np.float64)
    couplings = np.asarray(cost.couplings, np.float64) * float(cost.factor)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(np.triu(couplings, 1))]
    made = QuantumCircuit(qubo.num_bits)
    made.h(range(qubo.num_bits))
    for gamma, beta in np.asarray(angles, np.float64).T:
        for site in np.flatnonzero(fields):
            made.rz(-2 * gamma * fields[site], int(site))
        for i, j in pairs:
            made.rzz(2 * gamma * couplings[i, j], i, j)
        made.rx(-2 * beta, range(qubo.num_bits))
    return made


@dataclass(frozen=True)
class Qiskit(HostSampler):
    """Shots of QAOA's circuit on Qiskit, with angles that `qaoa` trains on its exact statevector in JAX.

    qaoa                the number of layers, and how angles are trained
    backend             "statevector" (Qiskit's own), "aer" (qiskit-aer), "ibm" (a processor, by the account that
                        qiskit-ibm-runtime has saved or finds in its environment; there is no field for a token), or an
                        object with the `run` of Qiskit's SamplerV2, such as a simulator with noise
    device              IBM's name of a processor; None: the least busy one with enough qubits
    optimization_level  of Qiskit's transpiler, for a processor

    Problems too large for a statevector need angles that are published or transferred: QAOA(num_steps=0).
    A read is one shot, or its initial state where that has lower energy; qaoa.shots_per_read is not used. Calls cannot
    be traced. info: angles (2, p). Errors: ImportError where a package is missing; Qiskit's own are passed on.
    """

    qaoa: QAOA = QAOA()  # noqa: RUF009 (frozen)
    backend: Any = "statevector"
    device: str | None = None
    optimization_level: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.backend, str):
            one_of("backend", self.backend, BACKENDS)
        elif not callable(getattr(self.backend, "run", None)):
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, or have `run`, got {self.backend!r}")
        positive("optimization_level", self.optimization_level)

    def trained(self, qubo: Qubo) -> np.ndarray:
        """The angles (2, p) of one problem."""
        if self.qaoa.num_steps == 0:
            return np.asarray(self.qaoa.first_angles())
        # Shots depend on the key, the angles do not.
        return np.asarray(self.qaoa(jax.random.key(0), qubo, 1).info["angles"])

    def _reads(
        self, seed: int, qubo: Qubo, num_reads: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        qubo = jax.tree.map(jnp.asarray, qubo)
        angles = self.trained(qubo)
        measured = circuit(qubo, angles)
        measured.measure_all()
        sampler, measured = self._sampler(seed, measured)
        counted = sampler.run([measured], shots=num_reads).result()[0].data.meas
        # Qiskit's bit strings begin with the last qubit.
        bits = np.array([[c == "1" for c in text[::-1]] for text in counted.get_bitstrings()], np.int8)
        if initial is not None:
            lower = np.asarray(qubo.energies(initial) < qubo.energies(bits))
            bits = np.where(lower[:, None], initial, bits)
        return bits, {"angles": angles}

    def _sampler(self, seed: int, measured: Any) -> tuple[Any, Any]:
        """(a Qiskit sampler, the circuit, transpiled where it is a processor's)."""
        if not isinstance(self.backend, str):
            return self.backend, measured
        if self.backend == "statevector":
            from qiskit.primitives import StatevectorSampler

            return StatevectorSampler(seed=seed), measured
        if self.backend == "aer":
            from qiskit_aer.primitives import SamplerV2 as AerSampler

            return AerSampler(seed=seed), measured
        from qiskit.transpiler import generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

        service = QiskitRuntimeService()
        enough = {"operational": True, "simulator": False, "min_num_qubits": measured.num_qubits}
        device = service.least_busy(**enough) if self.device is None else service.backend(self.device)
        manager = generate_preset_pass_manager(optimization_level=self.optimization_level, backend=device)
        return SamplerV2(mode=device), manager.run(measured)
