"""A network's first parameters from data and bits, before any gradient step.

    dictionary   D whitened patches                                                       experiments.patches
    filters      K of D: a mask x over the dictionary's least-squares weights, sum x = K  a QUBO of D bits
    second       whitened patches of the first layer's answers
    head         least squares on the features, every weight rounded down or up            a QUBO of F bits a class
                     w = step (floor(w0 / step) + x)

Both QUBOs are `pull_back` of `least_squares` through an encoding; a control differs in the sampler alone. Without a
sampler the filters are a random choice, and the head is the continuous solution.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import models, patches
from experiments.controls import Given, Shuffled
from experiments.models import TwoScale, cells, halved, scaled, two_sided
from experiments.patches import Filters
from qjax import Ledger, Mask, Quadratic, Rounding, encode, hybrid, least_squares, minimiser, samplers
from qjax.hybrid import Problem, Round
from qjax.rounding import sequential

SAMPLERS = ("hybrid", "random-bits", "greedy", "rounded", "shuffled")


@dataclass(frozen=True)
class Start:
    """Sizes and strengths of the start.

    dictionary: candidate filters; choice_images: pictures their usefulness is judged on; images: pictures the head is
    fitted on; shrink: of the whitening of each layer; ridge, choice_ridge: of the two least-squares fits; logit_scale:
    height of the right class's target; bits: grid of the head's weights, 2^bits levels over a class's range;
    temperatures: of the head's first states (Klein), in units of its energy.
    """

    dictionary: int = 256
    choice_images: int = 3000
    choice_reads: int = 32
    choice_sweeps: int = 200
    choice_ridge: float = 1e-2
    images: int = 20000
    shrink: tuple[float, float] = (0.1, 1.0)
    ridge: float = 1e-3
    logit_scale: float = 8.0
    bits: int = 4
    head_reads: int = 4
    head_sweeps: int = 10
    temperatures: tuple[float, float] = (1e-6, 1e-4)


class Started(NamedTuple):
    """params, the rounds of the two QUBOs by name (none without a sampler), the ledger."""

    params: Any
    rounds: dict[str, Round]
    ledger: Ledger


def start(
    config: Start, network: TwoScale, key: jax.Array, params: Any, images: jax.Array, labels: jax.Array, method: str
) -> Started:
    """Parameters of `network` in place of `params`; method: one of SAMPLERS, anything else uses no sampler.

    images (N, H, W, C) uint8 and labels (N,) of the training split, N >= config.images + config.choice_images at best:
    fewer are used as far as they go.
    """
    keys = jax.random.split(key, 6)
    order = jax.random.permutation(keys[0], images.shape[0])
    some = order[: config.choice_images]
    ledger = Ledger()
    rounds: dict[str, Round] = {}
    shape = (network.size, network.stride, config.shrink[0])
    atoms, ledger = ledger.run("formulate", _first_filters, keys[1], images[some[:500]], config.dictionary, *shape)
    if method in SAMPLERS:
        first, rounds["filters"], ledger = _chosen(
            config, network, keys[2], atoms, images[some], _targets(labels[some], network, config), method, ledger
        )
    else:
        # The dictionary is in random order already.
        first = Filters(atoms.kernel[..., : network.filters[0]], atoms.bias[: network.filters[0]])
    params = {**params, "conv1": first._asdict()}
    second, ledger = ledger.run(
        "formulate", _second_filters, keys[3], network, params, images[some[:500]], config.shrink[1]
    )
    params = {**params, "conv2": second._asdict()}
    fitted = order[: config.images]
    features, ledger = ledger.run("formulate", mapped, network, "features", params, images[fitted])
    targets = _targets(labels[fitted], network, config)
    params, outcome, ledger = _head(config, keys[4], params, features, targets, method, ledger)
    return Started(params, rounds if outcome is None else {**rounds, "head": outcome}, ledger)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def mapped(network: TwoScale, method: str, params: Any, images: jax.Array, batch: int = 250) -> jax.Array:
    """network.`method` of images (N, H, W, C), batch by batch inside one program: (N, F) for "features"."""

    def one(some: jax.Array) -> Any:
        return network.apply({"params": params}, some, method=method)

    count = images.shape[0]
    batch = min(batch, count)
    # Whole batches only: the last one is filled up with zeros, whose answers are dropped.
    filled = jnp.pad(images, ((0, -count % batch), (0, 0), (0, 0), (0, 0)))
    answers: jax.Array = jax.lax.map(one, filled.reshape(-1, batch, *images.shape[1:]))
    return answers.reshape(-1, answers.shape[-1])[:count]


def _targets(labels: jax.Array, network: TwoScale, config: Start) -> jax.Array:
    """Centred one-hot rows times the logit scale, (N, classes)."""
    one_hot = jax.nn.one_hot(labels, network.num_classes)
    return config.logit_scale * (one_hot - 1.0 / network.num_classes)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _first_filters(key: jax.Array, images: jax.Array, count: int, size: int, stride: int, shrink: float) -> Filters:
    return patches.whitened(key, scaled(images), count, size, stride, shrink)


@functools.partial(jax.jit, static_argnums=(1, 4))
def _second_filters(key: jax.Array, network: TwoScale, params: Any, images: jax.Array, shrink: float) -> Filters:
    answers: Any = network.apply({"params": params}, images, method="first")
    return patches.whitened(key, answers, network.filters[1], 3, 1, shrink)


@functools.partial(jax.jit, static_argnums=(0,))
def _answers(network: TwoScale, atoms: Filters, images: jax.Array) -> jax.Array:
    """Every atom's answers, both signs, on a 2 x 2 grid: (N, 8 D), the atoms last."""
    size, count = network.size, atoms.bias.shape[0]

    def one(some: jax.Array) -> jax.Array:
        windows = models.patches(scaled(some), size, network.stride)
        answers = windows @ atoms.kernel.reshape(-1, count) + atoms.bias[None, None, None, :]
        return cells(halved(two_sided(answers)), 2)

    whole = images.shape[0] // 100 * 100
    parts = jax.lax.map(one, images[:whole].reshape(-1, 100, *images.shape[1:])).reshape(whole, -1)
    return jnp.concatenate([parts, one(images[whole:])]) if whole < images.shape[0] else parts


def _chosen(
    config: Start,
    network: TwoScale,
    key: jax.Array,
    atoms: Filters,
    images: jax.Array,
    targets: jax.Array,
    method: str,
    ledger: Ledger,
) -> tuple[Filters, Round, Ledger]:
    """K of D atoms: the mask that keeps the dictionary's least-squares head closest to the targets."""
    answers, ledger = ledger.run("formulate", _answers, network, atoms, images)
    count, classes = atoms.bias.shape[0], targets.shape[1]
    width = answers.shape[1] // count
    cut = images.shape[0] * 3 // 4
    empty = {"kernel": jnp.zeros((width, count, classes)), "bias": jnp.zeros(classes)}

    def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
        quadratic = least_squares(
            params, "kernel", answers[:cut], targets[:cut], bias="bias", ridge=config.choice_ridge
        )
        solution = minimiser(quadratic, params)
        return quadratic, encode(solution, {"kernel": Mask(axis=1, cardinality=network.filters[0])})

    def loss(params: Any) -> jax.Array:
        return _squared_error(params, answers[cut:], targets[cut:])

    trained = hybrid(
        key,
        loss,
        empty,
        formulate,
        sampler_of(method, config.choice_sweeps),
        num_reads=config.choice_reads,
        num_candidates=4,
        accept="always",
        propose=_nearest if method == "rounded" else None,
        ledger=ledger,
    )
    used = jnp.any(trained.params["kernel"] != 0, axis=(0, 2))
    kept = jnp.flatnonzero(used, size=network.filters[0], fill_value=0)
    return Filters(atoms.kernel[..., kept], atoms.bias[kept]), trained.rounds[0], trained.ledger


def _head(
    config: Start,
    key: jax.Array,
    params: Any,
    features: jax.Array,
    targets: jax.Array,
    method: str,
    ledger: Ledger,
) -> tuple[Any, Round | None, Ledger]:
    """The head's weights: continuous without a sampler, otherwise rounded to a grid by the sampler's bits."""
    blank = {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
    quadratic, ledger = ledger.run(
        "formulate",
        functools.partial(least_squares, bias="head/bias", ridge=config.ridge),
        blank,
        "head/kernel",
        features,
        targets,
    )
    solution, ledger = ledger.run("formulate", minimiser, quadratic, blank)
    if method not in SAMPLERS:
        return solution, None, ledger

    def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
        return quadratic, encode(params, {"head/kernel": Rounding(bits=config.bits)})

    def loss(params: Any) -> jax.Array:
        return _squared_error(params["head"], features[:2000], targets[:2000])

    trained = hybrid(
        key,
        loss,
        solution,
        formulate,
        sampler_of(method, config.head_sweeps),
        num_reads=config.head_reads,
        num_candidates=config.head_reads,
        accept="always",
        propose=_proposal(config, method),
        ledger=ledger,
    )
    return trained.params, trained.rounds[0], trained.ledger


def sampler_of(method: str, num_sweeps: int) -> Callable[..., Any]:
    """The one thing in which a control differs. Errors: KeyError for a method without a sampler."""
    anneal = samplers.get("anneal", num_sweeps=num_sweeps)
    choice: dict[str, Callable[..., Any]] = {
        "hybrid": anneal,
        "random-bits": samplers.get("random"),
        "greedy": samplers.get("greedy"),
        "rounded": Given(),
        "shuffled": Shuffled(anneal),
    }
    return choice[method]


def _proposal(config: Start, method: str) -> Callable[[jax.Array, Problem, int], jax.Array] | None:
    """First states of the head's bits: nearest rounding for the control of that name, none for random bits."""
    if method == "random-bits":
        return None
    return _nearest if method == "rounded" else functools.partial(_sequential, config.temperatures)


def _nearest(key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
    solution = minimiser(problem.quadratic, problem.encoding.params)
    return jnp.broadcast_to(problem.encoding.nearest(solution)[None, :], (num_reads, problem.encoding.num_bits))


def _sequential(heat: tuple[float, float], key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
    temperatures = jnp.geomspace(*heat, num_reads).at[0].set(0.0)
    return sequential(key, problem.quadratic, problem.encoding, num_reads, temperatures)


@jax.jit
def _squared_error(head: Any, features: jax.Array, targets: jax.Array) -> jax.Array:
    predicted = features @ head["kernel"].reshape(-1, targets.shape[1]) + head["bias"][None, :]
    return jnp.mean((predicted - targets) ** 2)
