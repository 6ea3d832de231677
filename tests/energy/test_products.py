"""Implicit couplings as a matrix: their products in batches that keep to a bound of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.tree_util import Partial

import qjax
from qjax.energy import products
from qjax.energy.couplings import Implicit

RNG = np.random.default_rng(0)
ROWS, WIDTH = 60_000, 512
BOUND = 2**28


def _loss(params, x, y):
    hidden = jnp.tanh(jnp.matmul(x.astype(jnp.float32) / 255, params["in"]))
    return ((jnp.matmul(hidden, params["out"]) - y) ** 2).mean()


def _largest(jaxpr):
    """The bytes of the largest array in a jaxpr and those inside it."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size * variable.aval.dtype.itemsize for variable in equation.outvars]
        sizes += [_largest(inner) for inner in jaxprs_in_params(equation.params)]
    return max(sizes)


@pytest.mark.parametrize("rows", [ROWS, 100])
def test_a_wide_layer_over_many_rows_keeps_to_the_bound(rows):
    """512 units, 60,000 rows: one product takes 123 MB, 64 at once would take 7.9 GB. Traced only."""
    shapes = {"in": (20, WIDTH), "out": (WIDTH, 2)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    data = jax.ShapeDtypeStruct((rows, 20), jnp.int8), jax.ShapeDtypeStruct((rows, 2), jnp.float32)

    def dense(params, x, y):
        quadratic = qjax.hessian(_loss, params, x, y, leaves=["in"])
        return qjax.pull_back(quadratic, qjax.encode(params, {"in": qjax.Mask(axis=-1)}), "dense").couplings.matrix

    traced = jax.make_jaxpr(dense)(params, *data)
    assert traced.out_avals[0].shape == (WIDTH, WIDTH)
    product = 4 * rows * WIDTH
    at_once = _largest(traced.jaxpr) / product
    assert at_once * product <= BOUND
    assert at_once == (2 if rows == ROWS else pytest.approx(64, abs=1))


def _activations(weights, x):
    return weights.T @ jnp.sin(weights @ x)  # one product has an array of 2000 numbers, 8 kB


@pytest.mark.parametrize("bound", [0, 30_000, 100_000, BOUND])
def test_the_matrix_does_not_depend_on_the_batches(monkeypatch, bound):
    weights = jnp.asarray(RNG.normal(size=(2000, 70)), jnp.float32) / 2000
    apply = Partial(_activations, weights)
    expected = np.stack([_activations(np.asarray(weights), unit) for unit in np.eye(70, dtype=np.float32)])
    seen = []

    def counted(weights, x):
        seen.append(1)
        return _activations(weights, x)

    monkeypatch.setattr(products, "_MOST_BYTES", bound)
    implicit = Implicit(apply, 70)
    eager, traced = implicit.to_dense(), jax.jit(Implicit.to_dense)(implicit)
    np.testing.assert_allclose(eager, expected, atol=1e-7)
    np.testing.assert_allclose(traced, expected, atol=1e-7)
    at_once = max(1, min(64, bound // 8000))
    largest = _largest(jax.make_jaxpr(implicit.to_dense)().jaxpr)
    assert largest == max(at_once * 8000, weights.nbytes)
    Implicit(Partial(counted, weights), 70).to_dense()
    assert len(seen) == 3  # twice for its shapes, once to compile: one program for all batches


def test_no_bits_and_one_bit():
    double = Partial(_double)
    assert Implicit(double, 0).to_dense().shape == (0, 0)
    np.testing.assert_array_equal(Implicit(double, 1).to_dense(), [[2.0]])


def _double(x):
    return 2 * x


def test_a_product_with_loops_and_branches_is_measured():
    def branches(x):
        grown = jax.lax.cond(x[0] > 0, lambda v: jnp.outer(v, v), lambda v: jnp.zeros((4, 4)), x)
        return jax.lax.scan(lambda carry, row: (carry + row, None), jnp.zeros(4), grown)[0]

    assert products._bytes_of_product(Partial(branches), jnp.eye(4)) == 64
