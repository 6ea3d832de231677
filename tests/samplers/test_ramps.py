"""Samplers that follow a ramp and need products only: number of steps, repeated steps, scale, couplings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import samplers
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.qubo import Qubo

N = 40
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "generalized": ("bifurcation", {}),
    "ballistic": ("bifurcation", {"variant": "ballistic"}),
    "mean_field": ("mean_field", {}),
}


def glass(sparse: bool = False) -> Qubo:
    upper = np.triu(np.random.default_rng(0).choice([-1.0, 1.0], (N, N)), 1)
    rows, cols = np.nonzero(upper)
    pairs = Sparse.from_edges(N, rows, cols, upper[rows, cols]) if sparse else upper + upper.T
    return Qubo.from_terms(np.arange(N, dtype=np.float32) % 5 - 2, pairs)


def last(kind: str, num_steps: int, readout_every: int, repeats: int | None = None) -> np.ndarray:
    name, fields = KINDS[kind]
    lengths = {"num_steps": num_steps, "readout_every": readout_every}
    sampler = samplers.get(name, return_states="last", **lengths, **fields)
    found = sampler.repeated(jax.random.key(1), glass(), 16, None, None if repeats is None else jnp.int32(repeats))
    return np.asarray(found.bits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_as_many_steps_as_asked_for_whatever_the_readout(kind: str) -> None:
    """8 steps, read out after 5 and 8 or only at the end, are the same 8 steps, and not 5 or 10."""
    bits = last(kind, 8, 5)
    np.testing.assert_array_equal(bits, last(kind, 8, 1000))
    assert (bits != last(kind, 5, 5)).any() and (bits != last(kind, 10, 5)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_ramp_of_repeated_steps_is_the_longer_ramp(kind: str) -> None:
    """20 steps repeated three times are 60 steps: random numbers enter the first state alone, so bits are equal."""
    np.testing.assert_array_equal(last(kind, 20, 5, repeats=3), last(kind, 60, 60))


@pytest.mark.parametrize("name", ["bifurcation", "mean_field"])
def test_a_negative_scale_is_the_negated_qubo(name: str) -> None:
    """Bits attract one another: K has a spectrum from -39/4 to 1/4, whose ends change places with the sign of the
    scale."""
    ones, linear = np.ones((N, N), np.float32) - np.eye(N, dtype=np.float32), np.full(N, 0.5, np.float32)
    plain, turned = Qubo.from_terms(linear, -ones), Qubo.from_terms(-linear, ones) * -1.0
    found = [samplers.get(name, num_steps=50)(jax.random.key(2), qubo, 8) for qubo in (plain, turned)]
    np.testing.assert_allclose(found[0].energies, found[1].energies, rtol=1e-6)
    if name == "bifurcation":
        np.testing.assert_allclose(found[0].info["time_step"], found[1].info["time_step"], rtol=1e-4)
        assert float(found[0].info["time_step"]) > 0.9


@pytest.mark.parametrize("name", ["bifurcation", "mean_field"])
def test_a_complete_graph_given_as_sparse_is_multiplied_as_a_matrix(name: str) -> None:
    sampler = samplers.get(name, num_steps=25)
    found = [sampler(jax.random.key(3), glass(sparse), 8) for sparse in (False, True)]
    np.testing.assert_array_equal(found[0].bits, found[1].bits)
    text = jax.jit(lambda q: sampler(jax.random.key(3), q, 8).bits).lower(glass(sparse=True)).as_text()
    # A product per kind of step, where lists of neighbours would take a gather per bit.
    assert text.count("stablehlo.gather") + text.count("dynamic_gather") < N


@pytest.mark.parametrize("name", samplers.names())
def test_sixteen_bit_qubos_are_refused(name: str) -> None:
    half = Qubo.from_terms(jnp.ones(20, jnp.bfloat16), Dense(jnp.zeros((20, 20), jnp.bfloat16)))
    with pytest.raises(ValueError, match="bfloat16"):
        samplers.get(name)(jax.random.key(0), half, 2)
