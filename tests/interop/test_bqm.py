"""Qubo <-> dimod: equal energies in all states, for both vartypes, both forms and labels of any type."""

import itertools

import dimod
import numpy as np
import pytest

from qjax import Implicit, Qubo
from qjax.interop.bqm import from_bqm, to_bqm

STATES = np.array(list(itertools.product([0, 1], repeat=5)), np.int8)


@pytest.mark.parametrize("form", ["dense", "sparse", None])
@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_conversion_and_back(form, vartype):
    bqm = dimod.generators.gnp_random_bqm(5, 0.6, vartype, random_state=3)
    bqm.offset = 1.25
    bqm.relabel_variables(dict(enumerate(["a", ("b", 1), 7, "d", "e"])))
    values = STATES if vartype == "BINARY" else 2 * STATES - 1
    expected = bqm.energies((values, list(bqm.variables)))
    qubo = from_bqm(bqm, form)
    np.testing.assert_allclose(qubo.energies(STATES), expected, atol=1e-5)
    back = to_bqm(2.0 * qubo)
    assert set(back.variables) == set(bqm.variables)
    np.testing.assert_allclose(back.energies((STATES, list(bqm.variables))), 2 * expected, atol=1e-5)


def test_isolated_and_missing_variables():
    bqm = dimod.BinaryQuadraticModel({0: 1.0, 1: 0.0, 2: -2.0}, {(0, 1): 1.0}, "BINARY")
    back = to_bqm(from_bqm(bqm, "sparse"))
    assert back.num_variables == 3
    assert to_bqm(from_bqm(dimod.BinaryQuadraticModel("SPIN"))).num_variables == 0


def test_the_diagonal_of_implicit_couplings_becomes_linear():
    import jax.numpy as jnp
    from jax.tree_util import Partial

    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5)), jnp.float32)
    matrix = matrix + matrix.T
    qubo = Qubo.from_terms(np.ones(5), Implicit(Partial(jnp.matmul, matrix), 5))
    np.testing.assert_allclose(to_bqm(qubo).energies((STATES, range(5))), qubo.energies(STATES), atol=1e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="form"):
        from_bqm(dimod.BinaryQuadraticModel("SPIN"), "banded")
    with pytest.raises(ValueError, match="batch"):
        to_bqm(Qubo.from_terms(np.zeros((2, 3)), np.zeros((3, 3))))
    with pytest.raises(ValueError, match="finite"):
        from_bqm(dimod.BinaryQuadraticModel({0: np.nan}, {}, "BINARY"))
