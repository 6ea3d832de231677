"""E(x) = q(p(x)): every quadratic x encoding x form of couplings, on all 2^n states."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.encodings import Codebook, Direction, FixedPoint, Mask, Rounding, Sign, Ternary, encode
from qjax.fitted import fitted
from qjax.pullback import pull_back
from qjax.quadratic import gauss_newton, hessian, layer_gram, least_squares

F, C, N = 3, 2, 40
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(N, C)), jnp.float32)
PARAMS = {
    "head": {"kernel": jnp.asarray(RNG.normal(size=(F, C)), jnp.float32), "bias": jnp.asarray([0.3, -0.2])},
    "scale": jnp.asarray(1.5),
}


def _outputs(params, x, y):
    return params["scale"] * jnp.tanh(x @ params["head"]["kernel"] + params["head"]["bias"][None, :])


def _loss(outputs, x, y):
    return ((outputs - y) ** 2).mean()


def _objective(params, x, y):
    return _loss(_outputs(params, x, y), x, y)


QUADRATICS = {
    "least_squares": lambda: least_squares(PARAMS, "head/kernel", X, Y, ridge=0.1),
    "least_squares with bias": lambda: least_squares(PARAMS, "head/kernel", X, Y, bias="head/bias", ridge=0.1),
    "least_squares, features kept": lambda: least_squares(
        PARAMS, "head/kernel", X, Y, bias="head/bias", ridge=0.1, keep_features=True
    ),
    "layer_gram": lambda: layer_gram(PARAMS, "head/kernel", X, damping=0.01),
    "gauss_newton": lambda: gauss_newton(_outputs, _loss, PARAMS, X, Y, damping=0.05),
    "hessian": lambda: hessian(_objective, PARAMS, X, Y, leaves=["head/kernel", "head/bias"]),
    "fitted": lambda: fitted(_objective, PARAMS, jax.random.key(3), X, Y, radius=0.5, num_samples=64, batch_size=32),
}

ATOMS = jnp.asarray(RNG.normal(size=(4, F)), jnp.float32)
ENCODINGS = {
    "sign": {"head/kernel": Sign()},
    "fixed-point": {"head/kernel": FixedPoint(bits=2)},
    "fixed-point, a step a leaf": {"head/kernel": FixedPoint(bits=2, per="leaf", around="present")},
    "fixed-point, given steps": {"head/kernel": FixedPoint(bits=2, step=jnp.asarray([0.3, 0.7]))},
    "ternary": {"head/kernel": Ternary()},
    "rounding": {"head/kernel": Rounding(step=0.25)},
    "mask": {"head/kernel": Mask()},
    "channel mask": {"head/kernel": Mask(axis=-1)},
    "codebook of atoms": {"head/kernel": Codebook(ATOMS, axis=1)},
    "codebook of levels": {"head/kernel": Codebook(jnp.asarray([-0.5, 0.7]))},
    "direction": Direction({"head/kernel": jnp.asarray(RNG.normal(size=(4, F, C)), jnp.float32)}, bits=3),
}
TWO_LEAVES = {"head/kernel": Sign(), "head/bias": FixedPoint(bits=3)}


def _states(n):
    """All 2^n, repeated up to the same number for every encoding: a quadratic's programs then serve all of them."""
    assert n <= 12
    return np.resize(np.array(list(itertools.product([0, 1], repeat=n)), np.int8), (2**12, n))


def _tolerance(qubo):
    dense = np.abs(np.asarray(qubo.couplings.to_dense())).sum()
    size = np.abs(qubo.offset).sum() + np.abs(qubo.linear).sum() + 0.5 * dense * max(1, qubo.linear[..., 0].size)
    return 1e-4 * float(np.max(qubo.scale)) * float(size)


def _joint_energies(qubo, states):
    """A batch of channels: the encoding's bits in order, energies summed."""
    if not qubo.batch_shape:
        return qubo.energies(states)
    channels = qubo.batch_shape[0]
    split = np.moveaxis(states.reshape(len(states), channels, -1), 1, 0)
    return qubo.energies(split).sum(0)


@functools.cache
def _quadratic(name):
    return QUADRATICS[name]()


@functools.cache
def _values(name):
    return jax.jit(jax.vmap(_quadratic(name)))


@pytest.mark.parametrize("encoding_name", [*ENCODINGS, "two leaves"])
@pytest.mark.parametrize("quadratic_name", QUADRATICS)
def test_energy_is_the_quadratic_of_the_decoded_parameters(quadratic_name, encoding_name):
    quadratic = _quadratic(quadratic_name)
    encoding = encode(PARAMS, {**ENCODINGS, "two leaves": TWO_LEAVES}[encoding_name])
    if not set(encoding.paths) <= set(quadratic.centre):
        with pytest.raises(ValueError, match="head/bias"):
            pull_back(quadratic, encoding)
        return
    states = _states(encoding.num_bits)
    expected = _values(quadratic_name)(_spread(encoding.decode(states), len(states)))
    # "auto" is "dense" but where the features were kept, and "sparse" starts from "dense".
    kept = quadratic_name.endswith("kept")
    for form in ("auto", "gram", "sparse", "implicit", *(("dense",) if kept else ())):
        if form == "gram" and not _separates(quadratic_name, encoding_name, kept=True):
            with pytest.raises(ValueError, match="gram"):
                pull_back(quadratic, encoding, form)
            continue
        qubo = pull_back(quadratic, encoding, form)
        separate = _separates(quadratic_name, encoding_name) and form in ("auto", "dense", "gram")
        assert qubo.batch_shape == ((C,) if separate else ())
        assert len(qubo.labels) == qubo.num_bits
        energies = _joint_energies(qubo, states)
        np.testing.assert_allclose(energies, expected, atol=_tolerance(qubo), rtol=0, err_msg=form)
        assert float(energies.min()) == pytest.approx(float(expected.min()), abs=_tolerance(qubo))


def _separates(quadratic_name, encoding_name, kept=False):
    one_gram = ("least_squares, features kept",) if kept else ("least_squares", "layer_gram")
    return quadratic_name.startswith(one_gram) and encoding_name in (
        "sign",
        "fixed-point",
        "fixed-point, a step a leaf",
        "fixed-point, given steps",
        "ternary",
        "rounding",
    )


def _spread(params, count):
    """Leaves that were left alone get the axis of the states too."""
    return jax.tree.map(lambda p, o: p if p.ndim > o.ndim else jnp.broadcast_to(o, (count, *o.shape)), params, PARAMS)


# Every encoding and every quadratic at least once.
@pytest.mark.parametrize(
    ("quadratic_name", "encoding_name"), list(zip(itertools.cycle(QUADRATICS), ENCODINGS, strict=False))
)
def test_float64(quadratic_name, encoding_name, monkeypatch):
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64))
        for name in ("PARAMS", "X", "Y"):
            monkeypatch.setitem(globals(), name, double(globals()[name]))
        quadratic = QUADRATICS[quadratic_name]()
        encoding = encode(PARAMS, ENCODINGS[encoding_name])
        states = _states(encoding.num_bits)
        expected = jax.jit(jax.vmap(quadratic))(_spread(encoding.decode(states), len(states)))
        for form in ("auto", "implicit"):
            qubo = pull_back(quadratic, encoding, form)
            energies = _joint_energies(qubo, states)
            assert energies.dtype == jnp.float64
            np.testing.assert_allclose(energies, expected, atol=1e-5 * _tolerance(qubo), rtol=0, err_msg=form)
