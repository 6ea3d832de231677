"""What the layers of a network see, on given images alone: every BatchNorm normalises by the images themselves, as in
training, so that statistics that weights have outlived play no part.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from experiments.images.deep.statistics import passed

Tree = Any


def layers(network: nn.Module, images: jax.Array) -> tuple[str, ...]:
    """Names ("block0/conv", "head") of the layers that become bits, in the order in which images pass them.

    Those are the convolutions of 3 x 3 at stride 1 but the first layer, and the dense ones.
    Errors: ValueError for another convolution beside the first.
    """
    names: list[str] = []

    def note(module: nn.Module, arguments: Any, outputs: Any) -> None:
        name = "/".join(module.path)
        if isinstance(module, nn.Conv) and name != "first":
            if module.kernel_size != (3, 3) or module.strides not in (1, (1, 1)) or module.padding != "SAME":
                raise ValueError(f"{name} is no convolution of 3 x 3 at stride 1")
            names.append(name)
        elif isinstance(module, nn.Dense):
            names.append(name)

    jax.eval_shape(lambda key: passed(note, network, network.init(key, images, train=False), images), jax.random.key(0))
    return tuple(names)


def layer(network: nn.Module, name: str, variables: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(inputs, outputs) of the layer of this name."""
    seen: list[tuple[jax.Array, jax.Array]] = []

    def note(module: nn.Module, arguments: Any, outputs: Any) -> None:
        if isinstance(module, nn.Conv | nn.Dense) and "/".join(module.path) == name:
            seen.append((arguments[0], outputs))

    passed(note, network, variables, images)
    return seen[0]
