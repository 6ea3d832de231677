"""What layers see, and statistics of given images alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images.deep import networks
from experiments.images.deep.lowbit import observed

IMAGES = jax.random.randint(jax.random.key(0), (8, 12, 12, 3), 0, 256).astype(jnp.uint8)
NETWORK = networks.get("conv-small")


@pytest.fixture(scope="module")
def variables() -> Any:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.jit(lambda key: NETWORK.init(key, IMAGES, train=False))(jax.random.key(1))


def test_layers_are_named_in_order_and_the_first_is_none_of_them() -> None:
    assert observed.layers(networks.get("conv"), IMAGES) == (*(f"block{i}/conv" for i in range(5)), "head")


def test_a_convolution_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"block10a.conv is no convolution of 3 x 3 at stride 1"):
        observed.layers(networks.get("resnet"), IMAGES)


def test_outputs_are_the_layer_of_its_inputs(variables: Any) -> None:
    inputs, outputs = jax.jit(lambda v: observed.layer(NETWORK, "block1/conv", v, IMAGES))(variables)
    kernel = variables["params"]["block1"]["conv"]["kernel"]
    expected = jax.lax.conv(inputs.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME")
    np.testing.assert_allclose(outputs, expected.transpose(0, 2, 3, 1), atol=1e-5)


def test_statistics_are_those_that_training_moves_towards(variables: Any) -> None:
    statistics = jax.jit(lambda images: observed.statistics(NETWORK, variables, images))
    _, moved = NETWORK.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    found = statistics(IMAGES)
    for name in ("block0", "block1"):
        old, new = variables["batch_stats"][name]["norm"], moved["batch_stats"][name]["norm"]
        for leaf in ("mean", "var"):
            expected = (new[leaf] - 0.9 * old[leaf]) / 0.1
            np.testing.assert_allclose(found[name]["norm"][leaf], expected, rtol=1e-3, atol=1e-4)


def test_pooled_statistics_are_those_of_all_rows_together() -> None:
    rows = np.random.default_rng(0).normal(1.0, 2.0, (3, 50, 4))
    parts = [{"a": {"norm": {"mean": part.mean(0), "var": part.var(0)}}} for part in rows]
    found = observed.pooled(parts)["a"]["norm"]
    np.testing.assert_allclose(found["mean"], rows.mean((0, 1)))
    np.testing.assert_allclose(found["var"], rows.reshape(-1, 4).var(0))
