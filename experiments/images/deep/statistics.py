"""BatchNorm's statistics, re-estimated: those of given images by the weights as they are.

Those of training are averages over weights that have moved on since. In the middle of a run, at high rates, a network
loses points by them, and at its end a fraction of one (experiments/README.md).

    variables = estimated(program, images, variables)       program: `Statistics(network)`, compiled for PART images
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any
PART = 500  # images at a time


@dataclass(frozen=True)
class Statistics:
    """batch_stats of images by these variables: the mean and variance of what each BatchNorm sees, which normalises by
    the images themselves, as in training."""

    network: nn.Module

    def __call__(self, variables: Tree, images: jax.Array) -> Tree:
        found = variables["batch_stats"]

        def note(module: nn.Module, arguments: Any, outputs: Any) -> None:
            nonlocal found
            if isinstance(module, nn.BatchNorm):
                x = arguments[0].astype(jnp.float32)
                axes = tuple(range(x.ndim - 1))
                found = placed(found, module.path, {"mean": x.mean(axes), "var": x.var(axes)})

        passed(note, self.network, variables, images)
        return found


def estimated(program: Callable[[Tree, jax.Array], Tree], images: jax.Array, variables: Tree) -> Tree:
    """The variables with the statistics of these images, whole parts of PART of them (all, if they are fewer)."""
    whole = max(PART, len(images) // PART * PART)
    parts = [program(variables, images[i : i + PART]) for i in range(0, min(whole, len(images)), PART)]
    return {**variables, "batch_stats": pooled(parts)}


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


def passed(note: Any, network: nn.Module, variables: Tree, images: jax.Array) -> None:
    """note(module, arguments, outputs) is told of every call."""

    def call(following: Any, arguments: Any, options: Any, context: Any) -> Any:
        outputs = following(*arguments, **options)
        if context.method_name == "__call__":
            note(context.module, arguments, outputs)
        return outputs

    with nn.intercept_methods(call):
        network.apply(variables, images, train=True, mutable=["batch_stats"])
