"""Networks of several convolutions: their sizes as published, their precision, what a start from data fills."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images.deep import networks

IMAGES = jax.random.randint(jax.random.key(0), (4, 32, 32, 3), 0, 256).astype(jnp.uint8)


def variables_of(name: str, **options: Any) -> tuple[Any, Any]:
    network = networks.get(name, **options)
    return network, jax.eval_shape(lambda key: network.init(key, IMAGES, train=False), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "count"),
    # airbench: Jordan 2024 has 1.97 million; resnet: 11.17 million, its first layer's 64 biases more here.
    [("conv", 1_138_978), ("airbench", 1_971_484), ("resnet", 11_173_962 + 64), ("conv-small", 5_234)],
)
def test_sizes(name: str, count: int) -> None:
    _, variables = variables_of(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_and_parameters_stay_in_float32_and_the_first_layer_has_its_name(name: str, dtype: Any) -> None:
    network, variables = variables_of(name, dtype=dtype, num_classes=7)
    logits, new = jax.eval_shape(lambda v: network.apply(v, IMAGES, train=True, mutable=["batch_stats"]), variables)
    assert logits.shape == (4, 7) and logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {jnp.dtype(jnp.float32)}
    assert set(variables["params"]["first"]) == {"kernel", "bias"}


def test_an_unknown_network_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown network 'airbensh'; did you mean 'airbench'"):
        networks.get("airbensh")


def test_airbench_begins_as_the_identity_on_the_channels_that_both_sides_have() -> None:
    kernel = networks._identity(jax.random.key(0), (3, 3, 2, 5))
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    out = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(out[..., :2], image, rtol=1e-6)
    assert float(jnp.std(kernel[..., 2:])) > 0.1


def test_training_moves_the_statistics_and_evaluation_uses_them() -> None:
    network = networks.get("conv-small")
    variables = network.init(jax.random.key(0), IMAGES, train=False)
    _, new = network.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    moved = {**variables, "batch_stats": new["batch_stats"]}
    before, after = (network.apply(v, IMAGES, train=False) for v in (variables, moved))
    assert float(jnp.max(jnp.abs(before - after))) > 1e-3


@pytest.mark.parametrize(("side", "size"), [(6, 2), (7, 2), (7, 3)])
def test_maxima_and_their_gradients_are_those_of_flax_with_equals_too(side: int, size: int) -> None:
    x = jnp.round(2 * jax.random.normal(jax.random.key(0), (5, side, side, 3)))
    weights = jax.random.normal(jax.random.key(1), (5, side // size, side // size, 3))
    pools = (lambda x: networks.max_pool(x, size)), (lambda x: nn.max_pool(x, (size, size), (size, size)))
    (found, back), (expected, flax_back) = (jax.vjp(pool, x) for pool in pools)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(back(weights)[0], flax_back(weights)[0])
    assert np.isnan(networks.max_pool(x.at[0, 1, 1, 0].set(jnp.nan), size)[0, 0, 0, 0])


def test_the_written_gradient_of_a_convolution_is_its_derivative() -> None:
    # Whole numbers whose sums bfloat16 holds exactly: every way of adding them gives the same.
    keys = jax.random.split(jax.random.key(1), 3)
    x, back = (jax.random.randint(key, (2, 5, 6, 3), -1, 2) for key in keys[:2])
    kernel = jax.random.randint(keys[2], (3, 3, 3, 3), -1, 2)
    x, kernel, back = (array.astype(jnp.bfloat16) for array in (x, kernel, back))
    np.testing.assert_array_equal(networks._same(x, kernel), networks._kept(x, kernel))
    for written, derived in zip(
        jax.vjp(networks._same, x, kernel)[1](back), jax.vjp(networks._kept, x, kernel)[1](back), strict=True
    ):
        assert float(jnp.max(jnp.abs(derived))) > 3
        np.testing.assert_array_equal(written, derived)
