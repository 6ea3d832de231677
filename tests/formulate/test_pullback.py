"""E(x) = q(p(x)): every quadratic x encoding x form of couplings, on all 2^n states."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax.energy.couplings import Dense, Gram, Implicit, Sparse
from qjax.formulate.curvature import Product
from qjax.formulate.encodings import Codebook, Direction, FixedPoint, Mask, Rounding, Sign, Ternary, encode
from qjax.formulate.fitted import fitted
from qjax.formulate.leaves import select
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import gauss_newton, hessian, layer_gram, least_squares
from tests.samplers import problems

F, C, N = 3, 2, 40
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(N, C)), jnp.float32)
PARAMS = {
    "head": {"kernel": jnp.asarray(RNG.normal(size=(F, C)), jnp.float32), "bias": jnp.asarray([0.3, -0.2])},
    "scale": jnp.asarray(1.5),
}


def _outputs(params, x, y):
    kernel, bias, scale = (leaf.astype(x.dtype) for leaf in (*_head(params), params["scale"]))
    return scale * jnp.tanh(x @ kernel + bias[None, :])


def _head(params):
    return params["head"]["kernel"], params["head"]["bias"]


def _loss(outputs, x, y):
    return ((outputs - y) ** 2).mean()


def _objective(params, x, y):
    return _loss(_outputs(params, x, y), x, y)


QUADRATICS = {
    "least_squares": lambda p, x, y: least_squares(p, "head/kernel", x, y, ridge=0.1),
    "least_squares with bias": lambda p, x, y: least_squares(p, "head/kernel", x, y, bias="head/bias", ridge=0.1),
    "least_squares, features kept": lambda p, x, y: least_squares(
        p, "head/kernel", x, y, bias="head/bias", ridge=0.1, keep_features=True
    ),
    "layer_gram": lambda p, x, y: layer_gram(p, "head/kernel", x, damping=0.01),
    "gauss_newton": lambda p, x, y: gauss_newton(_outputs, _loss, p, x, y, damping=0.05),
    "hessian": lambda p, x, y: hessian(_objective, p, x, y, leaves=["head/kernel", "head/bias"]),
    "fitted": lambda p, x, y: fitted(jax.random.key(3), _objective, p, x, y, radius=0.5, num_samples=64, batch_size=32),
}

ATOMS = jnp.asarray(RNG.normal(size=(4, F)), jnp.float32)
ENCODINGS = {
    "sign": {"head/kernel": Sign()},
    "fixed-point": {"head/kernel": FixedPoint(bits=2)},
    "fixed-point, one step per leaf": {"head/kernel": FixedPoint(bits=2, per="leaf", around="current")},
    "fixed-point, given steps": {"head/kernel": FixedPoint(bits=2, step=jnp.asarray([0.3, 0.7]))},
    "ternary": {"head/kernel": Ternary()},
    "rounding": {"head/kernel": Rounding(step=0.25)},
    "mask": {"head/kernel": Mask()},
    "channel mask": {"head/kernel": Mask(axis=-1)},
    "codebook of atoms": {"head/kernel": Codebook(ATOMS, axis=1)},
    "codebook of levels": {"head/kernel": Codebook(jnp.asarray([-0.5, 0.7]))},
    "direction": Direction({"head/kernel": jnp.asarray(RNG.normal(size=(4, F, C)), jnp.float32)}, bits=3),
    "two leaves": {"head/kernel": Sign(), "head/bias": FixedPoint(bits=3)},
}
ON_THE_KERNEL = [name for name in ENCODINGS if name != "two leaves"]
OF_THE_KERNEL = ("least_squares", "layer_gram")  # quadratics that do not hold the bias
PAIRS = [(q, e) for q in QUADRATICS for e in ENCODINGS if e in ON_THE_KERNEL or q not in OF_THE_KERNEL]


def test_the_registry_holds_every_exported_encoding():
    bound = [spec for specs in ENCODINGS.values() for spec in (specs.values() if isinstance(specs, dict) else [specs])]
    exported = [getattr(qjax, name) for name in qjax.__all__]
    kinds = {kind for kind in exported if hasattr(kind, "bind") or hasattr(kind, "bind_tree")}
    assert {type(spec) for spec in bound} == kinds


@pytest.mark.parametrize(
    ("quadratic_name", "limit", "couplings"),
    [
        ("layer_gram", 2 * F, Dense),
        ("layer_gram", 2 * F - 1, Implicit),
        ("least_squares, features kept", 2 * F - 1, Gram),
    ],
)
def test_auto_is_implicit_past_the_limit_of_a_channel(quadratic_name, limit, couplings):
    problem = (_quadratic(quadratic_name), _encoding("fixed-point"))  # of two bits
    qubo = jax.eval_shape(lambda quadratic, encoding: pull_back(quadratic, encoding, dense_limit=limit), *problem)
    assert isinstance(qubo.couplings, couplings)
    assert qubo.batch_shape == (() if couplings is Implicit else (C,))


def _states(n):
    assert n <= 12
    return np.array(list(itertools.product([0, 1], repeat=n)), np.int8)


def _tolerance(qubo):
    dense = jnp.abs(qubo.couplings.to_dense()).sum()
    size = jnp.abs(qubo.offset).sum() + jnp.abs(qubo.linear).sum() + 0.5 * dense * max(1, qubo.linear[..., 0].size)
    return 1e-4 * qubo.scale.max() * size


def _host_tolerance(qubo):
    dense = 0.5 * np.abs(problems.matrix_of(qubo.couplings)).sum()
    return 1e-4 * float(qubo.scale) * (abs(float(qubo.offset)) + float(np.abs(qubo.linear).sum()) + dense)


def _joint_energies(qubo, states):
    """q at states (S, n) of the encoding, (S,): where the Qubo has batch (C,), the sum of its problems' energies."""
    if not qubo.batch_shape:
        return qubo.energies(states)
    channels = qubo.batch_shape[0]
    split = jnp.moveaxis(states.reshape(len(states), channels, -1), 1, 0)
    return qubo.energies(split).sum(0)


@functools.cache
def _quadratic(name):
    return jax.jit(QUADRATICS[name])(PARAMS, X, Y)


@functools.cache
def _encoding(name):
    return encode(PARAMS, ENCODINGS[name])


@functools.partial(jax.jit, static_argnums=0)
def _pulled(forms, quadratic, encoding, states):
    """The quadratic at all states (S, n), (S,); for every form the Qubo, its energies (S,), and their tolerance."""
    values = jax.vmap(quadratic)(_spread(encoding, encoding.decode(states), len(states)))
    qubos = [pull_back(quadratic, encoding, form) for form in forms]
    return values, [(qubo, _joint_energies(qubo, states), _tolerance(qubo)) for qubo in qubos]


@pytest.mark.parametrize("encoding_name", ENCODINGS)
@pytest.mark.parametrize("quadratic_name", QUADRATICS)
def test_energy_is_the_quadratic_of_the_decoded_parameters(quadratic_name, encoding_name):
    quadratic, encoding = _quadratic(quadratic_name), _encoding(encoding_name)
    if (quadratic_name, encoding_name) not in PAIRS:
        with pytest.raises(ValueError, match="head/bias"):
            pull_back(quadratic, encoding)
        return
    # "auto" is "dense", except where the features were kept.
    forms = ["auto", "implicit", *(["dense"] if quadratic_name.endswith("kept") else [])]
    if _separates(quadratic_name, encoding_name, kept=True):
        forms.append("gram")
    else:
        with pytest.raises(ValueError, match="gram"):
            jax.eval_shape(lambda q, e: pull_back(q, e, "gram"), quadratic, encoding)
    expected, pulled = _pulled(tuple(forms), quadratic, encoding, _states(encoding.num_bits))
    for form, (qubo, energies, tolerance) in zip(forms, pulled, strict=True):
        separate = _separates(quadratic_name, encoding_name) and form != "implicit"
        assert qubo.batch_shape == ((C,) if separate else ())
        assert len(qubo.labels) == qubo.num_bits
        np.testing.assert_allclose(energies, expected, atol=float(tolerance), rtol=0, err_msg=form)
        assert float(energies.min()) == pytest.approx(float(expected.min()), abs=float(tolerance))

    # The sparse form is made on the host, outside jit: so is the rest of its pull-back. Energies by plain numpy.
    qubo = pull_back(quadratic, encoding, "sparse")
    assert isinstance(qubo.couplings, Sparse) and qubo.batch_shape == () and len(qubo.labels) == qubo.num_bits
    energies = problems.energies(qubo, _states(encoding.num_bits))
    np.testing.assert_allclose(energies, expected, atol=_host_tolerance(qubo), rtol=0)


def _separates(quadratic_name, encoding_name, kept=False):
    one_gram = ("least_squares, features kept",) if kept else ("least_squares", "layer_gram")
    return quadratic_name.startswith(one_gram) and encoding_name in (
        "sign",
        "fixed-point",
        "fixed-point, one step per leaf",
        "fixed-point, given steps",
        "ternary",
        "rounding",
    )


def _spread(encoding, decoded, count):
    """decoded, with a leading axis of `count` states also on the leaves that are not encoded."""
    return jax.tree.map(
        lambda p, o: p if p.ndim > o.ndim else jnp.broadcast_to(o, (count, *o.shape)), decoded, encoding.params
    )


# Every encoding and every quadratic at least once.
COVERED = list(zip(itertools.cycle(QUADRATICS), ON_THE_KERNEL, strict=False))


@pytest.mark.parametrize(("quadratic_name", "encoding_name"), COVERED)
def test_float64(quadratic_name, encoding_name):
    with jax.enable_x64(True):
        params, x, y = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (PARAMS, X, Y))
        quadratic = jax.jit(QUADRATICS[quadratic_name])(params, x, y)
        encoding = jax.jit(lambda p: encode(p, ENCODINGS[encoding_name]))(params)
        forms = ("auto", "implicit")
        expected, pulled = _pulled(forms, quadratic, encoding, _states(encoding.num_bits))
        for form, (_, energies, tolerance) in zip(forms, pulled, strict=True):
            assert energies.dtype == jnp.float64
            np.testing.assert_allclose(energies, expected, atol=1e-5 * float(tolerance), rtol=0, err_msg=form)


LOW = {"kernel": jnp.bfloat16, "bias": jnp.float16}
MIXED = {
    "head": {name: leaf.astype(LOW[name]) for name, leaf in PARAMS["head"].items()},
    "scale": PARAMS["scale"],
}


@functools.partial(jax.jit, static_argnums=0)
def _unrounded(forms, quadratic, encoding, states):
    """As `_pulled`, with q at p0 + B x before it is rounded to the leaves' dtypes; and the decoded parameters."""

    def value(state):
        moved = encoding.apply(state.astype(quadratic.value.dtype))
        origin = {name: leaf for name, leaf in select(encoding.origin, quadratic.centre).items()}
        return quadratic(origin | {name: origin[name] + leaf for name, leaf in moved.items()})

    qubos = [pull_back(quadratic, encoding, form) for form in forms]
    pulled = [(qubo, _joint_energies(qubo, states), _tolerance(qubo)) for qubo in qubos]
    return jax.vmap(value)(states), pulled, encoding.decode(states)


@pytest.mark.parametrize(("quadratic_name", "encoding_name"), [p for p in PAIRS if "sign" in p or "gauss_newton" in p])
def test_leaves_of_16_bits_are_formulated_in_float32_and_decoded_as_they_are(quadratic_name, encoding_name):
    quadratic = jax.jit(QUADRATICS[quadratic_name])(MIXED, X, Y)
    encoding = encode(MIXED, ENCODINGS[encoding_name])
    formulated = [quadratic.centre, quadratic.value, quadratic.gradient, encoding.parts]
    if not isinstance(quadratic.curvature, Product):  # whose arguments are the parameters themselves
        formulated.append(quadratic.curvature)
    assert {leaf.dtype for leaf in jax.tree.leaves(formulated)} == {np.dtype(np.float32)}
    states, forms = _states(encoding.num_bits), ("auto", "implicit")
    expected, pulled, decoded = _unrounded(forms, quadratic, encoding, states)
    for form, (qubo, energies, tolerance) in zip(forms, pulled, strict=True):
        assert energies.dtype == qubo.linear.dtype == jnp.float32
        np.testing.assert_allclose(energies, expected, atol=float(tolerance), rtol=0, err_msg=form)
    assert jax.tree.map(lambda leaf: leaf.dtype, decoded) == jax.tree.map(lambda leaf: leaf.dtype, MIXED)
    last = select(encoding.origin, encoding.paths)
    moved = encoding.apply(jnp.asarray(states[-1], jnp.float32))
    for name, leaf in select(decoded, encoding.paths).items():
        # Equal but where another order of the sum rounds to the other side.
        np.testing.assert_allclose(leaf[-1], (last[name] + moved[name]).astype(leaf.dtype), rtol=2**-7)
