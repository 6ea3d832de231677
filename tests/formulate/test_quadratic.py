"""Quadratic models against their objectives and dense derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
import qjax.formulate.leaves
import qjax.formulate.quadratic as quadratic_module
from qjax.formulate.curvature import Matrix
from qjax.formulate.encodings import Direction, encode
from qjax.formulate.fitted import fitted, fitted_from
from qjax.formulate.minimiser import minimiser
from qjax.formulate.quadratic import gauss_newton, hessian, layer_gram, least_squares, least_squares_stream
from tests.jaxprs import closed_over

RNG = np.random.default_rng(2)
N, F, C = 30, 4, 3
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(N, C)), jnp.float32)
PARAMS = {
    "head": {"kernel": jnp.asarray(RNG.normal(size=(F, C)), jnp.float32), "bias": jnp.ones(C)},
    "other": jnp.ones(2),
}
ELSEWHERE = jax.tree.map(lambda leaf: leaf + jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), PARAMS)
RIDGE = 0.3


def _ridge_loss(params, with_bias):
    w, b = params["head"]["kernel"], params["head"]["bias"] if with_bias else jnp.zeros(C)
    return 0.5 * ((X @ w + b[None, :] - Y) ** 2).sum(-1).mean() + 0.5 * RIDGE * (w**2).sum()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("route", ["gram", "features", "stream"])
def test_least_squares_is_exact_everywhere(route, with_bias):
    bias = "head/bias" if with_bias else None
    if route == "stream":
        batches = ((X[i : i + 7], Y[i : i + 7]) for i in range(0, N, 7))
        model = least_squares_stream(PARAMS, "head/kernel", batches, bias=bias, ridge=RIDGE)
    else:
        kept = route == "features"
        model = least_squares(PARAMS, "head/kernel", X, Y, bias=bias, ridge=RIDGE, keep_features=kept)
    for params in (PARAMS, ELSEWHERE):
        assert float(model(params)) == pytest.approx(float(_ridge_loss(params, with_bias)), rel=1e-4)
    best = minimiser(model, PARAMS).params
    slope = jax.jit(jax.grad(lambda p: _ridge_loss(p, with_bias)))(best)
    np.testing.assert_allclose(slope["head"]["kernel"], 0, atol=1e-4)
    np.testing.assert_array_equal(best["other"], PARAMS["other"])


@pytest.mark.parametrize("number", [int, np.int64])
def test_a_ridge_or_damping_beyond_int32_does_not_wrap(number):
    big = number(3 * 10**9)
    expected = np.float32(big) * np.eye(F)
    for model in (
        least_squares(PARAMS, "head/kernel", X, Y, ridge=big),
        layer_gram(PARAMS, "head/kernel", X, damping=big),
    ):
        np.testing.assert_allclose(model.curvature.gram, expected, atol=10.0)
    flat = layer_gram(PARAMS, "head/kernel", 0 * X)
    best = minimiser(
        qjax.Quadratic(flat.centre, flat.value, {"head/kernel": jnp.ones((F, C))}, flat.curvature), PARAMS, damping=big
    ).params
    np.testing.assert_allclose(best["head"]["kernel"], PARAMS["head"]["kernel"] - np.float32(1 / big), rtol=1e-6)


def test_layer_gram_measures_the_change_of_outputs():
    model = layer_gram(PARAMS, "head/kernel", X)
    moved = X @ (ELSEWHERE["head"]["kernel"] - PARAMS["head"]["kernel"])
    assert float(model(ELSEWHERE)) == pytest.approx(float(0.5 * (moved**2).sum(-1).mean()), rel=1e-4)
    assert float(model(PARAMS)) == 0.0
    streamed = layer_gram(PARAMS, "head/kernel", [X[:11], X[11:]])
    np.testing.assert_allclose(streamed.curvature.gram, model.curvature.gram, atol=1e-5)


def _outputs(params, x, y):
    return jnp.tanh(x @ params["head"]["kernel"] + params["head"]["bias"][None, :])


def _loss(outputs, x, y):
    return ((outputs - y) ** 2).mean()


def _objective(params, x, y):
    return _loss(_outputs(params, x, y), x, y)


LEAVES = ("head/kernel", "head/bias")


def _ravelled():
    chosen = qjax.formulate.leaves.select(PARAMS, LEAVES)
    flat, unravel = jax.flatten_util.ravel_pytree(chosen)
    return chosen, flat, unravel


def test_local_models_have_the_derivatives_of_the_loss():
    chosen, flat, unravel = _ravelled()

    def objective(vector):
        return _objective(qjax.formulate.leaves.replace(PARAMS, unravel(vector)), X, Y)

    def outputs(vector):
        return _outputs(qjax.formulate.leaves.replace(PARAMS, unravel(vector)), X, Y).reshape(-1)

    jacobian = jax.jit(jax.jacobian(outputs))(flat)
    expected = {
        "hessian": jax.jit(jax.hessian(objective))(flat),
        "gauss_newton": jacobian.T @ jacobian * (2.0 / (N * C)),
    }
    models = {
        "hessian": hessian(_objective, PARAMS, X, Y, leaves=LEAVES, damping=0.1),
        "gauss_newton": gauss_newton(_outputs, _loss, PARAMS, X, Y, leaves=LEAVES, damping=0.1),
    }
    for name, model in models.items():
        product = jax.vmap(lambda v, m=model: jax.flatten_util.ravel_pytree(m.curvature.product(unravel(v)))[0])
        dense = jax.jit(product)(jnp.eye(flat.size))
        np.testing.assert_allclose(dense, expected[name] + 0.1 * np.eye(flat.size), atol=1e-5, err_msg=name)
        slope = jax.flatten_util.ravel_pytree(model.gradient)[0]
        np.testing.assert_allclose(slope, jax.jit(jax.grad(objective))(flat), atol=1e-5)
        assert float(model.value) == pytest.approx(float(objective(flat)), rel=1e-5)
        assert set(model.centre) == set(chosen)


def test_equal_local_models_share_a_compiled_program():
    traces = []

    @jax.jit
    def value(model, params):
        traces.append(1)
        return model(params)

    for shift in (0.0, 1.0):
        moved = jax.tree.map(lambda leaf, by=shift: leaf + by, PARAMS)
        value(gauss_newton(_outputs, _loss, moved, X, Y, leaves=LEAVES), PARAMS)
    assert len(traces) == 1


def test_data_that_a_loss_closes_over_are_leaves_of_its_model():
    """As those given beside it are: no array becomes a constant of the programs that the product is part of."""
    pairs = [
        (
            gauss_newton(lambda p: _outputs(p, X, Y), lambda z: _loss(z, X, Y), PARAMS, leaves=LEAVES),
            gauss_newton(_outputs, _loss, PARAMS, X, Y, leaves=LEAVES),
        ),
        (
            hessian(jax.jit(lambda p: _objective(p, X, Y)), PARAMS, leaves=LEAVES),
            hessian(_objective, PARAMS, X, Y, leaves=LEAVES),
        ),
    ]
    v = qjax.formulate.leaves.select(ELSEWHERE, LEAVES)
    for model, explicit in pairs:
        assert {id(X), id(Y)} <= {id(leaf) for leaf in jax.tree.leaves(model)}
        assert not closed_over(lambda model, v: model.curvature.product(v), model, v)
        expected = explicit.curvature.product(v)
        for name, image in model.curvature.product(v).items():
            np.testing.assert_allclose(image, expected[name], rtol=1e-5, atol=1e-6)
        assert float(model(ELSEWHERE)) == pytest.approx(float(explicit(ELSEWHERE)), rel=1e-5)


A = RNG.normal(size=(6, 6))
A = jnp.asarray(A @ A.T / 6 + np.eye(6), jnp.float32)
CENTRE = jnp.asarray(RNG.normal(size=6), jnp.float32)


def _bowl(params, ripple):
    d = params["w"] - CENTRE
    return 0.5 * d @ A @ d + ripple * jnp.cos(20 * d).sum() + 2.0


def test_fitted_recovers_a_quadratic():
    start = {"w": jnp.zeros(6)}
    model = fitted(jax.random.key(0), _bowl, start, 0.0, radius=1.0, num_samples=200, batch_size=64, shrinkage=0.0)
    np.testing.assert_allclose(model.curvature.matrix, A, atol=1e-3)
    np.testing.assert_allclose(minimiser(model, start).params["w"], CENTRE, atol=1e-3)
    assert float(model({"w": CENTRE})) == pytest.approx(2.0, abs=1e-2)


def test_fitted_sees_the_bowl_under_ripples():
    start = {"w": jnp.zeros(6)}
    ripple = 0.5
    assert float(jnp.abs(jax.grad(_bowl)({"w": CENTRE + 0.05}, ripple)["w"]).max()) > 5
    model = fitted(jax.random.key(1), _bowl, start, ripple, radius={"w": 2.0}, num_samples=20_000)
    np.testing.assert_allclose(minimiser(model, start).params["w"], CENTRE, atol=0.2)
    # The automatic shrinkage hardly changes a curvature that is so far from a multiple of I.
    np.testing.assert_allclose(model.curvature.matrix, A, atol=0.2)


def test_fitted_from_given_probes_agrees():
    start = {"w": jnp.zeros(6)}
    points = jnp.asarray(RNG.normal(size=(50, 6)), jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda w: _bowl({"w": w}, 0.0))))(points)
    model = fitted_from(points, values, gradients, start, shrinkage=0.0)
    np.testing.assert_allclose(model.curvature.matrix, A, atol=1e-3)
    assert float(model({"w": CENTRE})) == pytest.approx(2.0, abs=1e-2)


def test_leaves_of_a_matrix_are_sorted_by_name_inside_jit_and_outside():
    matrix, v = Matrix(A), {"w": CENTRE[:4], "b": CENTRE[4:]}
    expected = A @ jnp.concatenate([v["b"], v["w"]])
    for image in (matrix.product(v), jax.jit(matrix.product)(v)):
        np.testing.assert_allclose(jnp.concatenate([image["b"], image["w"]]), expected, atol=1e-5)
    start, moved = jax.tree.map(jnp.zeros_like, v), jax.tree.map(lambda leaf: leaf + 1.0, v)

    def objective(params):
        return _bowl({"w": jnp.concatenate([params["w"], params["b"]])}, 0.0)

    key = jax.random.key(0)
    model = fitted(key, objective, start, leaves=["w", "b"], radius=1.0, num_samples=200, shrinkage=0.0)
    assert float(model(moved)) == pytest.approx(float(objective(moved)), rel=1e-2)


def test_every_product_is_of_the_highest_precision():
    kept = least_squares(PARAMS, "head/kernel", X, Y, keep_features=True)
    along = encode(PARAMS, Direction({"head/kernel": jnp.ones((2, F, C))}))
    start = {"w": jnp.zeros(6)}
    traced = [
        jax.make_jaxpr(lambda params: kept(minimiser(kept, params).params))(PARAMS),
        jax.make_jaxpr(lambda bits: along.transpose(along.apply(bits)))(jnp.ones(along.num_bits)),
        jax.make_jaxpr(lambda x, v, g: fitted_from(x, v, g, start))(jnp.ones((9, 6)), jnp.ones(9), jnp.ones((9, 6))),
    ]
    for text in map(str, traced):
        assert 0 < text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)"), text


def test_full_shrinkage_leaves_an_isotropic_curvature():
    model = fitted(jax.random.key(2), _bowl, {"w": jnp.zeros(6)}, 0.0, radius=1.0, num_samples=100, shrinkage=1.0)
    level = float(jnp.trace(A)) / 6
    np.testing.assert_allclose(model.curvature.matrix, level * np.eye(6), atol=1e-2)


def test_conjugate_gradients_and_dense_solves_agree():
    product = gauss_newton(_outputs, _loss, PARAMS, X, Y, leaves=LEAVES, damping=0.2)
    _, flat, unravel = _ravelled()
    dense = jax.jit(jax.vmap(lambda v: jax.flatten_util.ravel_pytree(product.curvature.product(unravel(v)))[0]))(
        jnp.eye(flat.size)
    )
    expected = flat - np.linalg.solve(dense, jax.flatten_util.ravel_pytree(product.gradient)[0])
    found = qjax.formulate.leaves.select(minimiser(product, PARAMS).params, LEAVES)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(found)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: least_squares(PARAMS, "head/kernl", X, Y), "did you mean 'head/kernel'"),
        (lambda: least_squares(PARAMS, "head/kernel", X[:, :2], Y), "features must have shape"),
        (lambda: least_squares(PARAMS, "head/kernel", X, Y[:, :2]), "targets must have shape"),
        (lambda: least_squares(PARAMS, "head/kernel", X, Y, ridge=-1.0), "negative"),
        (lambda: least_squares(PARAMS, "head/bias", X, Y), "two axes"),
        (lambda: least_squares_stream(PARAMS, "head/kernel", []), "no samples"),
        (lambda: least_squares(PARAMS, "head/kernel", X[:0], Y[:0], keep_features=True), "no samples"),
        (lambda: hessian(lambda p: p["other"], PARAMS), r"loss must return a scalar, got shape \(2,\)"),
        (lambda: hessian(_objective, PARAMS, X, Y, damping=-0.1), "damping must not be negative"),
        (lambda: gauss_newton(_outputs, _loss, PARAMS, X, Y, damping=-0.1), "damping must not be negative"),
        (lambda: hessian(_objective, {**PARAMS, "n": jnp.arange(2)}, X, Y), "leaf 'n' must be floating-point"),
        (lambda: fitted(jax.random.key(0), _bowl, {"n": 1}, 0.0, radius=1.0, num_samples=7), "leaf 'n' must be"),
        (lambda: fitted(jax.random.key(0), _bowl, {"w": CENTRE}, 0.0, radius=1.0, num_samples=7), "num_samples"),
        (lambda: fitted(jax.random.key(0), _bowl, {"w": CENTRE}, 0.0, radius=0.0, num_samples=70), "radius"),
        (lambda: minimiser(layer_gram(PARAMS, "head/kernel", X), PARAMS, damping=-1.0), "damping"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_large_gram_matrix_is_made_by_blocks_and_symmetric(monkeypatch):
    x = jnp.asarray(np.random.default_rng(7).normal(size=(50, 21)), jnp.float32)
    monkeypatch.setattr(quadratic_module, "_BLOCKED_WIDTH", 8)
    monkeypatch.setattr(quadratic_module, "_BLOCKED_WORK", 0)
    gram = np.asarray(quadratic_module._self_product(x))
    np.testing.assert_allclose(gram, np.asarray(x, np.float64).T @ np.asarray(x, np.float64), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(gram, gram.T)
    text = str(jax.make_jaxpr(quadratic_module._self_product)(x))
    assert text.count("dot_general[") == quadratic_module._BLOCKS
