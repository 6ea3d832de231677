"""The Qubos of a layer: what their energies are, and which sampler finds which."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.account import Account
from experiments.images.deep import networks
from experiments.images.deep.lowbit import bits
from experiments.images.deep.lowbit.bits import Choosing, Formulation, Nearest, Placed, Scaled
from qjax import least_squares, samplers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 12)).astype(np.float32)
Y = (X @ RNG.normal(size=(12, 3))).astype(np.float32)
STATES = RNG.integers(0, 2, (3, 12)).astype(np.int8)
IMAGES = jax.random.randint(jax.random.key(0), (16, 12, 12, 3), 0, 256).astype(jnp.uint8)
NETWORK = networks.get("conv-small")
CONFIG = Choosing(images=16, rows=256, sampler=samplers.Anneal(num_sweeps=20))


def errors(states: Any, step: Any) -> Any:
    """1/(2N) |s X b - Y|^2 of each channel."""
    signs = 2.0 * np.asarray(states) - 1.0
    return 0.5 * ((X @ (signs * np.asarray(step)[:, None]).T - Y) ** 2).mean(0)


def test_energies_are_the_errors_at_the_best_scales() -> None:
    quadratic = least_squares({"kernel": jnp.zeros((12, 3))}, "kernel", X, Y)
    found, qubo = jax.jit(Scaled())(quadratic, jnp.asarray(STATES))
    signs = 2.0 * STATES - 1.0
    images = X @ signs.T
    step = (images * Y).sum(0) / (images**2).sum(0)
    np.testing.assert_array_equal(found, np.where(step[:, None] < 0, 1 - STATES, STATES))
    energies = qubo.energies(found[:, None].astype(jnp.int8))[:, 0]
    np.testing.assert_allclose(energies, errors(STATES, step), rtol=1e-4)
    assert np.all(errors(STATES, step) <= np.minimum(errors(STATES, 1.05 * step), errors(STATES, 0.95 * step)))


def test_nearest_is_the_sign_times_the_mean_size() -> None:
    kernel = RNG.normal(size=(3, 3, 4, 5)).astype(np.float32)
    found = Nearest("a/conv")({"params": {"a": {"conv": {"kernel": jnp.asarray(kernel)}}}})
    expected = np.sign(kernel) * np.abs(kernel).mean((0, 1, 2))
    np.testing.assert_allclose(found["params"]["a"]["conv"]["kernel"], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block1/conv", "head"])
def test_a_layer_becomes_bits_and_the_annealer_errs_least(name: str) -> None:
    before = jax.jit(lambda key: NETWORK.init(key, IMAGES, train=False))(jax.random.key(1))
    account, found = Account(), {}
    for method in ("hybrid", "greedy", "rounded", "random-bits"):
        found[method] = bits.chosen(CONFIG, method, jax.random.key(2), NETWORK, name, before, before, IMAGES, account)
    error = {method: error for method, (_, error) in found.items()}
    assert error["hybrid"] <= error["greedy"] * 1.001 and error["greedy"] < error["rounded"] < error["random-bits"]
    params = found["hybrid"][0]["params"]
    layer = params["head"] if name == "head" else params["block1"]["conv"]
    size = jnp.abs(layer["kernel"].reshape(-1, layer["kernel"].shape[-1]))
    np.testing.assert_allclose(size, jnp.broadcast_to(size[:1], size.shape), rtol=1e-5)
    changed = jax.tree.map(lambda new, old: bool((new != old).any()), params, before["params"])
    assert sum(jax.tree.leaves(changed)) == (2 if name == "head" else 1)  # the head's bias beside its kernel


@pytest.mark.slow
def test_the_head_keeps_the_mean_of_its_outputs() -> None:
    before = jax.jit(lambda key: NETWORK.init(key, IMAGES, train=False))(jax.random.key(1))
    layer = jax.jit(Formulation(NETWORK, "head", CONFIG))(jax.random.key(2), before, before, IMAGES)
    variables, _ = Placed("head")(before, layer, layer.rounded)
    new, old = variables["params"]["head"], before["params"]["head"]
    found, expected = (layer.inputs @ head["kernel"] + head["bias"] for head in (new, old))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="num_rounds must be at least 1, got 0"):
        Choosing(num_rounds=0)
