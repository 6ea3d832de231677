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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import models, patches
from experiments.controls import Given, Shuffled
from experiments.models import TwoScale, cells, halved, scaled, two_sided
from experiments.patches import Filters
from qjax import Ledger, Mask, Quadratic, Rounding, Samples, encode, least_squares, minimiser, samplers
from qjax.hybrid import Problem, Round, formulated, initial_states, picked
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


class Choice(NamedTuple):
    """The filters' QUBO, and what is needed to pick: atoms, held-out answers and targets, first states."""

    atoms: Filters
    answers: jax.Array
    targets: jax.Array
    empty: Any
    problem: Problem
    states: jax.Array | None


class Head(NamedTuple):
    """The head's QUBO, the parameters with the continuous head, features and targets to pick by, first states."""

    solution: Any
    features: jax.Array
    targets: jax.Array
    problem: Problem
    states: jax.Array | None


@dataclass(frozen=True)
class Plan:
    """A start as a sequence of pure functions of arrays, so that each compiles ahead of time."""

    config: Start
    network: TwoScale
    method: str

    def choice(self, key: jax.Array, images: jax.Array, labels: jax.Array) -> Choice:
        """The dictionary, what its atoms answer, and the QUBO of which K to keep."""
        config, network = self.config, self.network
        some, atoms, keys = self._atoms(key, images)
        answers = _answers(network, atoms, images[some])
        targets = _targets(labels[some], network, config)
        cut = answers.shape[0] * 3 // 4
        count, classes = atoms.bias.shape[0], network.num_classes
        width = answers.shape[1] // count
        empty = {"kernel": jnp.zeros((width, count, classes)), "bias": jnp.zeros(classes)}

        def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
            quadratic = least_squares(
                params, "kernel", answers[:cut], targets[:cut], bias="bias", ridge=config.choice_ridge
            )
            solution = minimiser(quadratic, params)
            return quadratic, encode(solution, {"kernel": Mask(axis=1, cardinality=network.filters[0])})

        problem = formulated(formulate, empty, 1.0)
        propose = _nearest if self.method == "rounded" else None
        states = initial_states(keys[2], problem, config.choice_reads, propose)
        return Choice(atoms, answers[cut:], targets[cut:], empty, problem, states)

    def keep(self, key: jax.Array, images: jax.Array, choice: Choice, samples: Samples) -> tuple[Any, Round]:
        """Both layers' filters, the first by the picked mask."""

        def loss(params: Any) -> jax.Array:
            return _squared_error(params, choice.answers, choice.targets)

        outcome = picked(loss, choice.empty, choice.problem, samples, 4, "always")
        used = jnp.any(outcome.params["kernel"] != 0, axis=(0, 2))
        kept = jnp.flatnonzero(used, size=self.network.filters[0], fill_value=0)
        first = Filters(choice.atoms.kernel[..., kept], choice.atoms.bias[kept])
        return self._second(key, images, first), outcome._replace(params=None)

    def unchosen(self, key: jax.Array, images: jax.Array) -> Any:
        """Both layers' filters at random: the dictionary's order is random already."""
        _, atoms, _ = self._atoms(key, images)
        count = self.network.filters[0]
        return self._second(key, images, Filters(atoms.kernel[..., :count], atoms.bias[:count]))

    def fit(self, key: jax.Array, layers: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        """The parameters with the continuous least-squares head, and the quadratic, features and targets behind it."""
        config = self.config
        rows = _order(key, images)[: config.images]
        features = mapped(self.network, "features", {**layers, "head": None}, images[rows])
        targets = _targets(labels[rows], self.network, config)
        shape = (features.shape[1], self.network.num_classes)
        blank = {**layers, "head": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1])}}
        quadratic = least_squares(blank, "head/kernel", features, targets, bias="head/bias", ridge=config.ridge)
        return minimiser(quadratic, blank), (quadratic, features[:2000], targets[:2000])

    def head(self, key: jax.Array, layers: Any, images: jax.Array, labels: jax.Array) -> Head:
        """The QUBO of rounding every weight of the continuous head down or up."""
        solution, (quadratic, features, targets) = self.fit(key, layers, images, labels)

        def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
            return quadratic, encode(params, {"head/kernel": Rounding(bits=self.config.bits)})

        problem = formulated(formulate, solution, 1.0)
        propose = _proposal(self.config, self.method)
        states = initial_states(_keys(key)[4], problem, self.config.head_reads, propose)
        return Head(solution, features, targets, problem, states)

    def settle(self, head: Head, samples: Samples) -> tuple[Any, Round]:
        """The parameters with the picked head."""

        def loss(params: Any) -> jax.Array:
            return _squared_error(params["head"], head.features, head.targets)

        outcome = picked(loss, head.solution, head.problem, samples, self.config.head_reads, "always")
        return outcome.params, outcome._replace(params=None)

    def anneal_choice(self, key: jax.Array, choice: Choice) -> Samples:
        sampler = sampler_of(self.method, self.config.choice_sweeps)
        return sampler(_keys(key)[2], choice.problem.energy, self.config.choice_reads, choice.states)

    def anneal_head(self, key: jax.Array, head: Head) -> Samples:
        sampler = sampler_of(self.method, self.config.head_sweeps)
        return sampler(_keys(key)[4], head.problem.energy, self.config.head_reads, head.states)

    def _atoms(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, Filters, jax.Array]:
        keys = _keys(key)
        some = _order(key, images)[: self.config.choice_images]
        layer = (self.network.size, self.network.stride, self.config.shrink[0])
        atoms = patches.whitened(keys[1], scaled(images[some[:500]]), self.config.dictionary, *layer)
        return some, atoms, keys

    def _second(self, key: jax.Array, images: jax.Array, first: Filters) -> Any:
        some = _order(key, images)[:500]
        params = {"conv1": first._asdict()}
        answers: Any = self.network.apply({"params": params}, images[some], method="first")
        second = patches.whitened(_keys(key)[3], answers, self.network.filters[1], 3, 1, self.config.shrink[1])
        return {**params, "conv2": second._asdict()}


def compiled(plan: Plan, key: jax.Array, images: jax.Array, labels: jax.Array) -> "dict[str, Any]":
    """The plan's functions by name, compiled ahead of time, two at a time: XLA's compiler runs on one core."""
    built: dict[str, Future[Any]] = {}
    with ThreadPoolExecutor(2) as pool:

        def add(function: Callable[..., Any], *args: Any) -> Any:
            lowered = jax.jit(function).lower(*args)
            built[function.__name__] = pool.submit(lowered.compile)
            return lowered.out_info

        if plan.method not in SAMPLERS:
            layers = add(plan.unchosen, key, images)
            add(plan.fit, key, layers, images, labels)
        else:
            choice = add(plan.choice, key, images, labels)
            samples = add(plan.anneal_choice, key, choice)
            layers, _ = add(plan.keep, key, images, choice, samples)
            head = add(plan.head, key, layers, images, labels)
            samples = add(plan.anneal_head, key, head)
            add(plan.settle, head, samples)
    return {name: program.result() for name, program in built.items()}


def start(programs: dict[str, Any], key: jax.Array, images: jax.Array, labels: jax.Array) -> Started:
    """A network's parameters by the programs of a plan. images (N, H, W, C) uint8, labels (N,): the training split."""
    ledger = Ledger()
    if "fit" in programs:
        layers, ledger = ledger.run("formulate", programs["unchosen"], key, images)
        (params, _), ledger = ledger.run("formulate", programs["fit"], key, layers, images, labels)
        return Started(params, {}, ledger)
    choice, ledger = ledger.run("formulate", programs["choice"], key, images, labels)
    samples, ledger = ledger.run("anneal", programs["anneal_choice"], key, choice)
    (layers, filters), ledger = ledger.run("decode", programs["keep"], key, images, choice, samples)
    head, ledger = ledger.run("formulate", programs["head"], key, layers, images, labels)
    samples, ledger = ledger.run("anneal", programs["anneal_head"], key, head)
    (params, rounding), ledger = ledger.run("decode", programs["settle"], head, samples)
    return Started(params, {"filters": filters, "head": rounding}, ledger)


def _keys(key: jax.Array) -> jax.Array:
    return jax.random.split(key, 6)


def _order(key: jax.Array, images: jax.Array) -> jax.Array:
    return jax.random.permutation(_keys(key)[0], images.shape[0])


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


def _squared_error(head: Any, features: jax.Array, targets: jax.Array) -> jax.Array:
    predicted = features @ head["kernel"].reshape(-1, targets.shape[1]) + head["bias"][None, :]
    return jnp.mean((predicted - targets) ** 2)
