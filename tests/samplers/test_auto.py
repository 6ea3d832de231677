"""What `auto` chooses, that `info` says so, and that its bits are those of the chosen sampler."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.energy.couplings import Gram, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.auto import CHOICES
from tests.samplers import problems


def ring(n: int) -> Qubo:
    sites = np.arange(n)
    return Qubo.from_terms(np.ones(n, np.float32), Sparse.from_edges(n, sites, (sites + 1) % n, np.ones(n)))


def crowded(n: int) -> Qubo:
    """A complete graph given as sparse."""
    rows, cols = np.triu_indices(n, 1)
    return Qubo.from_terms(np.ones(n, np.float32), Sparse.from_edges(n, rows, cols, np.ones(rows.size)))


CASES = {
    "few bits": (problems.qubo("dense", n=9), samplers.Exact),
    "sparse": (ring(60), samplers.Anneal),
    "a complete graph given as sparse": (crowded(60), samplers.Anneal),
    "implicit": (problems.qubo("implicit", n=60), samplers.Bifurcation),
    "small and dense": (problems.qubo("dense", n=60), samplers.Anneal),
    "dense": (problems.qubo("dense", n=420), samplers.Bifurcation),
    "gram": (Qubo.from_terms(np.ones(120, np.float32), Gram(np.ones((2, 120), np.float32))), samplers.Bifurcation),
    "small and gram": (Qubo.from_terms(np.ones(90, np.float32), Gram(np.ones((2, 90), np.float32))), samplers.Anneal),
}


@pytest.mark.parametrize("case", CASES)
def test_the_choice(case: str) -> None:
    qubo, kind = CASES[case]
    chosen = samplers.Auto(num_sweeps=7).algorithm_for(qubo, 4)
    assert type(chosen) is kind
    assert getattr(chosen, "num_sweeps", getattr(chosen, "num_steps", 7)) == 7
    if kind is samplers.Bifurcation:
        assert chosen.variant == "generalized"


def test_bits_are_those_of_the_choice_and_info_names_it() -> None:
    auto = samplers.get("auto", num_sweeps=5)
    for qubo in (problems.qubo("dense", n=20, batch=(2,)), dataclasses.replace(ring(20))):
        samples, chosen = auto(jax.random.key(1), qubo, 4), auto.algorithm_for(qubo, 4)
        np.testing.assert_array_equal(samples.bits, chosen(jax.random.key(1), qubo, 4).bits)
        assert samples.info["choice"].shape == qubo.batch_shape
        row = CHOICES[int(np.ravel(samples.info["choice"])[0])]
        assert dataclasses.replace(row.sampler, num_sweeps=5) == chosen and "beta_range" in samples.info
