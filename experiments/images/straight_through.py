"""Training a head of one bit per weight and one scale per class, with latent weights behind the bits.

state       {"kernel" (F, C), "bias" (C,), "step" (C,)}: kernel = +-step, or free before the first rounding
latent      {"latent" (F, C), "log_step" (C,), "bias" (C,)}: kernel = sign(latent) exp(log_step)
gradient    of sign(latent) taken as that of latent (straight through: Bengio, Leonard and Courville 2013)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from experiments.harness.account import Account
from qjax import Refine

Examples: TypeAlias = tuple[jax.Array, jax.Array]
Kind: TypeAlias = Literal["free", "scales", "signs"]


@dataclass(frozen=True)
class Schedule:
    """Steps and rates of the three loops, the same for every method; cosine decay to 0 in all of them.

    steps, learning_rate: straight-through refinement of latents that start at +-latent; long_steps: those of the
    straight-through row without a QUBO; scale_rate: of steps and biases in both and in the refit after a round.
    """

    batch_size: int = 512
    continuous_steps: int = 500
    continuous_rate: float = 1e-2
    scale_steps: int = 60
    scale_rate: float = 1e-2
    steps: int = 440
    learning_rate: float = 3e-3
    latent: float = 0.3
    long_steps: int = 1760


def logits(params: Any, x: jax.Array) -> jax.Array:
    values: jax.Array = x @ params["kernel"] + params["bias"][None, :]
    return values


def cross_entropy(values: jax.Array, y: jax.Array) -> jax.Array:
    # One-hot products: picking entries by label becomes a scatter in the gradient, which XLA tries to fold for seconds.
    wanted = jax.nn.one_hot(y, values.shape[-1], dtype=values.dtype)
    loss: jax.Array = -(jax.nn.log_softmax(values) * wanted).sum(-1).mean()
    return loss


def head_loss(params: Any, batch: Examples) -> jax.Array:
    return cross_entropy(logits(params, batch[0]), batch[1])


def latent_loss(latents: Any, batch: Examples) -> jax.Array:
    return head_loss(_through(latents), batch)


def accuracy(params: Any, batch: Examples) -> jax.Array:
    """Percent classified correctly."""
    predicted = jnp.argmax(logits(params, batch[0]), axis=1).astype(batch[1].dtype)
    return 100 * (predicted == batch[1]).astype(jnp.float32).mean()


def continuous(schedule: Schedule, key: jax.Array, train: Examples, classes: int, account: Account) -> Any:
    """The head with free weights, from zero, and one step per class: its mean |weight|."""
    zero = {"kernel": jnp.zeros((train[0].shape[1], classes)), "bias": jnp.zeros(classes)}
    free, _ = _run(schedule, "free", key, zero, train, schedule.continuous_steps, account)
    return {**free, "step": jnp.abs(free["kernel"]).mean(0)}


def refit(schedule: Schedule, key: jax.Array, params: Any, train: Examples, account: Account) -> Any:
    """Steps and biases trained for fixed signs; kept where the training loss is lower."""
    latents = _latents(params, jnp.sign(params["kernel"]) * schedule.latent)
    new, _ = _run(schedule, "scales", key, latents, train, schedule.scale_steps, account)
    return _lowest([params, _state(new)], train, account)


def refined(schedule: Schedule, key: jax.Array, params: Any, train: Examples, account: Account) -> tuple[Any, Any]:
    """Straight-through training: (state of lowest training loss among the start and the ends of chunks, last state)."""
    start = _latents(params, jnp.sign(params["kernel"]) * schedule.latent)
    last, seen = _run(schedule, "signs", key, start, train, schedule.steps, account)
    return _lowest([params, *map(_state, seen)], train, account), _state(last)


def trained(schedule: Schedule, key: jax.Array, params: Any, train: Examples, account: Account) -> tuple[Any, Any]:
    """As `refined`, with long_steps and from free weights: latents in proportion to them, the usual way."""
    start = _latents(params, params["kernel"] / params["step"][None, :] * schedule.latent)
    last, seen = _run(schedule, "signs", key, start, train, schedule.long_steps, account)
    return _lowest([*map(_state, seen)], train, account), _state(last)


@functools.cache
def _refiner(schedule: Schedule, kind: Kind, steps: int) -> Refine:
    """The loop on free weights, on scales and biases alone, or on latents, scales and biases."""
    size, chunk = schedule.batch_size, max(1, steps // 4)
    if kind == "free":
        rate = optax.cosine_decay_schedule(schedule.continuous_rate, steps)
        return Refine(head_loss, optax.adam(rate), batch_size=size, chunk_size=steps)
    scales = optax.adam(optax.cosine_decay_schedule(schedule.scale_rate, steps))
    if kind == "scales":
        return Refine(latent_loss, scales, batch_size=size, chunk_size=chunk, trainable=("log_step", "bias"))
    signs = optax.adam(optax.cosine_decay_schedule(schedule.learning_rate, steps))
    groups = {"latent": "signs", "log_step": "scales", "bias": "scales"}
    return Refine(
        latent_loss,
        optax.multi_transform({"signs": signs, "scales": scales}, groups),
        batch_size=size,
        chunk_size=chunk,
    )


def _run(
    schedule: Schedule, kind: Kind, key: jax.Array, params: Any, train: Examples, steps: int, account: Account
) -> tuple[Any, list[Any]]:
    """(last parameters, those at the ends of chunks)."""
    seen: list[Any] = []

    def keep(step: int, metrics: Any, params: Any) -> None:
        seen.append(jax.tree.map(jnp.copy, params))

    result = account.refine(_refiner(schedule, kind, steps), key, params, train, steps, keep)
    return result.params, seen


def _through(latents: Any) -> Any:
    signs = jnp.where(latents["latent"] >= 0, 1.0, -1.0).astype(latents["latent"].dtype)
    straight = latents["latent"] + jax.lax.stop_gradient(signs - latents["latent"])
    return {"kernel": straight * jnp.exp(latents["log_step"])[None, :], "bias": latents["bias"]}


def _latents(params: Any, latent: jax.Array) -> Any:
    return {"latent": latent, "log_step": jnp.log(params["step"]), "bias": params["bias"]}


def _state(latents: Any) -> Any:
    step = jnp.exp(latents["log_step"])
    kernel = jnp.where(latents["latent"] >= 0, step[None, :], -step[None, :])
    return {"kernel": kernel, "bias": latents["bias"], "step": step}


def _lowest(states: list[Any], train: Examples, account: Account) -> Any:
    """The state of lowest loss over all training images, the earliest among equals."""
    losses = [float(account.call("evaluate", head_loss, state, train)) for state in states]
    return states[losses.index(min(losses))]
