"""What the layers of a network see and what its statistics are, on given images alone.

Every BatchNorm normalises by the images themselves, as in training, so that statistics that weights have outlived play
no part: after a change of the weights those of the images are the re-estimated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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

    jax.eval_shape(
        lambda key: _passed(note, network, network.init(key, images, train=False), images), jax.random.key(0)
    )
    return tuple(names)


def layer(network: nn.Module, name: str, variables: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(inputs, outputs) of the layer of this name."""
    seen: list[tuple[jax.Array, jax.Array]] = []

    def note(module: nn.Module, arguments: Any, outputs: Any) -> None:
        if isinstance(module, nn.Conv | nn.Dense) and "/".join(module.path) == name:
            seen.append((arguments[0], outputs))

    _passed(note, network, variables, images)
    return seen[0]


def statistics(network: nn.Module, variables: Tree, images: jax.Array) -> Tree:
    """batch_stats of these images: the mean and variance of what each BatchNorm sees."""
    found = variables["batch_stats"]

    def note(module: nn.Module, arguments: Any, outputs: Any) -> None:
        nonlocal found
        if isinstance(module, nn.BatchNorm):
            x = arguments[0].astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            found = placed(found, module.path, {"mean": x.mean(axes), "var": x.var(axes)})

    _passed(note, network, variables, images)
    return found


def pooled(parts: Sequence[Tree]) -> Tree:
    """batch_stats of all images together, from those of parts of equal size."""

    def join(*nodes: Any) -> Any:
        if "mean" not in nodes[0]:
            return {name: join(*(node[name] for node in nodes)) for name in nodes[0]}
        mean = sum(node["mean"] for node in nodes) / len(nodes)
        square = sum(node["var"] + node["mean"] ** 2 for node in nodes) / len(nodes)
        return {"mean": mean, "var": square - mean**2}

    return join(*parts)


def placed(tree: Tree, path: Sequence[str], value: Any) -> Tree:
    """The nested dict with another value at this path."""
    if not path:
        return value
    return {**tree, path[0]: placed(tree[path[0]], path[1:], value)}


def _passed(note: Any, network: nn.Module, variables: Tree, images: jax.Array) -> None:
    """note(module, arguments, outputs) is told of every call."""

    def call(following: Any, arguments: Any, options: Any, context: Any) -> Any:
        outputs = following(*arguments, **options)
        if context.method_name == "__call__":
            note(context.module, arguments, outputs)
        return outputs

    with nn.intercept_methods(call):
        network.apply(variables, images, train=True, mutable=["batch_stats"])
