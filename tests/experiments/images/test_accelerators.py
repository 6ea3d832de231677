"""The stages of a start, and the networks, exported for CUDA and TPU on a machine that has neither. Nothing runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.images import models
from experiments.images.start import Stages, Start, drawn
from tests.exports import PLATFORMS, exported, imprecise, products

pytestmark = pytest.mark.slow

START = Start(dictionary=40, choice_images=60, choice_reads=2, choice_sweeps=3, images=100, head_reads=2, head_sweeps=2)
IMAGES = jax.ShapeDtypeStruct((120, 8, 8, 1), jnp.uint8)
LABELS = jax.ShapeDtypeStruct((120,), jnp.int32)
KEY = jax.random.key(0)


def network(form: models.Form) -> Any:
    """The form is named: "auto" asks for the machine that traces, which here is a CPU."""
    return models.get("patch-small", form=form)


def sent(function: Any, *args: Any, convolves: bool = False) -> Any:
    """The shapes of what a stage returns, after its export; convolves: whether the network's layer is in it, the one
    product that is left to the device's own precision, as in training."""
    for platform in PLATFORMS:
        text = exported(function, *args, platform=platform)
        layers = [line for line in products(text) if "stablehlo.convolution" in line]
        assert len(layers) == convolves and imprecise(text) == layers
    return jax.eval_shape(function, *args)


@pytest.mark.parametrize("method", ["hybrid", "rounded", "random-bits", "shuffled"])
def test_the_stages_of_a_start_go_to_accelerators(method: str) -> None:
    stages, (keys, order) = Stages(START, network("conv"), method), drawn(KEY, 120)
    choice = sent(stages.choice, keys[0], order, IMAGES, LABELS, convolves=True)
    layers, _ = sent(stages.keep, choice, sent(stages.anneal_choice, keys[1], choice))
    head = sent(stages.head, keys[2], order, layers, IMAGES, LABELS, convolves=True)
    sent(stages.settle, head, sent(stages.anneal_head, keys[3], head))


def test_the_stages_without_a_sampler_go_to_accelerators() -> None:
    stages, (keys, order) = Stages(START, network("conv"), "adam-data-start"), drawn(KEY, 120)
    layers = sent(stages.unchosen, keys[0], order, IMAGES)
    sent(stages.fit, order, layers, IMAGES, LABELS, convolves=True)


@pytest.mark.parametrize("name", models.NETWORKS)
def test_networks_and_their_gradients_go_to_accelerators(name: str) -> None:
    """As convolutions, not as the windows that CPUs multiply."""

    net, images = models.get(name, form="conv"), jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8)

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return net.apply({"params": params}, images).sum()

    params = jax.eval_shape(lambda images: net.init(KEY, images)["params"], images)
    for platform in PLATFORMS:
        text = exported(jax.grad(loss), params, images, platform=platform)
        assert any("stablehlo.convolution" in line for line in products(text))
