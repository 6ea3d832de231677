"""Formulating, and a whole round of the method, exported for CUDA and TPU on a machine that has neither."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qjax
from qjax import losses
from qjax.formulate.rounding import sequential
from qjax.rewriting import lifted
from tests.exports import PLATFORMS, exported, imprecise, products

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(12, 6, 6, 2)).astype(np.float32), RNG.integers(0, 3, 12)
PARAMS = {
    "conv": jnp.asarray(RNG.normal(size=(3, 3, 2, 4)), jnp.float32),
    "head": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32),
    "bias": jnp.zeros(3),
}
KEY = jax.random.key(0)


def pooled(params: Any, images: Any) -> jax.Array:
    x = jax.lax.conv_general_dilated(
        images, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return jnp.tanh(x).mean((1, 2))


def logits(params: Any, images: Any, labels: Any) -> jax.Array:
    return jnp.matmul(pooled(params, images), params["head"], precision="highest") + params["bias"][None, :]


def cross_entropy(outputs: jax.Array, images: Any, labels: Any) -> jax.Array:
    return optax.softmax_cross_entropy(outputs, jax.nn.one_hot(labels, 3)).mean()


def loss(params: Any, images: Any, labels: Any) -> jax.Array:
    return cross_entropy(logits(params, images, labels), images, labels)


def squares(params: Any, images: Any, labels: Any, **options: Any) -> qjax.Quadratic:
    targets = jax.nn.one_hot(labels, 3)
    return qjax.least_squares(params, "head", pooled(params, images), targets, bias="bias", ridge=1e-3, **options)


def gram(params: Any, images: Any, labels: Any) -> qjax.Quadratic:
    return qjax.layer_gram(params, "conv", qjax.conv_patches(images, (3, 3)), damping=1e-3)


def newton(params: Any, images: Any, labels: Any) -> qjax.Quadratic:
    return qjax.gauss_newton(logits, cross_entropy, params, images, labels, leaves=["conv"], damping=1e-2)


def second(params: Any, images: Any, labels: Any) -> qjax.Quadratic:
    return qjax.hessian(loss, params, images, labels, leaves=["conv"], damping=1e-2)


def smoothed(params: Any, images: Any, labels: Any) -> qjax.Quadratic:
    return qjax.fitted(KEY, loss, params, images, labels, radius=0.1, num_samples=20, leaves=["head"])


QUADRATICS = {
    "least_squares": (squares, "head"),
    "least_squares of features": (lambda *args: squares(*args, keep_features=True), "head"),
    "layer_gram": (gram, "conv"),
    "gauss_newton": (newton, "conv"),
    "hessian": (second, "conv"),
    "fitted": (smoothed, "head"),
}
SPECS = {
    "sign": qjax.Sign(),
    "ternary": qjax.Ternary(),
    "fixed_point": qjax.FixedPoint(bits=2),
    "rounding": qjax.Rounding(bits=4),
    "mask": qjax.Mask(axis=-1, cardinality=2),
    "codebook": qjax.Codebook((-1.0, 0.0, 0.5)),
}


@pytest.mark.parametrize("name", QUADRATICS)
def test_quadratics_qubos_and_minimisers_go_to_accelerators(name: str) -> None:
    """With every product of float32 at its full precision: qjax's own, and the network's, which asks for it."""
    formulate, leaf = QUADRATICS[name]

    def run(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        quadratic = formulate(params, images, labels)
        encoding = qjax.encode(params, {leaf: qjax.Rounding(bits=4)})
        qubo = qjax.pull_back(quadratic, encoding)
        bits = jnp.zeros((*qubo.batch_shape, 3, qubo.num_bits))
        return quadratic(params), qubo.energies(bits), qubo.fields(bits), qjax.minimiser(quadratic, params).params

    for platform in PLATFORMS:
        text = exported(run, PARAMS, IMAGES, LABELS, platform=platform)
        assert products(text) and not imprecise(text)


@pytest.mark.parametrize("form", ["dense", "implicit"])
def test_a_qubo_of_a_convolution_is_annealed_there(form: Any) -> None:
    """Curvature through jvp and vjp of a convolution, in the order of axes that it has: the order that CPUs want is
    theirs alone (tests/test_rewriting.py)."""

    def run(key: jax.Array, params: Any, images: jax.Array, labels: jax.Array) -> Any:
        encoding = qjax.encode(params, {"conv": qjax.Sign()})
        qubo = qjax.pull_back(newton(params, images, labels), encoding, form=form)
        return qjax.samplers.get("bifurcation", num_steps=5)(key, qubo, 4)

    for platform in PLATFORMS:
        text = exported(run, KEY, PARAMS, IMAGES, LABELS, platform=platform)
        assert "stablehlo.convolution" in text and not imprecise(text)


@pytest.mark.parametrize("name", SPECS)
def test_a_round_in_each_encoding_goes_there(name: str) -> None:
    """Formulated, proposed, annealed and picked by the true loss, as one program."""

    def propose(key: jax.Array, problem: qjax.Problem, num_reads: int) -> jax.Array:
        return sequential(key, problem.quadratic, problem.encoding, num_reads, 1e-3)

    def run(key: jax.Array, params: Any, images: jax.Array, labels: jax.Array) -> Any:
        targets, features = jax.nn.one_hot(labels, 3), pooled(params, images)

        def formulate(params: Any, radius: float) -> Any:
            return qjax.least_squares(params, "head", features, targets), qjax.encode(params, {"head": SPECS[name]})

        anneal = qjax.samplers.get("anneal", num_sweeps=2)
        given = propose if name == "rounding" else None
        true = lambda params: loss(params, images, labels)  # noqa: E731
        return qjax.outer_round(key, true, params, formulate, anneal, num_reads=4, num_candidates=2, propose=given)

    for platform in PLATFORMS:
        assert not imprecise(exported(run, KEY, PARAMS, IMAGES, LABELS, platform=platform))


def test_a_loss_that_closes_over_its_images_goes_there_without_them() -> None:
    """As `hybrid` compiles it: what the loss holds is an argument of its program."""
    many = jnp.zeros((400, 6, 6, 2)) + IMAGES[:1]
    held = lifted(jax.tree_util.Partial(lambda params: loss(params, many, jnp.zeros(400, jnp.int32))), PARAMS)
    for platform in PLATFORMS:
        text = exported(losses._call, held, PARAMS, platform=platform)
        assert "stablehlo.convolution" in text and len(text) < 100_000
