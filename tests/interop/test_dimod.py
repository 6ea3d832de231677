"""dimod samplers as qjax samplers, and qjax samplers as dimod samplers."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import dimod
import dimod.testing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.interop import as_dimod
from qjax.interop.bqm import from_bqm
from qjax.interop.dimod import DimodSampler, neal
from tests.samplers import problems


class Recorder(dimod.Sampler):
    """A dimod sampler that keeps its arguments, and returns the sample set of `answer`, or values that are all 1."""

    parameters: ClassVar[dict[str, Any]] = {}
    properties: ClassVar[dict[str, Any]] = {}

    def __init__(self, parameters: tuple[str, ...] = (), answer: Any = None) -> None:
        self.parameters = {name: [] for name in parameters}
        self.answer, self.calls = answer, []

    def sample(self, bqm: Any, **parameters: Any) -> Any:
        self.calls.append(parameters)
        if self.answer is not None:
            return self.answer(bqm)
        return dimod.SampleSet.from_samples_bqm({v: 1 for v in bqm.variables}, bqm)


def test_any_dimod_sampler_is_a_sampler() -> None:
    qubo = problems.qubo("dense", n=8, batch=(2,))
    samples = DimodSampler(dimod.ExactSolver())(jax.random.key(0), qubo, 5)
    assert samples.bits.shape == (2, 5, 8)
    np.testing.assert_allclose(samples.best_energy, problems.lowest(qubo), rtol=1e-6)
    np.testing.assert_allclose(samples.energies, qubo.energies(samples.bits))
    spins = DimodSampler(Recorder(answer=lambda b: dimod.ExactSolver().sample(b).change_vartype("SPIN")))
    np.testing.assert_array_equal(spins(jax.random.key(0), qubo, 5).bits, samples.bits)


def test_seeds_and_parameters_reach_the_solver() -> None:
    recorder = Recorder(("num_reads", "seed", "num_sweeps", "initial_states"))
    qubo = problems.qubo("dense", n=4, batch=(2,))
    sampler = DimodSampler(recorder, (("num_sweeps", 9),))
    start = np.array([0, 1, 1, 0])
    sampler(jax.random.key(3), qubo, 6, start)
    one, two = recorder.calls
    assert one["num_reads"] == 6 and one["num_sweeps"] == 9
    assert 0 <= one["seed"] < 2**31 and one["seed"] != two["seed"]
    np.testing.assert_array_equal(one["initial_states"][0], np.tile(start, (6, 1)))
    sampler(jax.random.key(3), qubo, 6, start)
    assert recorder.calls[2]["seed"] == one["seed"]


def test_aggregated_reads_are_expanded_and_short_answers_repeated() -> None:
    def answer(bqm: Any) -> Any:
        return dimod.SampleSet.from_samples_bqm(([[1, 0], [0, 1]], [0, 1]), bqm, num_occurrences=[2, 1])

    qubo = problems.qubo("dense", n=2)
    samples = DimodSampler(Recorder(("num_reads",), answer))(jax.random.key(0), qubo, 3)
    np.testing.assert_array_equal(samples.bits, [[1, 0], [1, 0], [0, 1]])
    assert DimodSampler(Recorder(("num_reads",), answer))(jax.random.key(0), qubo, 7).bits.shape == (7, 2)


def test_answers_are_checked() -> None:
    qubo, key = problems.qubo("dense", n=3), jax.random.key(0)

    def other_variables(bqm: Any) -> Any:
        return dimod.SampleSet.from_samples({"a": 1, "b": 0, "c": 1}, "BINARY", 0.0)

    def no_sample(bqm: Any) -> Any:
        return dimod.SampleSet.from_samples_bqm((np.zeros((0, 3), np.int8), [0, 1, 2]), bqm)

    with pytest.raises(ValueError, match="other variables"):
        DimodSampler(Recorder(answer=other_variables))(key, qubo, 2)
    with pytest.raises(ValueError, match="no sample"):
        DimodSampler(Recorder(answer=no_sample))(key, qubo, 2)
    with pytest.raises(ValueError, match="initial_states"):
        DimodSampler(Recorder())(key, qubo, 2, np.zeros(3, int))
    with pytest.raises(ValueError, match="has no 'sweeps'"):
        DimodSampler(Recorder(("num_sweeps",)), (("sweeps", 3),))
    with pytest.raises(ValueError, match=r"dimod\.Sampler"):
        DimodSampler(object())


def test_unseeded_samplers_refuse_to_be_traced() -> None:
    qubo, sampler = problems.qubo("dense", n=3), DimodSampler(Recorder(("num_reads",)))
    assert sampler.is_host and not sampler.seeded
    with pytest.raises(ValueError, match="host"):
        jax.jit(lambda key: sampler(key, qubo, 2).bits)(jax.random.key(0))
    with pytest.raises(ValueError, match="host"):
        jax.vmap(lambda key: sampler(key, qubo, 2).bits)(jax.random.split(jax.random.key(0), 2))


def test_neal_is_registered_and_seeded() -> None:
    qubo, sampler = problems.qubo("sparse", n=10), samplers.get("neal", num_sweeps=50, beta_range=(0.1, 3.0))
    assert sampler == neal(num_sweeps=50, beta_range=(0.1, 3.0))
    one, two = (sampler(jax.random.key(4), qubo, 8) for _ in range(2))
    np.testing.assert_array_equal(one.bits, two.bits)


def test_adapter_passes_dimods_own_checks() -> None:
    adapter = as_dimod(samplers.get("anneal", num_sweeps=20))
    dimod.testing.assert_sampler_api(adapter)
    assert {"num_reads", "seed", "initial_states", "num_sweeps"} <= set(adapter.parameters)
    for vartype in ("SPIN", "BINARY"):
        bqm = dimod.BinaryQuadraticModel({"a": 0.5, 3: -1.0, "c": 0.0}, {("a", 3): 2.0, (3, "c"): -1.5}, 0.25, vartype)
        answer = adapter.sample(bqm, num_reads=4, seed=1)
        assert answer.vartype is bqm.vartype and len(answer) == 4
        dimod.testing.assert_sampleset_energies(answer, bqm)
        assert answer.first.energy == pytest.approx(dimod.ExactSolver().sample(bqm).first.energy)


def test_adapter_takes_seeds_states_and_hyperparameters() -> None:
    adapter = as_dimod(samplers.Anneal(30))
    one, two = (adapter.sample_qubo({(0, 0): -1.0, (0, 1): 2.0}, seed=5, num_reads=6) for _ in range(2))
    np.testing.assert_array_equal(one.record.sample, two.record.sample)
    assert one.info["seed"] == 5
    held = adapter.sample_ising(
        {"a": 0.0, "b": 0.0},
        {("a", "b"): -1.0},
        num_reads=3,
        num_sweeps=2,
        beta_range=(50.0, 60.0),
        initial_states={"b": -1, "a": -1},
    )
    np.testing.assert_array_equal(held.record.sample, -1)
    with pytest.raises(ValueError, match="unknown parameters sweeps"):
        adapter.sample_ising({"a": 1.0}, {}, sweeps=3)
    with pytest.raises(ValueError, match="spins"):
        adapter.sample_ising({"a": 1.0}, {}, initial_states={"a": 0.2})
    with pytest.raises(ValueError, match="no value for"):
        adapter.sample_ising({"a": 1.0, "b": 1.0}, {}, initial_states={"a": 1})


def test_adapter_tells_range_and_seconds_alike_for_both_forms() -> None:
    """0.1 + 0.2 - 0.3 is 0 only up to rounding: the spin form must not break the ties of the binary one."""
    pairs = {(i, j): [0.1, 0.2, -0.3, 0.7][(3 * i + j) % 4] for i in range(12) for j in range(i)}
    binary = dimod.BinaryQuadraticModel({i: 0.0 for i in range(12)}, pairs, 0.5, "BINARY")
    spin = binary.change_vartype("SPIN", inplace=False)
    adapter = as_dimod(samplers.Anneal(20))
    one, two = (adapter.sample(bqm, num_reads=6, seed=3) for bqm in (binary, spin))
    np.testing.assert_array_equal(from_bqm(binary).linear, from_bqm(spin).linear)
    assert one.info["beta_range"] == two.info["beta_range"]
    expected = samplers.Anneal(20)(jax.random.key(3), from_bqm(binary), 6)
    np.testing.assert_array_equal(one.info["beta_range"], expected.info["beta_range"])
    np.testing.assert_allclose(one.record.energy, two.record.energy, atol=1e-12)
    np.testing.assert_allclose(one.record.energy, expected.energies, atol=1e-5)
    for answer in (one, two):
        assert min(answer.info["timing"].values()) > 0 and len(answer.info["timing"]) == 3
    back = dimod.SampleSet.from_serializable(one.to_serializable())
    assert back.info["beta_range"] == one.info["beta_range"]
    given = adapter.sample(spin, num_reads=2, beta_range=(0.5, 4.0))
    assert given.info["beta_range"] == pytest.approx([0.5, 4.0])


@pytest.mark.parametrize("name", ["exact", "greedy"])
def test_a_sampler_converted_to_dimod_and_back(name: str) -> None:
    """A qjax sampler as a dimod sampler as a qjax sampler gives the energies of the original."""
    qubo = problems.qubo("dense", n=6)
    inner = samplers.get(name)
    outer = DimodSampler(as_dimod(inner))(jax.random.key(0), qubo, 4)
    assert float(outer.best_energy) == pytest.approx(float(problems.lowest(qubo)))
    assert outer.bits.dtype == jnp.int8
    assert dataclasses.is_dataclass(inner)
