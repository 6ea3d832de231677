"""Leaves of less or more than 32 bits along the whole way: minimiser, rounding, a round of the method.

E(x) = q(p(x)) on a tree of bfloat16, float16 and float32, for every quadratic and encoding: test_pullback.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import qjax
from qjax.formulate.quadratic import layer_gram
from qjax.formulate.rounding import sequential

RNG = np.random.default_rng(9)
N, F, C = 30, 4, 3
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(N, C)), jnp.float32)
FULL = {
    "kernel": jnp.asarray(RNG.normal(size=(F, C)), jnp.bfloat16).astype(jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=C), jnp.float16).astype(jnp.float32),
}
LOW = {"kernel": FULL["kernel"].astype(jnp.bfloat16), "bias": FULL["bias"].astype(jnp.float16)}


def _dtypes(params):
    return {name: leaf.dtype for name, leaf in params.items()}


@pytest.mark.parametrize("keep_features", [False, True])
def test_minimiser_and_rounding_are_those_of_float32(keep_features):
    found = []
    for params in (LOW, FULL):
        quadratic = qjax.least_squares(params, "kernel", X, Y, bias="bias", keep_features=keep_features)
        encoding = qjax.encode(params, {"kernel": qjax.FixedPoint(bits=4)})
        solution = qjax.minimiser(quadratic, params).params
        assert _dtypes(solution) == _dtypes(params)
        found.append((solution, sequential(jax.random.key(0), quadratic, encoding), quadratic(params)))
    (low, bits_low, value_low), (full, bits_full, value_full) = found
    for name, leaf in low.items():
        np.testing.assert_array_equal(leaf, full[name].astype(leaf.dtype))
    np.testing.assert_array_equal(bits_low, bits_full)
    assert float(value_low) == float(value_full)


def test_a_convolution_in_bfloat16_has_the_derivatives_of_float32():
    """Its arguments must all have one dtype: params and data are widened together."""
    images = jnp.asarray(RNG.normal(size=(2, 5, 5, 2)), jnp.bfloat16)
    params = {"w": jnp.asarray(RNG.normal(size=(3, 3, 2, 2)), jnp.bfloat16)}

    def loss(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return (lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=numbers) ** 2).mean()

    wide = {"w": params["w"].astype(jnp.float32)}
    low, full = qjax.hessian(loss, params, images), qjax.hessian(loss, wide, images.astype(jnp.float32))
    v = {"w": jnp.asarray(RNG.normal(size=params["w"].shape), jnp.float32)}
    np.testing.assert_array_equal(low.curvature.product(v)["w"], full.curvature.product(v)["w"])
    np.testing.assert_array_equal(low.gradient["w"], full.gradient["w"])
    assert low.value == full.value and low.value.dtype == jnp.float32


def test_a_round_keeps_the_dtypes_of_the_parameters():
    def loss(params):  # in bfloat16, as a network of that precision returns it
        return ((X.astype(jnp.bfloat16) @ params["kernel"] - Y.astype(jnp.bfloat16)) ** 2).mean()

    def formulate(params, radius):
        quadratic = qjax.least_squares(params, "kernel", X, Y)
        return quadratic, qjax.encode(params, {"kernel": qjax.FixedPoint(bits=2, step=0.3, around="current")})

    trained = qjax.hybrid(jax.random.key(0), loss, LOW, formulate, qjax.samplers.get("exact"), num_rounds=2)
    assert _dtypes(trained.params) == _dtypes(LOW)
    assert float(trained.rounds[-1].loss) < float(loss(LOW))
    assert trained.rounds[0].loss.dtype == jnp.float32


def test_patches_of_bfloat16_make_a_gram_matrix_of_float32():
    rows = X.astype(jnp.bfloat16)
    gram = layer_gram(LOW, "kernel", rows).curvature.gram
    assert gram.dtype == jnp.float32
    wide = rows.astype(jnp.float32)
    np.testing.assert_allclose(gram, wide.T @ wide / N, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_leaf_of_64_bits_makes_the_model_of_64_bits():
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(np.asarray(FULL["kernel"])), "bias": jnp.asarray(RNG.normal(size=C))}
        assert _dtypes(params) == {"kernel": jnp.float32, "bias": jnp.float64}

        def loss(params, x):
            return (jnp.sin(x @ params["kernel"]).astype(jnp.float64) + params["bias"][None, :]).sum() ** 2 / N

        x = jnp.asarray(np.asarray(X))
        for specs in (
            {"kernel": qjax.Sign()},
            {"kernel": qjax.Codebook([-1.0, 2.0, 0.3])},
            {"kernel": qjax.Sign(), "bias": qjax.FixedPoint(bits=2, step=0.5)},
            qjax.Direction({"kernel": jnp.ones((3, F, C))}),
        ):
            quadratic = qjax.hessian(loss, params, x)
            encoding = qjax.encode(params, specs)
            states = RNG.integers(0, 2, (8, encoding.num_bits))
            for form in ("dense", "implicit"):
                qubo = qjax.pull_back(quadratic, encoding, form)
                assert qubo.linear.dtype == jnp.float64
                for state in states:
                    moved = encoding.apply(jnp.asarray(state, jnp.float64))
                    leaves = {name: encoding.origin[name].astype(jnp.float64) for name in params}
                    at = leaves | {name: leaves[name] + leaf for name, leaf in moved.items()}
                    scale = float(jnp.abs(qubo.linear).sum() + abs(qubo.offset))
                    np.testing.assert_allclose(qubo.energies(state), quadratic(at), rtol=0, atol=1e-5 * scale)
                decoded = encoding.decode(states[0])
                assert _dtypes(decoded) == _dtypes(params)
