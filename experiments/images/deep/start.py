"""The first layer from data: which K of D whitened windows to keep, as a QUBO of D bits (see `images.start`).

The choice is that of the one-layer network: K filters whose rectified responses, averaged over the image, fit the
classes best by least squares. The layers above begin as they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from experiments.harness.controls import SAMPLERS
from experiments.images.models import PatchNetwork
from experiments.images.start import Stages, Start, compiler_options, drawn
from qjax.rounds import Round


def stages(config: Start, network: Any, method: str) -> Stages:
    """The stages of the choice, for a network with `filters`, `size` and `stride` of a first layer of both signs."""
    judged = PatchNetwork(network.num_classes, network.filters, network.size, network.stride, threshold=0.0, centre=0.0)
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
        return _both_signs(call("formulate", made.unchosen, keys[0], order, images)), None
    choice = call("formulate", made.choice, keys[0], order, images, labels)
    samples = call("anneal", made.anneal_choice, keys[1], choice)
    layers, outcome = call("decode", made.keep, choice, samples)
    return _both_signs(layers), outcome


def _both_signs(layers: Any) -> Any:
    """max(a - t_0, 0) with t_0 = -b is relu(a + b); the other sign's threshold is b, so that it is relu(-(a + b))."""
    return {"kernel": layers["conv"]["kernel"], "bias": -layers["thresholds"][0]}
