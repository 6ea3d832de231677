"""Latent weights behind bits."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.images.deep.lowbit import straight
from experiments.images.deep.lowbit.straight import Straight

KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
STEP = jnp.array([0.5, 1.0, 2.0, 3.0])
PARAMS = {
    "a": {
        "conv": {"kernel": jnp.where(KERNEL > 0.1, STEP[None, None, None], -STEP[None, None, None])},
        "norm": {"bias": jnp.ones(4)},
    }
}
BEFORE = {"a": {"conv": {"kernel": KERNEL}, "norm": {"bias": jnp.ones(4)}}}


def test_latents_stand_for_the_bits_and_turn_first_where_weights_are_small() -> None:
    found = straight.latents(Straight(latent=0.3), ["a/conv"], PARAMS, BEFORE)
    again = straight.through(found)
    np.testing.assert_allclose(again["a"]["conv"]["kernel"], PARAMS["a"]["conv"]["kernel"], rtol=1e-6)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, PARAMS)
    size = jnp.abs(found["latent"]["a/conv"])
    np.testing.assert_allclose(size.mean((0, 1, 2)), 0.3, rtol=1e-5)
    np.testing.assert_array_equal(jnp.argsort(size[..., 0].ravel()), jnp.argsort(jnp.abs(KERNEL[..., 0]).ravel()))


def test_the_gradient_passes_the_sign() -> None:
    found = straight.latents(Straight(), ["a/conv"], PARAMS, BEFORE)
    weights = jax.random.normal(jax.random.key(1), KERNEL.shape)
    slope = jax.grad(lambda tree: (straight.through(tree)["a"]["conv"]["kernel"] * weights).sum())(found)
    np.testing.assert_allclose(slope["latent"]["a/conv"], weights * STEP[None, None, None], rtol=1e-5)
    kernel = PARAMS["a"]["conv"]["kernel"]
    np.testing.assert_allclose(slope["log_step"]["a/conv"], (weights * kernel).sum((0, 1, 2)), rtol=1e-4)
