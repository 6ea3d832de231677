"""QAOA's circuit on Qiskit, compared with the statevector in JAX. Skipped where Qiskit is not installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.energy.qubo import Qubo
from qjax.interop.qiskit import Qiskit, circuit
from qjax.samplers.gates.statevector import evolved, spin_costs
from qjax.samplers.qaoa import QAOA, cost_of
from tests.samplers import problems

pytestmark = pytest.mark.slow

SHORT = QAOA(num_layers=3, num_steps=20)


class Canned:
    """A Qiskit sampler that always measures 0011, and keeps the numbers of shots."""

    def __init__(self) -> None:
        self.shots: list[int] = []

    def run(self, pubs: Any, shots: int) -> Any:
        self.shots.append(shots)
        assert pubs[0].num_clbits == 4
        bits = SimpleNamespace(get_bitstrings=lambda: ["0011"] * shots)
        return SimpleNamespace(result=lambda: [SimpleNamespace(data=SimpleNamespace(meas=bits))])


@pytest.mark.parametrize("form", ["dense", "sparse", "implicit"])
@pytest.mark.parametrize("n", [1, 6, 10])
def test_the_state_is_that_of_jax(form: str, n: int) -> None:
    pytest.importorskip("qiskit")
    from qiskit.quantum_info import Statevector

    qubo = problems.qubo(form, n=n) * -0.5
    angles = SHORT.first_angles()
    cost = cost_of(qubo)
    ours = evolved(angles, spin_costs(cost.fields, cost.factor * cost.couplings))
    theirs = Statevector(circuit(qubo, angles)).data
    np.testing.assert_allclose(np.asarray(ours[0]) + 1j * np.asarray(ours[1]), theirs, atol=1e-6)


@pytest.mark.parametrize("backend", ["statevector", "aer"])
def test_shots_have_the_expected_energy_of_the_statevector(backend: str) -> None:
    pytest.importorskip("qiskit")
    if backend == "aer":
        pytest.importorskip("qiskit_aer")
    qubo, key = problems.qubo("dense", n=8, batch=(2,)), jax.random.key(3)
    sampler = Qiskit(SHORT, backend)
    samples = sampler(key, qubo, 400)
    assert samples.bits.shape == (2, 400, 8) and samples.info["angles"].shape == (2, 2, 3)
    np.testing.assert_array_equal(samples.bits, sampler(key, qubo, 400).bits)
    exact = SHORT(key, qubo, 1).info["expected_energy"]
    # The mean of 400 shots, within six standard errors.
    error = 6 * np.asarray(samples.energies).std(-1) / 20
    assert (abs(np.asarray(samples.energies.mean(-1) - exact)) < error).all()


def test_a_given_sampler_the_order_of_bits_and_initial_states() -> None:
    pytest.importorskip("qiskit")
    own = Canned()
    qubo = Qubo.from_terms(np.array([-1.0, -1.0, 1.0, 1.0], np.float32), np.zeros((4, 4), np.float32))
    sampler = Qiskit(QAOA(num_layers=1, num_steps=0), own)
    samples = sampler(jax.random.key(0), qubo, 3)
    np.testing.assert_array_equal(samples.bits, np.tile([1, 1, 0, 0], (3, 1)))
    assert own.shots == [3]
    worse = sampler(jax.random.key(0), qubo, 3, np.zeros(4))
    np.testing.assert_array_equal(worse.bits, samples.bits)
    higher = qubo * -1.0
    np.testing.assert_array_equal(sampler(jax.random.key(0), higher, 2, np.array([0, 0, 1, 1])).bits[0], [0, 0, 1, 1])


def test_a_processor_gets_a_transpiled_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake of qiskit-ibm-runtime: the service is asked for the device, and the circuit has only its gates."""
    pytest.importorskip("qiskit")
    from qiskit.providers.fake_provider import GenericBackendV2

    own, asked = Canned(), []
    device = GenericBackendV2(5, seed=0)

    class Service:
        def least_busy(self, **wanted: Any) -> Any:
            asked.append(wanted)
            return device

        def backend(self, name: str) -> Any:
            asked.append(name)
            return device

    def sampler(mode: Any) -> Any:
        assert mode is device
        return SimpleNamespace(run=lambda pubs, shots: own.run([_checked(pubs[0], device)], shots))

    runtime = SimpleNamespace(QiskitRuntimeService=Service, SamplerV2=sampler)
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime", runtime)
    qubo = problems.qubo("dense", n=4)
    for name in (None, "somewhere"):
        Qiskit(QAOA(num_layers=1, num_steps=0), "ibm", device=name)(jax.random.key(0), qubo, 2)
    assert asked == [{"operational": True, "simulator": False, "min_num_qubits": 4}, "somewhere"]


def _checked(made: Any, device: Any) -> Any:
    assert {instruction.operation.name for instruction in made.data} <= {*device.operation_names, "barrier"}
    return made


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="backend"):
        Qiskit(backend="cloud")
    with pytest.raises(ValueError, match="run"):
        Qiskit(backend=3)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda key: Qiskit()(key, problems.qubo("dense"), 2).bits)(jax.random.key(0))
    pytest.importorskip("qiskit")
    with pytest.raises(ValueError, match="batch"):
        circuit(problems.qubo("dense", batch=(2,)), jnp.zeros((2, 1)))
