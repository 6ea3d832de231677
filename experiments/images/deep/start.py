"""The first layer from data: which K of D whitened windows to keep, as a QUBO of D bits (see `images.start`).

The choice is that of the one-layer network: K filters whose rectified responses, averaged over the image, fit the
classes best by least squares. The layers above begin as they are drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness.controls import SAMPLERS
from experiments.images.models import PatchNetwork
from experiments.images.start import Stages, Start, compiler_options, drawn
from qjax.rounds import Round


@functools.cache
def stages(config: Start, network: Any, method: str) -> Stages:
    """The stages of the choice, for a network whose first layer has `windows`. One object for equal arguments: the
    methods of two are never equal, so that each would be compiled again."""
    filters, size, stride, _ = network.windows
    judged = PatchNetwork(network.num_classes, filters, size, stride, threshold=0.0, centre=0.0)
    return Stages(config, judged, method)


def first_layer(
    account: Any, config: Start, network: Any, method: str, key: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[Any, Round | None]:
    """{"kernel", "bias"} of the first layer, and the round of the choice; None for a method without a sampler, whose
    filters are windows at random."""
    made = stages(config, network, method)
    keys, order = drawn(key, images.shape[0])

    def call(phase: str, stage: Callable[..., Any], *args: Any) -> Any:
        return account.call(phase, stage, *args, compiler_options=compiler_options(stage.__name__))

    if method not in SAMPLERS:
        return filled(network, call("formulate", made.unchosen, keys[0], order, images)), None
    choice = call("formulate", made.choice, keys[0], order, images, labels)
    samples = call("anneal", made.anneal_choice, keys[1], choice)
    layers, outcome = call("decode", made.keep, choice, samples)
    return filled(network, layers), outcome


def filled(network: Any, layers: Any) -> Any:
    """{"kernel", "bias"} of the network's first layer with the windows of `layers` ("conv", "thresholds").

    max(a - t_0, 0) with t_0 = -b is relu(a + b); the other sign's threshold is b, so that it is relu(-(a + b)).
    """
    kernel, bias = layers["conv"]["kernel"], -layers["thresholds"][0]
    if network.windows.signs == 2:
        kernel, bias = jnp.concatenate([kernel, -kernel], axis=-1), jnp.concatenate([bias, -bias])
    return {"kernel": kernel, "bias": bias}
