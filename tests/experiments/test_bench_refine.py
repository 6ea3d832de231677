"""The benchmark of refine measures what it says: two loops over the same network, and a verdict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench_refine import BenchRefine, Convolution, bench_refine, table


def test_rows_ratio_and_verdict() -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic (decay**count), in the hand-written loop
        found = bench_refine(BenchRefine(networks=("mlp",), batch_size=4, num_images=16, steps=1, repeats=2))
    (row,) = found["rows"]
    refined, handwritten = (np.asarray(row["rates"][loop]) for loop in ("refine", "handwritten"))
    assert len(refined) == len(handwritten) == 2
    assert row["ratio"] == pytest.approx(np.median(refined / handwritten))
    assert found["target"]["met"] == (row["ratio"] >= 0.9)
    assert "| mlp |" in table(found)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="there are"):
        bench_refine(BenchRefine(networks=("resnet",)))


def test_patch_matmul_is_a_convolution() -> None:
    layer = Convolution(features=5, size=3, stride=2)
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    params = layer.init(jax.random.key(1), x)
    kernel = params["params"]["kernel"].reshape(3, 3, 3, 5)
    dimensions = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=dimensions)
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-4, atol=1e-5)
    assert jnp.abs(expected).max() > 0.1
