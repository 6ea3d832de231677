"""Networks: two forms of one convolution are equal, features have the stated size, names are checked."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images import models


@pytest.mark.parametrize(("size", "stride"), [(6, 2), (3, 1), (4, 3)])
def test_windows_and_lax_convolution_are_equal(size: int, stride: int) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 16, 15, 3))
    forms = [models.Convolution(5, size, stride, form) for form in ("windows", "conv")]
    params = forms[0].init(jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    values = [np.asarray(form.apply(params, x)) for form in forms]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-4)


def test_gradients_of_both_forms_are_equal() -> None:
    images = jax.random.randint(jax.random.key(0), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)

    def slopes(form: models.Form) -> Any:
        network = models.get("patch", filters=8, form=form)
        params = jax.jit(network.init)(jax.random.key(1), images)
        return jax.jit(jax.grad(lambda p: (network.apply(p, images) ** 2).mean()))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), slopes("windows"), slopes("conv"))


@pytest.mark.parametrize(("name", "shape"), [("patch", (32, 32, 3)), ("patch-small", (8, 8, 1))])
def test_every_network_gives_one_logit_per_class(name: str, shape: tuple[int, ...]) -> None:
    network = models.get(name, num_classes=7)
    images = jnp.zeros((3, *shape), jnp.uint8)
    logits, _ = jax.jit(network.init_with_output)(jax.random.key(0), images)
    assert logits.shape == (3, 7)


def test_grid_means_are_means_of_equal_blocks() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 1))
    means = np.asarray(models.grid_means(x, 2))[0]
    expected = [x[0, r, c, 0].mean() for r in (slice(0, 2), slice(2, 4)) for c in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(means, np.asarray(expected), rtol=1e-5)
    with pytest.raises(ValueError, match="grid must be at most 5"):
        models.grid_means(x, 6)


def test_features_are_centred_for_responses_of_unit_deviation() -> None:
    """E max(z - 0.5, 0) = 0.198 for a unit Gaussian z, and `centre` is taken off."""
    network = models.get("patch-small", filters=4000, size=1)
    pixels = jnp.full((1, 3, 3, 1), 184, jnp.uint8)  # (184 - 120) / 64 = 1: the responses are the kernel
    kernel = jax.random.normal(jax.random.key(0), (1, 1, 1, 4000))
    params = {"conv": {"kernel": kernel}, "thresholds": jnp.full((2, 4000), 0.5)}
    features = network.apply({"params": params}, pixels, method="features")
    # Standard error 0.4 / sqrt(8000), five of them.
    assert abs(float(features.mean())) < 5 * 0.4 / 8000**0.5 + 0.002


def test_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'patch'"):
        models.get("patc")


def test_every_entry_of_the_registry_is_a_module() -> None:
    assert all(isinstance(models.get(name), nn.Module) for name in models.NETWORKS)
