"""Straight-through training of a network whose layers are bits, with latent weights behind the bits.

    latents   {"rest": params without those kernels, "latent": {layer: (..., C)}, "log_step": {layer: (C,)}}
    kernel    sign(latent) exp(log_step); the gradient of sign(latent) is taken as that of latent
              (Bengio, Leonard and Courville 2013)
    start     |latent| = `latent` |w| / mean |w| of the weights before they were bits, its sign that of the bit: bits of
              small weights turn first

Everything that is no bit is trained beside them: scales, biases, BatchNorm, the first layer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.images.deep import recipe as recipes
from experiments.images.deep.recipe import Recipe
from experiments.images.deep.statistics import placed
from qjax import Refine

Tree = Any


@dataclass(frozen=True)
class Straight:
    """steps of Adam, long_steps of the row that spends none of its seconds on Qubos; peak rates of latents, scales and
    the rest, cosine decay to 0; points of the curve."""

    steps: int = 100
    long_steps: int = 200
    rate: float = 3e-3
    scale_rate: float = 1e-2
    rest_rate: float = 1e-3
    latent: float = 0.3
    points: int = 4


def latents(config: Straight, names: Sequence[str], params: Tree, before: Tree) -> Tree:
    """Of params whose layers `names` are bits; before: the params before they were."""
    rest, latent, log_step = params, {}, {}
    for name in names:
        path = (*name.split("/"), "kernel")
        bits, weights = _at(params, path), _at(before, path)
        axes = tuple(range(bits.ndim - 1))
        size = jnp.abs(weights) / jnp.abs(weights).mean(axes, keepdims=True)
        latent[name] = jnp.where(bits >= 0, 1.0, -1.0) * size * config.latent
        log_step[name] = jnp.log(jnp.abs(bits).mean(axes))
        rest = placed(rest, path, None)
    return {"rest": rest, "latent": latent, "log_step": log_step}


def through(tree: Tree) -> Tree:
    """The network's params of these latents."""
    params = tree["rest"]
    for name, latent in tree["latent"].items():
        signs = jnp.where(latent >= 0, 1.0, -1.0)
        straight = latent + jax.lax.stop_gradient(signs - latent)
        step = jnp.exp(tree["log_step"][name])
        kernel = straight * step.reshape((1,) * (latent.ndim - 1) + step.shape)
        params = placed(params, (*name.split("/"), "kernel"), kernel)
    return params


@functools.cache
def refiner(config: Straight, network: nn.Module, recipe: Recipe, epoch: int) -> Refine:
    """The loop, by the data's side of the recipe (augmentation, smoothing); epoch: steps of one."""

    def rate(peak: float) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(peak, config.steps))

    groups = {"latent": rate(config.rate), "log_step": rate(config.scale_rate), "rest": rate(config.rest_rate)}
    return Refine(
        functools.partial(_loss, network, recipe, epoch),
        optax.multi_transform(groups, _groups),
        batch_size=recipe.batch_size,
        augment=functools.partial(recipes.augment, recipe),
        chunk_size=max(1, config.steps // config.points),
    )


def _groups(tree: Tree) -> Tree:
    return {name: jax.tree.map(lambda leaf, name=name: name, part) for name, part in tree.items()}


def _loss(network: nn.Module, recipe: Recipe, epoch: int, tree: Tree, state: Tree, batch: recipes.Batch) -> Any:
    return recipes.loss(network, recipe, epoch, through(tree), state, batch)


def _at(tree: Tree, path: Sequence[str]) -> jax.Array:
    return functools.reduce(lambda node, name: node[name], path, tree)
