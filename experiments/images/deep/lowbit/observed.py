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
        if _is(module, name):
            seen.append((arguments[0], outputs))

    _passed(note, network, variables, images)
    return seen[0]


def sensitivity(key: jax.Array, network: nn.Module, name: str, variables: Tree, images: jax.Array) -> jax.Array:
    """What the loss sees of each output of the layer, (N, H, W) or (N,): |d loss / d outputs|^2 over the channels.

    The classes are drawn by the network's own probabilities, so that the mean is the diagonal of Fisher's information,
    summed over channels, which is that of the Gauss-Newton matrix of the cross-entropy.
    """
    _, outputs = jax.eval_shape(lambda v: layer(network, name, v, images), variables)

    def loss(moved: jax.Array) -> jax.Array:
        def move(module: nn.Module, arguments: Any, outputs: Any) -> Any:
            return outputs + moved if _is(module, name) else None

        values = jax.nn.log_softmax(_passed(move, network, variables, images))
        drawn = jax.nn.one_hot(jax.random.categorical(key, jax.lax.stop_gradient(values)), values.shape[-1])
        return -(values * drawn).sum()

    return (jax.grad(loss)(jnp.zeros(outputs.shape, outputs.dtype)) ** 2).sum(-1)


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


def _is(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Conv | nn.Dense) and "/".join(module.path) == name


def _passed(note: Any, network: nn.Module, variables: Tree, images: jax.Array) -> jax.Array:
    """The logits; note(module, arguments, outputs) is told of every call, and may give other outputs than None."""

    def call(following: Any, arguments: Any, options: Any, context: Any) -> Any:
        outputs = following(*arguments, **options)
        other = note(context.module, arguments, outputs) if context.method_name == "__call__" else None
        return outputs if other is None else other

    with nn.intercept_methods(call):
        logits: jax.Array = network.apply(variables, images, train=True, mutable=["batch_stats"])[0]
    return logits
