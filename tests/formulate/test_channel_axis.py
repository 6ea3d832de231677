"""channel_axis: weights with their channels in front are formulated as their transposes with the channels behind are.

The kernels are square, so that a wrong axis shows in no shape.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.formulate.encodings import FixedPoint, Rounding, Sign, Ternary, encode
from qjax.formulate.minimiser import minimiser
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import layer_gram, least_squares
from qjax.formulate.rounding import sequential

RNG = np.random.default_rng(11)
N, C = 30, 3
X = jnp.asarray(RNG.normal(size=(N, C)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(N, C)) * [1.0, 3.0, 9.0], jnp.float32)
BEHIND = jnp.asarray(RNG.normal(size=(C, C)) * [[1.0, 3.0, 9.0]], jnp.float32)  # (in, out)
BIAS = jnp.asarray([0.3, -0.2, 0.1])
LAST, FIRST = {"w": BEHIND, "b": BIAS}, {"w": BEHIND.T, "b": BIAS}

QUADRATICS = {
    "least_squares": lambda p, axis: least_squares(p, "w", X, Y, bias="b", ridge=0.1, channel_axis=axis),
    "least_squares, features kept": lambda p, axis: least_squares(
        p, "w", X, Y, bias="b", keep_features=True, channel_axis=axis
    ),
    "layer_gram": lambda p, axis: layer_gram(p, "w", X, damping=0.01, channel_axis=axis),
}
STEPS = jnp.asarray([0.3, 0.7, 1.9])
ENCODINGS = {
    "sign": functools.partial(Sign),
    "ternary": functools.partial(Ternary, step=0.7),
    "fixed-point": functools.partial(FixedPoint, bits=1),
    "fixed-point, steps of channels": functools.partial(FixedPoint, bits=1, step=STEPS),
    "fixed-point around the current values": functools.partial(FixedPoint, bits=1, around="current"),
    "rounding": functools.partial(Rounding, bits=3),
}


def _states(n):
    if n <= 9:
        return np.array(list(itertools.product([0, 1], repeat=n)), np.int8)
    return np.random.default_rng(0).integers(0, 2, (500, n), np.int8)


def _energies(qubo, states):
    """E at states (S, n) of the encoding, (S,): the sum over the problems of a batch."""
    if not qubo.batch_shape:
        return qubo.energies(states)
    return qubo.energies(jnp.moveaxis(states.reshape(len(states), *qubo.batch_shape, -1), 1, 0)).sum(0)


@pytest.mark.slow
@pytest.mark.parametrize("encoding_name", ENCODINGS)
@pytest.mark.parametrize("quadratic_name", QUADRATICS)
def test_channels_in_front_are_those_of_the_transpose(quadratic_name, encoding_name):
    results = []
    for params, axis in ((LAST, -1), (FIRST, 0)):
        quadratic = jax.jit(QUADRATICS[quadratic_name], static_argnums=1)(params, axis)
        encoding = encode(params, {"w": ENCODINGS[encoding_name](channel_axis=axis)})
        states = jnp.asarray(_states(encoding.num_bits))
        qubo = pull_back(quadratic, encoding)
        whole = pull_back(quadratic, encoding, "implicit")
        assert qubo.batch_shape == (C,) and whole.batch_shape == ()
        values = jax.vmap(lambda p, q=quadratic: q({**p, "b": BIAS}))({"w": encoding.decode(states)["w"]})
        scale = float(jnp.abs(values).max())
        np.testing.assert_allclose(_energies(qubo, states), values, atol=1e-5 * scale)
        np.testing.assert_allclose(_energies(whole, states), values, atol=1e-5 * scale)
        np.testing.assert_allclose(
            whole.couplings.diagonal, jnp.diagonal(whole.couplings.to_dense()), rtol=1e-5, atol=1e-6 * scale
        )
        results.append((values, encoding.decode(states)["w"], qubo))
    (last, decoded_last, qubo_last), (first, decoded_first, qubo_first) = results
    np.testing.assert_allclose(first, last, rtol=1e-5)
    np.testing.assert_allclose(decoded_first, jnp.swapaxes(decoded_last, -1, -2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(qubo_first.linear, qubo_last.linear, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(qubo_first.scale, qubo_last.scale, rtol=1e-6)


def test_axes_that_differ_make_one_problem_and_the_same_energies():
    quadratic = QUADRATICS["least_squares"](FIRST, 0)
    encoding = encode(FIRST, {"w": FixedPoint(bits=1)})
    states = jnp.asarray(_states(encoding.num_bits))
    for form in ("auto", "implicit"):
        qubo = pull_back(quadratic, encoding, form)
        assert qubo.batch_shape == ()
        values = jax.vmap(lambda w: quadratic({"w": w, "b": BIAS}))(encoding.decode(states)["w"])
        np.testing.assert_allclose(qubo.energies(states), values, atol=1e-5 * float(jnp.abs(values).max()))
    np.testing.assert_allclose(qubo.couplings.diagonal, jnp.diagonal(qubo.couplings.to_dense()), rtol=1e-5)


def test_a_convolution_with_its_channels_in_front():
    """(out, in, h, w): rows of H are (in, h, w)."""
    kernel = jnp.asarray(RNG.normal(size=(2, 3, 1, 2)), jnp.float32)
    x = jnp.asarray(RNG.normal(size=(N, 6)), jnp.float32)
    y = jnp.asarray(RNG.normal(size=(N, 2)), jnp.float32)
    quadratic = least_squares({"w": kernel}, "w", x, y, channel_axis=0)
    expected = 0.5 * ((x @ kernel.reshape(2, 6).T - y) ** 2).sum(-1).mean()
    assert float(quadratic({"w": kernel})) == pytest.approx(float(expected), rel=1e-5)
    best = minimiser(quadratic, {"w": kernel}).params["w"]
    np.testing.assert_allclose(best.reshape(2, 6).T, np.linalg.lstsq(x, y)[0], atol=1e-4)
    encoding = encode({"w": kernel}, {"w": Sign(channel_axis=0)})
    np.testing.assert_allclose(encoding.parts[0].step[:, 0, 0, 0], 2 * jnp.abs(kernel).mean((1, 2, 3)), rtol=1e-6)
    middle = encode({"w": kernel}, {"w": Sign(channel_axis=1)})
    assert middle.parts[0].step.shape == (1, 3, 1, 1)
    for of in (encoding, middle):
        states = jnp.asarray(_states(of.num_bits))
        values = jax.vmap(lambda w: quadratic({"w": w}))(of.decode(states)["w"])
        np.testing.assert_allclose(_energies(pull_back(quadratic, of), states), values, atol=1e-4 * float(values.max()))


def test_sequential_rounding_is_that_of_the_transpose():
    states = []
    for params, axis in ((LAST, -1), (FIRST, 0)):
        encoding = encode(params, {"w": FixedPoint(bits=2, channel_axis=axis)})
        states.append(sequential(jax.random.key(0), QUADRATICS["least_squares"](params, axis), encoding))
    np.testing.assert_array_equal(states[0], states[1])
    crossed = encode(FIRST, {"w": FixedPoint(bits=2, step=0.5)})  # bits by inputs, channels of the quadratic in front
    plain = encode(FIRST, {"w": FixedPoint(bits=2, step=0.5, channel_axis=0)})
    quadratic = QUADRATICS["least_squares"](FIRST, 0)
    decoded = [e.decode(sequential(jax.random.key(0), quadratic, e)[0])["w"] for e in (crossed, plain)]
    np.testing.assert_array_equal(*decoded)


def test_labels_say_channel_then_the_other_axes_then_digit():
    leaf = {"w": jnp.arange(1.0, 25.0).reshape(2, 3, 4)}
    for axis, shape in ((-1, (4, 2, 3, 2)), (0, (2, 3, 4, 2)), (1, (3, 2, 4, 2))):
        encoding = encode(leaf, {"w": FixedPoint(bits=2, step=1.0, channel_axis=axis)})
        assert encoding.labels.arrays == (("w", shape),)
        bit = int(np.ravel_multi_index((1, 1, 2, 0), shape))
        assert encoding.labels[bit] == ("w", (1, 1, 2, 0))
        channel, *others, _ = (1, 1, 2, 0)
        index = tuple(np.insert(others, axis % 3, channel))
        moved = encoding.apply(jnp.zeros(encoding.num_bits).at[bit].set(1.0))["w"]
        np.testing.assert_array_equal(np.argwhere(np.asarray(moved)), [index])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layer_gram(FIRST, "w", X, channel_axis=2), "channel_axis 2 is out of range for w"),
        (lambda: least_squares(FIRST, "w", X, Y, channel_axis=-3), "channel_axis -3 is out of range for w"),
        (lambda: encode(FIRST, {"w": Sign(channel_axis=2)}), "axis 2 is out of range for w"),
        (lambda: encode({"w": jnp.ones((2, 3))}, {"w": Sign(step=jnp.ones(3), channel_axis=0)}), "entry per channel"),
        (lambda: layer_gram({"w": jnp.ones((2, 3))}, "w", jnp.ones((4, 2)), channel_axis=0), r"shape \(N, 3\)"),
    ],
)
def test_bad_axes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
