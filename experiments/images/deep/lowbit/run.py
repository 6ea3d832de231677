"""One run: a trained network's weights become bits layer by layer, then are trained straight through for a while.

    adam              every weight to its sign, scale its mean size; then straight-through training, for longer
    hybrid            bits by annealed QUBOs, layer by layer (see `bits`); then straight-through training
    random-bits, ...  the controls of `hybrid`, which differ from it in the sampler alone

All begin with the same network (see `checkpoint`), whose seconds are told apart and are nobody's. BatchNorm's
statistics are re-estimated wherever a network is evaluated, and those of each layer's images wherever bits are chosen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.account import Account
from experiments.harness.controls import SAMPLERS
from experiments.harness.presentation.cells import Progress, unheard
from experiments.images.deep import networks, statistics, training
from experiments.images.deep import recipe as recipes
from experiments.images.deep.lowbit import bits, observed, straight
from experiments.images.deep.lowbit.bits import Choosing
from experiments.images.deep.lowbit.checkpoint import checkpoint
from experiments.images.deep.lowbit.straight import Straight
from experiments.images.deep.statistics import Statistics
from experiments.images.deep.training import EVALUATED, Deep
from experiments.images.training import splits
from qjax import Ledger, programs

METHODS = ("adam", *SAMPLERS)


@dataclass(frozen=True)
class OneBit:
    """deep, trained_by, trained_seed: the run whose network is taken; statistics: images that BatchNorm's are
    re-estimated on."""

    deep: Deep
    choosing: Choosing = field(default_factory=Choosing)
    straight: Straight = field(default_factory=Straight)
    trained_by: str = "adam"
    trained_seed: int = 0
    statistics: int = 4000


def run(config: OneBit, method: str, seed: int, progress: Progress = unheard) -> dict[str, Any]:
    """One cell. results: final (test accuracy, percent), validation, steps, started (validation before the refinement),
    divergence (then, in nats from the checkpoint), full_precision (the checkpoint's test accuracy), training_loss,
    turned (the share of bits that the refinement turned), and with a sampler layer_error (the mean over layers) and
    layer_errors. timed: also checkpoint_seconds.

    Errors: ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    deep = config.deep
    before = checkpoint(
        deep, config.trained_by, config.trained_seed, lambda f, text="", s=None: progress(0.8 * f, text)
    )
    pixels = splits(deep.dataset, deep.validation, deep.training_images, deep.test_images)
    images, labels = pixels.train
    classes = pixels.data.num_classes
    network = networks.get(deep.network, num_classes=classes)
    account, keys = Account(Ledger().add("data", pixels.seconds)), jax.random.split(jax.random.key(seed), 4)
    variables, names = before.variables, observed.layers(network, images[:1])
    shown = images[jnp.sort(jax.random.choice(keys[0], len(labels), (config.choosing.images,), replace=False))]
    errors = []
    for number, name in enumerate(names):
        progress(0.8 + 0.1 * number / len(names), "bits")
        if method == "adam":
            variables = account.call("formulate", bits.Nearest(name), variables)
            continue
        key = jax.random.fold_in(keys[1], number)
        variables, error = bits.chosen(
            config.choosing, method, key, network, name, variables, before.variables, shown, account
        )
        errors.append(error)
    schedule = replace(config.straight, steps=config.straight.long_steps) if method == "adam" else config.straight
    latents = straight.latents(schedule, names, variables["params"], before.variables["params"])
    first = {name: latent >= 0 for name, latent in latents["latent"].items()}
    state = recipes.first_state(variables, deep.recipe)
    evaluate = functools.partial(
        training.accuracy, account.program(training.Classes(network), variables, images[:EVALUATED])
    )
    estimated = functools.partial(
        statistics.estimated,
        account.program(Statistics(network), variables, images[: statistics.PART]),
        images[: config.statistics],
    )
    snapshots = [(account.seconds, variables)]
    steps = schedule.steps

    def watch(step: int, metrics: Any, params: Any, state: Any) -> None:
        reached = account.seconds
        with account.aside():
            snapshots.append((reached, _variables(params, state)))
            progress(0.9 + 0.1 * step / steps, "refine", standing)

    def standing() -> dict[str, float]:
        reached = evaluate(estimated(snapshots[-1][1]), *pixels.validation)
        return {"final": reached, "validation": reached}

    trained = networks.get(deep.network, num_classes=classes, dtype=jnp.dtype(deep.dtype).type)
    refine = straight.refiner(schedule, trained, deep.recipe, len(labels) // deep.recipe.batch_size)
    side = jax.random.bernoulli(keys[2], 0.5, labels.shape).astype(jnp.int32)
    refined = account.refine(
        refine,
        keys[3],
        latents,
        (images, labels, side),
        steps,
        watch,
        state=state,
        compiler_options=networks.compiler_options(deep.dtype),
    )
    last = account.run("evaluate", estimated, _variables(refined.params, refined.state))
    final = account.run("evaluate", evaluate, last, *pixels.test)
    ledger = account.close()
    curve = [[second + ledger["evaluate"], evaluate(estimated(v), *pixels.validation)] for second, v in snapshots]
    divergence = _divergence(network, before.variables, estimated(variables), pixels.validation[0])
    turned = [np.mean((latent >= 0) != first[name]) for name, latent in refined.params["latent"].items()]
    results: dict[str, Any] = {
        "final": final,
        "validation": curve[-1][1],
        "started": curve[0][1],
        "divergence": divergence,
        "full_precision": before.final,
        "steps": refined.step,
        "training_loss": float(np.mean(refined.metrics["loss"][-refine.chunk_size :])),
        "turned": float(np.mean(turned)),
    }
    if errors:
        results |= {"layer_error": float(np.mean(errors)), "layer_errors": errors}
    timed = {"seconds": ledger.total, "curve": curve, "phases": ledger.phases, "checkpoint_seconds": before.seconds}
    return {"results": results, "timed": timed}


@dataclass(frozen=True)
class Chances:
    """The logarithms of the probabilities that the network gives to the classes of images."""

    network: nn.Module

    def __call__(self, variables: Any, images: jax.Array) -> jax.Array:
        logits: Any = self.network.apply(variables, images, train=False)
        return jax.nn.log_softmax(logits)


def _divergence(network: nn.Module, before: Any, variables: Any, images: jax.Array) -> float:
    """Kullback and Leibler's, of the classes' probabilities from those before, the mean over images: it tells choices
    of bits apart where accuracies do not."""
    size, found = min(EVALUATED, len(images)), []
    chances, _ = programs.compiled(Chances(network), before, images[:size])
    for start in range(0, len(images) - size + 1, size):
        old, new = (np.asarray(chances(v, images[start : start + size])) for v in (before, variables))
        found.append((np.exp(old) * (old - new)).sum(-1).mean())
    return float(np.mean(found))


def _variables(params: Any, state: Any) -> Any:
    """Of latents, in arrays of their own."""
    return jax.tree.map(jnp.copy, {"params": straight.through(params), "batch_stats": state["batch_stats"]})
