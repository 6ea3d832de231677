"""What layers see, on given images alone."""

from typing import Any

import jax
import numpy as np
import pytest

from experiments.images.deep import networks
from experiments.images.deep.lowbit import observed
from tests.experiments.images.deep.conftest import IMAGES, NETWORK


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
