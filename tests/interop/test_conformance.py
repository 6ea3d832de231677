"""Every registered sampler, as a dimod sampler, passes dimod's own tests and works in composites of dimod and Ocean."""

from __future__ import annotations

import dataclasses
import json
import unittest
from typing import Any

import dimod
import dimod.testing
import dwave.graphs
import jax
import numpy as np
import pytest
from dwave.preprocessing.composites import FixVariablesComposite, ScaleComposite, SpinReversalTransformComposite
from dwave.system import EmbeddingComposite

import qjax.samplers as samplers
from qjax.interop import as_dimod
from qjax.interop.bqm import from_bqm, to_sampleset

# Short settings: conformance is about interfaces and energies, and every size of problem compiles anew.
SETTINGS: dict[str, dict[str, Any]] = {
    "anneal": {"num_sweeps": 5},
    "bifurcation": {"num_steps": 10},
    "decompose": {"sampler": samplers.Exact(), "num_rounds": 2, "sub_reads": 1},
    "mean_field": {"num_steps": 10},
    "neal": {"num_sweeps": 5},
    "path_integral": {"num_sweeps": 5, "num_slices": 4},
    "population": {"num_betas": 3, "sweeps_per_beta": 1, "population_size": 2},
    "qaoa": {"num_layers": 1, "num_steps": 1},
    "tabu": {"num_sweeps": 5},
    "temper": {"num_sweeps": 5, "num_betas": 3},
}
BQM = dimod.BinaryQuadraticModel({"a": 0.5, 3: -1.0, ("c", 1): 0.0}, {("a", 3): 2.0, (3, ("c", 1)): -1.5}, 0.25, "SPIN")


def adapted(name: str) -> Any:
    return as_dimod(samplers.get(name, **SETTINGS.get(name, {})))


@pytest.mark.parametrize("name", samplers.names(), scope="module")
@pytest.mark.slow
def test_every_sampler_passes_dimods_tests(name: str) -> None:
    sampler = adapted(name)
    dimod.testing.assert_sampler_api(sampler)

    @dimod.testing.load_sampler_bqm_tests(sampler)
    class Conformance(unittest.TestCase):
        pass

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Conformance).run(result)
    assert result.testsRun == 32
    assert result.wasSuccessful(), "\n".join(text for _, text in result.failures + result.errors)


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("name", samplers.names(), scope="module")
def test_energies_timing_and_serialisation(name: str, vartype: str) -> None:
    bqm = BQM.change_vartype(vartype, inplace=False)
    answer = adapted(name).sample(bqm, seed=1)
    dimod.testing.assert_sampleset_energies(answer, bqm)
    assert answer.vartype is bqm.vartype and list(answer.variables) == list(bqm.variables)
    assert {"preprocessing_ns", "sampling_ns", "postprocessing_ns"} == set(answer.info["timing"])
    assert all(isinstance(v, int) and v >= 0 for v in answer.info["timing"].values())
    back = dimod.SampleSet.from_serializable(json.loads(json.dumps(answer.to_serializable())))
    assert back == answer and back.info == answer.info


def test_composites_of_dimod_and_ocean_accept_it() -> None:
    ground = dimod.ExactSolver().sample(BQM).first.energy
    sampler = adapted("exact")
    cell = dwave.graphs.chimera_graph(1)
    for composed in (
        dimod.TrackingComposite(sampler),
        ScaleComposite(sampler),
        SpinReversalTransformComposite(sampler, seed=1),
        FixVariablesComposite(sampler, algorithm="roof_duality"),
        EmbeddingComposite(
            dimod.StructureComposite(sampler, list(cell.nodes), list(cell.edges)),
            embedding_parameters={"random_seed": 7},
        ),
    ):
        answer = composed.sample(BQM, num_reads=2)
        dimod.testing.assert_sampleset_energies(answer, BQM)
        assert answer.first.energy == pytest.approx(ground)
    cubic = dimod.BinaryPolynomial({"abc": -1.0, "a": 0.5}, "SPIN")
    assert dimod.HigherOrderComposite(sampler).sample_poly(cubic, penalty_strength=4.0).first.energy == -1.5


def test_samples_become_a_sample_set_with_the_qubos_names() -> None:
    qubo = from_bqm(BQM)
    samples = samplers.get("random")(jax.random.key(0), qubo, 6)
    info = {"chain_break_fraction": np.linspace(0, 1, 6), "rates": np.zeros((6, 2)), "other": np.zeros(3)}
    samples = dataclasses.replace(samples, info=info, by_read=frozenset({"chain_break_fraction", "rates"}))
    answer = to_sampleset(qubo, samples)
    assert set(answer.record.dtype.names) == {"sample", "energy", "num_occurrences", "chain_break_fraction", "rates"}
    np.testing.assert_allclose(answer.record.energy, samples.energies, atol=1e-6)
    np.testing.assert_array_equal(answer.record.chain_break_fraction, np.linspace(0, 1, 6))
    assert answer.vartype is dimod.BINARY and set(answer.variables) == set(BQM.variables)
    dimod.testing.assert_sampleset_energies(answer, BQM.change_vartype("BINARY", inplace=False))
    with pytest.raises(ValueError, match="'energy'"):
        to_sampleset(qubo, dataclasses.replace(samples, info={"energy": np.zeros(6)}, by_read=frozenset({"energy"})))


def test_info_of_single_reads_becomes_vectors() -> None:
    answer = adapted("temper").sample(BQM, seed=1, num_reads=4)
    assert answer.record.exchange_rates.shape == (4, 2)
    counted = adapted("greedy").sample(BQM, seed=1, num_reads=4).aggregate()
    assert counted.record.converged.all() and counted.record.num_occurrences.sum() == 4
