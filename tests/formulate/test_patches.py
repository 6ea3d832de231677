"""conv_patches against lax.conv_general_dilated: rows times the flattened kernel are the outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import qjax
from qjax import conv_patches

RNG = np.random.default_rng(5)
I, C = 3, 4


def _case(sizes, window):
    inputs = jnp.asarray(RNG.normal(size=(2, *sizes, I)), jnp.float32)
    return inputs, jnp.asarray(RNG.normal(size=(*window, I, C)), jnp.float32)


def _convolved(inputs, kernel, strides, padding, dilation):
    letters = "HWD"[: inputs.ndim - 2]
    numbers = lax.conv_dimension_numbers(inputs.shape, kernel.shape, (f"N{letters}C", f"{letters}IO", f"N{letters}C"))
    return lax.conv_general_dilated(
        inputs,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        precision="highest",
    )


@pytest.mark.parametrize(
    ("sizes", "window", "strides", "padding", "dilation"),
    [
        ((7, 6), (3, 2), (1, 1), "SAME", (1, 1)),
        ((7, 6), (3, 2), (1, 1), "VALID", (1, 1)),
        ((7, 6), (3, 2), (2, 3), "SAME", (1, 1)),
        ((7, 6), (2, 3), (2, 1), "VALID", (3, 2)),
        ((8, 5), (3, 3), (2, 2), "SAME_LOWER", (2, 1)),
        ((7, 6), (3, 3), (1, 2), ((2, 0), (1, 3)), (1, 2)),
        ((4, 4), (1, 1), (3, 3), "VALID", (1, 1)),
        ((9,), (4,), (2,), "SAME", (2,)),
        ((4, 5, 3), (2, 2, 2), (1, 2, 1), "SAME", (1, 1, 2)),
    ],
)
def test_rows_times_the_kernel_are_the_outputs(sizes, window, strides, padding, dilation):
    inputs, kernel = _case(sizes, window)
    expected = _convolved(inputs, kernel, strides, padding, dilation)

    @jax.jit
    def rows(inputs):
        return conv_patches(inputs, window, strides=strides, padding=padding, dilation=dilation)

    found = jnp.matmul(rows(inputs), kernel.reshape(-1, C), precision="highest")
    np.testing.assert_allclose(found, expected.reshape(-1, C), atol=1e-5)


def test_one_number_serves_all_axes():
    inputs, _ = _case((6, 6), (3, 3))
    one = conv_patches(inputs, (3, 3), strides=2, padding=1, dilation=2)
    each = conv_patches(inputs, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)), dilation=(2, 2))
    np.testing.assert_array_equal(one, each)
    np.testing.assert_array_equal(conv_patches(inputs, (3, 3)), conv_patches(inputs, (3, 3), padding="SAME"))


def test_inputs_are_copied_exactly_in_their_dtype():
    inputs = jnp.arange(2 * 4 * 4 * 2, dtype=jnp.bfloat16).reshape(2, 4, 4, 2)
    rows = conv_patches(inputs, (2, 2), padding="VALID")
    assert rows.dtype == jnp.bfloat16
    by_hand = [inputs[n, i : i + 2, j : j + 2].reshape(-1) for n in range(2) for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(rows, jnp.stack(by_hand))


def test_the_change_of_a_flax_convolutions_outputs():
    """layer_gram of the patches measures what the layer's outputs change by."""
    inputs, _ = _case((6, 5), (3, 2))
    layer = nn.Conv(C, (3, 2), strides=2, kernel_dilation=2, use_bias=False)
    params = layer.init(jax.random.key(0), inputs)
    moved = jax.tree.map(lambda w: w + jnp.asarray(RNG.normal(size=w.shape), w.dtype), params)
    rows = conv_patches(inputs, (3, 2), strides=2, dilation=2)
    model = qjax.layer_gram(params, "params/kernel", rows)
    change = layer.apply(moved, inputs) - layer.apply(params, inputs)
    expected = 0.5 * (change**2).sum() / len(rows)
    assert float(model(moved)) == pytest.approx(float(expected), rel=1e-4)


def test_patches_of_lax_are_for_kernels_with_their_channels_in_front():
    inputs, kernel = _case((6, 5), (3, 2))
    front = jnp.transpose(kernel, (3, 2, 0, 1))
    rows = lax.conv_general_dilated_patches(
        inputs, (3, 2), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=lax.Precision.HIGHEST
    ).reshape(-1, kernel.size // C)
    step = jnp.asarray(RNG.normal(size=kernel.shape), jnp.float32)
    change = _convolved(inputs, step, (1, 1), "VALID", (1, 1))
    expected = pytest.approx(float(0.5 * (change**2).sum() / len(rows)), rel=1e-4)
    moved = {"w": front + jnp.transpose(step, (3, 2, 0, 1))}
    assert float(qjax.layer_gram({"w": front}, "w", rows, channel_axis=0)(moved)) == expected
    own = conv_patches(inputs, (3, 2), padding="VALID")
    assert float(qjax.layer_gram({"w": kernel}, "w", own)({"w": kernel + step})) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: conv_patches(x, (3,)), r"inputs must have shape \(N, 1 spatial axes, channels\)"),
        (lambda x: conv_patches(x, (3, 3), strides=(1, 1, 1)), "strides"),
        (lambda x: conv_patches(x, (3, 3), dilation=0), "dilation"),
        (lambda x: conv_patches(x, (3, 3), padding=((1, 1),)), "padding"),
        (lambda x: conv_patches(x, (3, 3), padding="FULL"), "FULL"),
        (lambda x: conv_patches(x, (3, 9), padding="VALID"), "larger than the padded inputs"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        call(jnp.ones((2, 5, 5, 3)))
