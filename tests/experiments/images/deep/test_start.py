"""The first layer from data fits every network, and both signs of a filter are what the network sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images.deep import networks, start

IMAGES = jnp.zeros((1, 32, 32, 3), jnp.uint8)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_it_fits_the_first_layer_of_every_network(name: str) -> None:
    network = networks.get(name, num_classes=10)
    size, filters = network.windows.size, network.windows.filters
    layers = {"conv": {"kernel": jnp.zeros((size, size, 3, filters))}, "thresholds": jnp.zeros((2, filters))}
    drawn = jax.eval_shape(lambda: network.init(jax.random.key(0), IMAGES, train=False))["params"]["first"]
    filled = start.filled(network, layers)
    assert jax.tree.map(jnp.shape, filled) == jax.tree.map(lambda leaf: leaf.shape, drawn)


def test_a_layer_of_both_signs_holds_each_filter_and_its_negative() -> None:
    network = networks.get("resnet", num_classes=10, widths=(4,), depth=1)
    generator = np.random.default_rng(0)
    kernel, bias = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((3, 3, 3, 2), (2,)))
    filled = start.filled(network, {"conv": {"kernel": kernel}, "thresholds": jnp.stack([-bias, bias])})
    window = jnp.asarray(generator.normal(size=(3, 3, 3)), jnp.float32)
    response = jnp.einsum("hwc,hwcf->f", window, kernel) + bias
    seen = jnp.einsum("hwc,hwcf->f", window, filled["kernel"]) + filled["bias"]
    np.testing.assert_allclose(seen, jnp.concatenate([response, -response]), rtol=1e-5)
