"""Does quantum-assisted training beat Adam on the network that serves Adam best? Several convolutions, for Table I.

    adam, muon                       He initialisation, the recipe of tuned/conv.json
    adam-data-start, muon-...        the same descent from a first layer of whitened windows at random
    hybrid, hybrid-muon              the same, the windows chosen by the annealer
    random-bits, greedy, ...         the controls of `hybrid`, which differ from it in the sampler alone

A run's length is a number of steps; seconds are measured. Curves are accuracies on 5,000 training images kept apart,
looked at between steps while the clock stands; the test images are looked at once, at the end. Before each, BatchNorm's
statistics are estimated anew; at the end that is charged. Decoding is charged to every run, and so are compile seconds.
A run whose process was killed goes on from a checkpoint (`harness.pieces`).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.account import Account
from experiments.harness.presentation.cells import Progress, unheard
from experiments.images.deep import networks, statistics
from experiments.images.deep import recipe as recipes
from experiments.images.deep.recipe import Recipe
from experiments.images.deep.start import first_layer
from experiments.images.deep.statistics import Statistics
from experiments.images.start import Start
from experiments.images.training import splits
from qjax import Ledger
from qjax.descend.refine import Refine

CONTROLS = ("random-bits", "greedy", "rounded", "shuffled")
# The sampler of each method's start; "data": windows at random; "": drawn, as the layers above.
STARTS: Mapping[str, str] = {
    "adam": "",
    "adam-data-start": "data",
    "hybrid": "hybrid",
    **{control: control for control in CONTROLS},
    "muon": "",
    "muon-data-start": "data",
    "hybrid-muon": "hybrid",
}
EVALUATED = 500  # images at a time


@dataclass(frozen=True)
class Deep:
    """What decides the numbers of one run, method and seed apart; training_images, test_images: None for all.

    dtype: of activations while training. Parameters, statistics and the loss are float32, and so are evaluations.
    statistics: training images on which BatchNorm's are estimated anew before every evaluation.
    """

    recipe: Recipe
    start: Start | None = None
    dataset: str = "cifar10"
    network: str = "conv"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    training_images: int | None = None
    test_images: int | None = None
    validation: int = 5000
    statistics: int = 4000
    points: int = 16


def run(
    config: Deep,
    method: str,
    seed: int,
    progress: Progress = unheard,
    folder: Path | None = None,
    keep: Callable[[Any], object] | None = None,
) -> dict[str, Any]:
    """One cell. results: final (test accuracy, percent), validation, started, steps, training_loss; where the start was
    chosen by a sampler also fidelity, feasible, energy and sampled_energies. keep is handed the trained variables.

    Errors: ValueError for an unknown method, or one whose start the configuration lacks.
    """
    if method not in STARTS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(STARTS)}")
    progress(0.0, "data")
    pixels = splits(config.dataset, config.validation, config.training_images, config.test_images)
    images, labels = pixels.train
    network = networks.get(config.network, num_classes=pixels.data.num_classes)
    account, keys = Account(Ledger().add("data", pixels.seconds)), jax.random.split(jax.random.key(seed), 4)
    progress(0.01, "start")
    variables = account.call("other", Initial(network), keys[0], images[:1])
    params, outcome = variables["params"], None
    if sampler := STARTS[method]:
        if config.start is None:
            raise ValueError(f"method {method} needs a configuration with a start")
        first, outcome = first_layer(account, config.start, network, sampler, keys[2], images, labels)
        params = {**params, "first": first}
    side = jax.random.bernoulli(keys[3], 0.5, labels.shape).astype(jnp.int32)
    state = recipes.first_state({**variables, "params": params}, config.recipe)
    steps = config.recipe.steps(len(labels))
    evaluate = functools.partial(accuracy, account.program(Classes(network), variables, images[:EVALUATED]))
    anew = account.program(Statistics(network), variables, images[: statistics.PART])

    def estimated(params: Any, state: Any) -> Any:
        return statistics.estimated(anew, images[: config.statistics], recipes.evaluated(params, state))

    # [second, accuracy], the images being looked at aside.
    with account.aside():
        curve = [[0.0, evaluate(estimated(params, state), *pixels.validation)]]
    curve[0][0] = account.seconds

    def watch(step: int, metrics: Any, params: Any, state: Any) -> None:
        reached = account.seconds
        with account.aside():
            curve.append([reached, evaluate(estimated(params, state), *pixels.validation)])
            progress(0.05 + 0.9 * step / steps, "refine", standing)

    def standing() -> dict[str, float]:
        """The validation images stand for those of the test, which are looked at once, at the end."""
        return {"final": curve[-1][1], "validation": curve[-1][1]}

    taught = networks.get(config.network, num_classes=pixels.data.num_classes, dtype=jnp.dtype(config.dtype).type)
    refine = descent(config.recipe, config.points, taught, tuple(params), len(labels), steps)
    data = (images, labels, side)
    options = networks.compiler_options(config.dtype)
    refined = account.refine(
        refine, keys[1], params, data, steps, watch, "refine", state, options, folder=folder, gathered=curve
    )
    trained = account.run("evaluate", estimated, refined.params, refined.state)
    final = account.run("evaluate", evaluate, trained, *pixels.test)
    ledger = account.close()
    if keep is not None:
        keep(trained)
    # Every point as if the run had ended there: nothing is known before a last evaluation.
    last = ledger["evaluate"]
    curve = [[second + last, value] for second, value in curve]
    results: dict[str, Any] = {
        "final": final,
        "validation": curve[-1][1],
        "started": curve[0][1],
        "steps": refined.step,
        "training_loss": float(np.mean(refined.metrics["loss"][-refine.chunk_size :])),
    }
    if outcome is not None:
        results |= {"fidelity": float(outcome.fidelity), "feasible": float(outcome.feasible)}
        results |= {"energy": float(outcome.energies[0])}
        results["sampled_energies"] = [float(energy) for energy in outcome.energies_read]
    timed = {"seconds": ledger.total, "curve": curve, "phases": ledger.phases}
    return {"results": results, "timed": timed | ({"repeated_seconds": account.repeated} if account.repeated else {})}


@functools.cache
def descent(recipe: Recipe, points: int, network: nn.Module, names: tuple[str, ...], images: int, steps: int) -> Refine:
    """The training loop, its callbacks at as many points as the curve has. One for all runs alike, whatever their seed
    and start, so that `Account.refine` compiles it once. names: of the network's layers."""
    return Refine(
        functools.partial(recipes.loss, network, recipe, images // recipe.batch_size),
        recipes.optimizer(recipe, steps),
        batch_size=recipe.batch_size,
        augment=functools.partial(recipes.augment, recipe),
        trainable=tuple(name for name in names if name != "first") if recipe.frozen else None,
        chunk_size=max(1, steps // points),
    )


@dataclass(frozen=True)
class Initial:
    """Parameters and statistics as they are drawn."""

    network: nn.Module

    def __call__(self, key: jax.Array, images: jax.Array) -> Any:
        return self.network.init(key, images, train=False)


@dataclass(frozen=True)
class Classes:
    """The classes that the network gives to images, with the statistics of training."""

    network: nn.Module

    def __call__(self, variables: Any, images: jax.Array) -> jax.Array:
        logits: Any = self.network.apply(variables, images, train=False)
        return jnp.argmax(logits, -1)


def accuracy(classes: Any, variables: Any, images: jax.Array, labels: np.ndarray[Any, Any]) -> float:
    """Percent classified correctly, by a program compiled for EVALUATED images."""
    filled = jnp.pad(images, ((0, -len(labels) % EVALUATED), (0, 0), (0, 0), (0, 0)))
    found = [np.asarray(classes(variables, filled[i : i + EVALUATED])) for i in range(0, len(filled), EVALUATED)]
    return 100.0 * float(np.mean(np.concatenate(found)[: len(labels)] == labels))
