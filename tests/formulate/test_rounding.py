"""Sequential rounding against its definition, brute force, and the pull-back's energies."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import FixedPoint, Mask, Quadratic, Sign, encode, least_squares, pull_back
from qjax.formulate.curvature import Matrix
from qjax.formulate.minimiser import minimiser
from qjax.formulate.rounding import sequential

_sequential = jax.jit(sequential, static_argnums=3)


@functools.cache
def _problem(seed=0, width=6, channels=3, samples=40, bits=2):
    """A correlated least-squares layer, (quadratic, encoding)."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    features = jnp.asarray(rng.normal(size=(samples, width)) @ mixing, jnp.float32)
    targets = jnp.asarray(rng.normal(size=(samples, channels)), jnp.float32)
    params = {"kernel": jnp.zeros((width, channels)), "bias": jnp.zeros(channels)}
    quadratic = least_squares(params, "kernel", features, targets, ridge=1e-2)
    solution = minimiser(quadratic, params).params
    return quadratic, encode(solution, {"kernel": FixedPoint(bits=bits)})


def _as_matrix(quadratic):
    """The same quadratic with its curvature as one matrix on the flattened kernel."""
    channels = quadratic.centre["kernel"].shape[-1]
    matrix = jnp.kron(quadratic.curvature.gram, jnp.eye(channels))
    return Quadratic(quadratic.centre, quadratic.value.sum(), quadratic.gradient, Matrix(matrix))


def _by_hand(quadratic, encoding, order):
    """Babai's rounding in NumPy by back substitution, parameters in this order: H with both axes reversed is R'R, and w
    is rounded from the last row of the upper triangular R up."""
    part = encoding.parts[0]
    gram = np.asarray(quadratic.curvature.gram, np.float64)[np.ix_(order, order)]
    target = np.asarray(minimiser(quadratic, encoding.params).params["kernel"], np.float64)[order]
    origin = np.asarray(part.origin, np.float64)[order]
    step = np.broadcast_to(part.step, part.origin.shape)[order]
    flipped = np.linalg.cholesky(gram[::-1, ::-1]).T  # H reversed = R'R: row 0 of H is its last unknown
    chosen = np.zeros_like(target)
    rows = len(gram)
    for c in range(target.shape[1]):
        v, w = target[::-1, c], np.zeros(rows)
        for i in reversed(range(rows)):
            wanted = v[i] + flipped[i, i + 1 :] @ (v[i + 1 :] - w[i + 1 :]) / flipped[i, i]
            j = rows - 1 - i
            levels = origin[j, c] + step[j, c] * np.arange(4)
            w[i] = levels[np.abs(levels - wanted).argmin()]
        chosen[order, c] = w[::-1]
    return chosen


def test_zero_temperature_is_babais_nearest_plane():
    quadratic, encoding = _problem()
    bits = _sequential(jax.random.key(0), quadratic, encoding)
    assert bits.shape == (1, encoding.num_bits) and bits.dtype == jnp.int8
    expected = _by_hand(quadratic, encoding, np.arange(6))
    np.testing.assert_allclose(encoding.decode(bits[0])["kernel"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of", [lambda quadratic: quadratic, lambda quadratic: _as_matrix(quadratic)])
def test_parameters_of_largest_curvature_may_be_rounded_first(of):
    quadratic, encoding = _problem()
    order = np.argsort(-np.diagonal(quadratic.curvature.gram))
    assert (order != np.arange(6)).any()
    bits = sequential(jax.random.key(0), of(quadratic), encoding, order="descending")
    found, expected = encoding.decode(bits[0])["kernel"], _by_hand(quadratic, encoding, order)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (np.asarray(found) != _by_hand(quadratic, encoding, np.arange(6))).any()


@pytest.mark.parametrize("order", ["given", "descending"])
@pytest.mark.parametrize("of", [lambda quadratic: quadratic, lambda quadratic: _as_matrix(quadratic)])
def test_a_regular_problem_is_rounded_alike_without_eigenvectors(of, order):
    quadratic, encoding = _problem()
    call = functools.partial(sequential, jax.random.key(0), of(quadratic), encoding, 4, 1e-3, order=order)
    np.testing.assert_array_equal(call(regular=True), call())
    general, regular = (str(jax.make_jaxpr(functools.partial(call, regular=known))()) for known in (False, True))
    assert "eigh" in general and "eigh" not in regular


def test_a_matrix_on_the_leaf_rounds_like_the_gram_matrix_it_repeats():
    quadratic, encoding = _problem()
    shared = _sequential(jax.random.key(0), quadratic, encoding, 2)
    whole = _sequential(jax.random.key(0), _as_matrix(quadratic), encoding, 2)
    np.testing.assert_array_equal(shared, whole)


def test_error_feedback_beats_plain_rounding():
    # Fixed seeds: over 6 layers of 16 correlated weights, the mean of q above its minimum falls by a quarter or more.
    nearest, babai = [], []
    for seed in range(6):
        quadratic, encoding = _problem(seed, width=16, samples=80)
        floor = quadratic(minimiser(quadratic, encoding.params).params)
        states = jnp.stack(
            [encoding.nearest(encoding.params), _sequential(jax.random.key(seed), quadratic, encoding)[0]]
        )
        for kept, state in zip((nearest, babai), states, strict=True):
            kept.append(float(quadratic(encoding.decode(state)) - floor))
    assert np.mean(babai) < 0.75 * np.mean(nearest)


def test_reads_at_one_parameter_follow_the_boltzmann_law():
    # One parameter: Klein's draw is the Boltzmann law of q itself. 20000 reads, 4 levels: a chi-squared statistic over
    # 25 has probability 1.5e-5 under the law with 3 degrees of freedom.
    quadratic, encoding = _problem(width=1, channels=1)
    qubo = pull_back(quadratic, encoding)
    states = jnp.asarray(list(itertools.product((0, 1), repeat=2)), jnp.int8)
    energies = np.asarray(qubo.energies(states[None]), np.float64)[0]
    temperature = 0.5 * float(energies.max() - energies.min())
    law = np.exp(-(energies - energies.min()) / temperature)
    law /= law.sum()
    reads = 20000
    drawn = np.asarray(_sequential(jax.random.key(1), quadratic, encoding, reads, temperature))
    counts = np.bincount(2 * drawn[:, 0] + drawn[:, 1], minlength=4)
    assert (((counts - reads * law) ** 2) / (reads * law)).sum() < 25


def test_one_temperature_per_read_mixes_babai_and_klein():
    quadratic, encoding = _problem(width=12)
    heat = jnp.asarray([0.0] + [1.0] * 7)
    reads = _sequential(jax.random.key(2), quadratic, encoding, 8, heat)
    np.testing.assert_array_equal(reads[0], _sequential(jax.random.key(3), quadratic, encoding)[0])
    assert len(np.unique(np.asarray(reads), axis=0)) == 8


def test_is_jittable():
    quadratic, encoding = _problem()
    call = jax.jit(lambda key, q, e: sequential(key, q, e, 4, 0.1))
    expected = sequential(jax.random.key(0), quadratic, encoding, 4, 0.1)
    np.testing.assert_array_equal(call(jax.random.key(0), quadratic, encoding), expected)


def test_what_it_cannot_round_it_says():
    quadratic, encoding = _problem()
    params = encoding.params
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="temperature"):
        sequential(key, quadratic, encoding, 2, jnp.zeros(3))
    with pytest.raises(ValueError, match="damping"):
        sequential(key, quadratic, encoding, damping=-1.0)
    with pytest.raises(ValueError, match="order"):
        sequential(key, quadratic, encoding, order="ascending")
    with pytest.raises(ValueError, match="on bias alone"):
        sequential(key, quadratic, encode(params, {"bias": FixedPoint(step=1.0)}))
    with pytest.raises(ValueError, match="free digits"):
        sequential(key, quadratic, encode(params, {"kernel": Mask(axis=-1)}))
    with pytest.raises(ValueError, match="one part"):
        sequential(key, quadratic, encode(params, {"kernel": Sign(), "bias": Sign(step=1.0)}))


@pytest.mark.parametrize("keep_features", [False, True])
def test_a_bias_is_held_where_the_encoding_has_it(keep_features):
    # One weight per channel: Babai's rounding is the nearest level to the minimiser of E, so it minimises E itself.
    rng = np.random.default_rng(5)
    features = jnp.asarray(2.0 + rng.normal(size=(40, 1)), jnp.float32)
    targets = jnp.asarray(rng.normal(size=(40, 3)) + 3.0, jnp.float32)
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.zeros(3)}
    quadratic = least_squares(params, "kernel", features, targets, bias="bias", keep_features=keep_features)
    encoding = encode(params, {"kernel": FixedPoint(bits=4, step=0.25)})
    bits = sequential(jax.random.key(0), quadratic, encoding)[0].reshape(3, 4)
    states = jnp.asarray(list(itertools.product((0, 1), repeat=4)), jnp.int8)
    qubo = pull_back(quadratic, encoding)
    best = qubo.energies(jnp.broadcast_to(states, (3, *states.shape))).min(-1)
    np.testing.assert_allclose(qubo.energies(bits[:, None, :])[:, 0], best, rtol=1e-5)
