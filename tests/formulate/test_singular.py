"""Quadratics whose H is singular, and what is not a number: minimum-norm solutions with their status, or an error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax import FixedPoint, Rounding, encode, least_squares, pull_back
from qjax.formulate.curvature import Matrix
from qjax.formulate.fitted import fitted_from
from qjax.formulate.minimiser import minimiser
from qjax.formulate.quadratic import Quadratic, hessian, layer_gram, least_squares_stream
from qjax.formulate.rounding import sequential
from qjax.formulate.solve import factor, solve
from qjax.hybrid import outer_round

RNG = np.random.default_rng(7)
N, F, C = 40, 6, 3
FULL = RNG.normal(size=(N, F))
Y = RNG.normal(size=(N, C))
PARAMS = {
    "kernel": jnp.asarray(RNG.normal(size=(F, C)), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=C), jnp.float32),
}


def _with(columns):
    features = FULL.copy()
    for index, column in columns.items():
        features[:, index] = column
    return features


# Features, and the rank of X (beside a bias, that of X with a column of ones).
SINGULAR = {
    "a feature that is always 0": (_with({2: 0.0}), False, F - 1),
    "two equal features": (_with({2: FULL[:, 4]}), False, F - 1),
    "a combination of others": (_with({2: 3 * FULL[:, 0] - FULL[:, 1]}), False, F - 1),
    "a constant beside a bias": (_with({2: 2.0}), True, F),
    "pixels, some always 0": (np.abs(_with({1: 0.0, 4: 0.0})) * 255, True, F - 1),
    "scales that differ by a thousand": (_with({2: 1e-3 * FULL[:, 4], 0: 1e3 * FULL[:, 0], 5: 0.0}), False, F - 2),
    "fewer samples than features": (np.where(np.arange(N)[:, None] < 4, FULL, 0.0), False, 4),
}


def _quadratic(route, params, x, y, bias):
    if route == "stream":
        return least_squares_stream(params, "kernel", [(x[:15], y[:15]), (x[15:], y[15:])], bias=bias)
    return least_squares(params, "kernel", x, y, bias=bias, keep_features=route == "features")


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("route", ["gram", "features", "stream"])
def test_the_minimiser_is_the_nearest_of_all(route, name):
    features, with_bias, rank = SINGULAR[name]
    bias = "bias" if with_bias else None
    x, y = jnp.asarray(features, jnp.float32), jnp.asarray(Y, jnp.float32)

    @jax.jit
    def solved(params):
        return minimiser(_quadratic(route, params, x, y, bias), params)

    whole = np.concatenate([features, np.ones((N, 1))], axis=1) if with_bias else features
    start = np.concatenate([PARAMS["kernel"], PARAMS["bias"][None]]) if with_bias else np.asarray(PARAMS["kernel"])
    whole = np.asarray(whole.astype(np.float32), np.float64)
    change = np.linalg.pinv(whole, rcond=1e-6) @ (Y - whole @ start)  # of least norm
    found = solved(PARAMS)
    expected = start + change
    np.testing.assert_allclose(found.params["kernel"], expected[:F], rtol=0, atol=2e-3 * np.abs(expected).max())
    if with_bias:
        np.testing.assert_allclose(found.params["bias"], expected[F], rtol=0, atol=2e-3 * np.abs(expected).max())
    assert int(found.rank) == rank and int(found.negative) == 0
    assert float(found.residual) < 1e-4


def test_a_regular_matrix_is_solved_directly_and_a_saddle_is_told():
    matrix = FULL[:F].T @ FULL[:F] + np.eye(F)
    right = RNG.normal(size=(F, 2))
    found = solve(jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32))
    np.testing.assert_allclose(found.solution, np.linalg.solve(matrix, right), atol=1e-5)
    assert (int(found.rank), int(found.negative)) == (F, 0)
    # Curvatures 2, -1 and 0: stationary along the first two, unmoved along the third, where q falls without end.
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    h = jnp.asarray(turn @ np.diag([2.0, -1.0, 0.0]) @ turn.T, jnp.float32)
    slope = jnp.asarray(turn @ np.asarray([4.0, 3.0, 12.0]), jnp.float32)
    start = {"w": jnp.zeros(3)}
    found = minimiser(Quadratic(start, jnp.zeros(()), {"w": slope}, Matrix(h)), start)
    np.testing.assert_allclose(found.params["w"], turn @ np.asarray([-2.0, 3.0, 0.0]), atol=1e-5)
    assert (int(found.rank), int(found.negative)) == (2, 1)
    assert float(found.residual) == pytest.approx(12 / 13, abs=1e-5)


def test_conjugate_gradients_say_where_there_is_no_minimum():
    def slope(params):
        return params["w"].sum()

    def bowl(params):
        return ((params["w"][:2] - 1.0) ** 2).sum()

    start = {"w": jnp.zeros(3)}
    found = minimiser(hessian(slope, start), start)
    np.testing.assert_array_equal(found.params["w"], start["w"])
    assert float(found.residual) == 1.0 and found.rank is None
    found = minimiser(hessian(bowl, start), start)
    np.testing.assert_allclose(found.params["w"], [1.0, 1.0, 0.0], atol=1e-5)
    assert float(found.residual) < 1e-5
    assert float(minimiser(hessian(bowl, found.params), found.params).residual) <= 1.0  # a slope of nearly 0


@pytest.mark.parametrize("name", SINGULAR)
def test_every_step_of_the_method_is_a_number(name):
    features, with_bias, _ = SINGULAR[name]
    x, y = jnp.asarray(features, jnp.float32), jnp.asarray(Y, jnp.float32)
    quadratic = least_squares(PARAMS, "kernel", x, y, bias="bias" if with_bias else None)
    solution = minimiser(quadratic, PARAMS).params
    encoding = encode(solution, {"kernel": Rounding(bits=3)})
    qubo = pull_back(quadratic, encoding)
    states = sequential(jax.random.key(0), quadratic, encoding, 2, jnp.asarray([0.0, 1e-2]))
    start = jnp.moveaxis(states.reshape(2, C, -1), 0, 1)
    first = qubo.energies(start)
    samples = qjax.samplers.get("anneal", num_sweeps=20)(jax.random.key(1), qubo, 2, start)
    assert bool(jnp.isfinite(samples.energies).all())
    # Babai's state is no worse than plain rounding, channels together (fixed seed).
    nearest = encoding.nearest(solution).reshape(C, 1, -1)
    assert float(first[:, 0].sum()) <= float(qubo.energies(nearest).sum()) * 1.001


def test_a_dead_feature_does_not_change_how_the_others_are_rounded():
    x, y = jnp.asarray(SINGULAR["a feature that is always 0"][0], jnp.float32), jnp.asarray(Y, jnp.float32)
    others = np.delete(np.arange(F), 2)
    specs = {"kernel": FixedPoint(bits=2, step=0.3)}
    states = []
    for columns in (np.arange(F), others):
        params = {"kernel": PARAMS["kernel"][columns]}
        bits = sequential(jax.random.key(0), least_squares(params, "kernel", x[:, columns], y), encode(params, specs))
        states.append(bits.reshape(C, len(columns), 2))
    np.testing.assert_array_equal(states[0][:, others], states[1])


def test_factors_are_near_to_what_they_stand_for():
    regular = jnp.asarray(FULL.T @ FULL / N, jnp.float32)
    np.testing.assert_array_equal(factor(regular), jnp.linalg.cholesky(regular))
    half = jnp.asarray(FULL[:3].T @ FULL[:3], jnp.float32)  # rank 3
    lower = factor(half)
    np.testing.assert_allclose(lower @ lower.T, half, atol=1e-3 * float(jnp.abs(half).max()))
    np.testing.assert_array_equal(factor(-regular), jnp.diag(jnp.sqrt(jnp.diagonal(regular))))


def _broken(params, x):
    return least_squares(params, "kernel", x, jnp.asarray(Y, jnp.float32))


def test_what_is_not_a_number_is_refused_or_told():
    x = jnp.asarray(FULL, jnp.float32).at[3, 1].set(jnp.nan)
    encoding = encode(PARAMS, {"kernel": FixedPoint(bits=2)})
    for keep in (False, True):
        model = least_squares(PARAMS, "kernel", x, jnp.asarray(Y, jnp.float32), keep_features=keep)
        with pytest.raises(ValueError, match="quadratic holds NaN"):
            pull_back(model, encoding)
        assert np.isnan(minimiser(model, PARAMS).residual)
    with pytest.raises(ValueError, match="quadratic holds NaN"):
        pull_back(hessian(lambda p, x: (x @ p["kernel"]).sum(), PARAMS, x), encoding, "implicit")
    with pytest.raises(ValueError, match="overflows"):
        pull_back(layer_gram(PARAMS, "kernel", 1e18 * FULL), encode(PARAMS, {"kernel": FixedPoint(bits=2, step=1e10)}))
    broken = {"kernel": PARAMS["kernel"].at[0, 0].set(jnp.inf)}
    with pytest.raises(ValueError, match="leaf 'kernel' holds NaN"):
        encode(broken, {"kernel": Rounding()})

    def formulate(params, radius):
        return _broken(params, x), encode(params, {"kernel": FixedPoint(bits=1)})

    def loss(params):
        return (params["kernel"] ** 2).sum()

    sampler = qjax.samplers.get("random")
    params = {"kernel": PARAMS["kernel"]}
    with pytest.raises(ValueError, match="quadratic holds NaN"):
        qjax.hybrid(jax.random.key(0), loss, params, formulate, sampler)
    traced = jax.jit(lambda params: outer_round(jax.random.key(0), loss, params, formulate, sampler, num_reads=4))
    outcome = traced(params)
    assert not bool(outcome.finite) and bool(jnp.isfinite(outcome.params["kernel"]).all())


def test_probes_that_do_not_span_the_space_are_refused():
    start = {"w": jnp.zeros(4)}
    points = RNG.normal(size=(20, 4)).astype(np.float32)
    flat = points.copy()
    flat[:, 3] = 2 * flat[:, 1] + 1
    values, few = jnp.zeros(20), points[:5]
    with pytest.raises(ValueError, match="span all 4 dimensions, they span 3"):
        fitted_from(jnp.asarray(flat), values, jnp.asarray(points), start)
    with pytest.raises(ValueError, match="more than the number of parameters"):
        fitted_from(jnp.asarray(few), values[:5], jnp.asarray(few), start)


def test_a_matrix_known_to_be_regular_has_the_same_solution() -> None:
    x, y = jnp.asarray(FULL, jnp.float32), jnp.asarray(Y, jnp.float32)
    model = least_squares(PARAMS, "kernel", x, y, bias="bias", ridge=0.1)
    found, known = minimiser(model, PARAMS), minimiser(model, PARAMS, regular=True)
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(known.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert int(known.rank) == int(found.rank) == F + 1 and float(known.residual) < 1e-4
    dead = least_squares(PARAMS, "kernel", x.at[:, 2].set(0.0), y)
    assert np.isnan(float(minimiser(dead, PARAMS, regular=True).residual))
