"""A network's first parameters from data and bits, before any gradient step.

    dictionary   D whitened windows of the images                                          experiments.images.patches
    filters      K of D: a mask x over the dictionary's least-squares weights, sum x = K   a QUBO of D bits
    head         least squares on the features, every weight rounded down or up            a QUBO of F bits per class
                     w = step (floor(w0 / step) + x)

Both QUBOs are `pull_back` of `least_squares` through an encoding; a control differs in the sampler alone. Without a
sampler the filters are a random choice, and the head is the continuous solution.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.controls import SAMPLERS, rounded, sampler_of
from experiments.images import patches
from experiments.images.models import PatchNetwork, scaled
from experiments.images.patches import Filters
from qjax import Ledger, Mask, Quadratic, Rounding, Samples, encode, least_squares, samplers
from qjax.formulate.minimiser import minimiser
from qjax.formulate.rounding import sequential
from qjax.hybrid import formulated, initial_states, picked
from qjax.rounds import Problem, Round


@dataclass(frozen=True)
class Start:
    """Sizes and strengths of the start.

    dictionary: candidate filters; choice_images: images their usefulness is judged on, by means over the whole
    image; images: those the head is fitted on; shrink: of the whitening; ridge, choice_ridge: of the two
    least-squares fits; logit_scale: height of the right class's target; bits: grid of the head's weights, 2^bits + 1
    levels over a class's range; temperatures: of the head's first states (Klein), in units of its energy;
    choice_betas, head_betas: first and last inverse temperature of the two annealers, None: found from the Qubo, which
    takes as long to compile as the sweeps.
    """

    dictionary: int = 768
    choice_images: int = 3000
    choice_reads: int = 32
    choice_sweeps: int = 200
    choice_ridge: float = 5e-4
    images: int = 20000
    shrink: float = 0.1
    ridge: float = 5e-4
    logit_scale: float = 8.0
    bits: int = 4
    head_reads: int = 4
    head_sweeps: int = 10
    temperatures: tuple[float, float] = (1e-6, 1e-4)
    choice_betas: tuple[float, float] | None = None
    head_betas: tuple[float, float] | None = None


class Started(NamedTuple):
    """params, the rounds of the two QUBOs by name (none without a sampler), the ledger."""

    params: Any
    rounds: dict[str, Round]
    ledger: Ledger


class Choice(NamedTuple):
    """The filters' QUBO, and what is needed to pick: atoms, held-out responses and targets, first states."""

    atoms: Filters
    responses: jax.Array
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
class Stages:
    """The stages of a start as pure functions of arrays, so that each compiles ahead of time."""

    config: Start
    network: PatchNetwork
    method: str

    def choice(self, key: jax.Array, order: jax.Array, images: jax.Array, labels: jax.Array) -> Choice:
        """The dictionary, the responses of its atoms, and the QUBO of which K to keep."""
        config, network = self.config, self.network
        keys, some = jax.random.split(key), order[: self.config.choice_images]
        atoms = self._atoms(keys[0], order, images)
        whole = network.clone(filters=self.config.dictionary, grid=1)
        responses = mapped(whole, "features", _layers(network, atoms), images[some])
        targets = _targets(labels[some], network, config)
        cut = responses.shape[0] * 3 // 4
        count, classes = config.dictionary, network.num_classes
        empty = {"kernel": jnp.zeros((2, count, classes)), "bias": jnp.zeros(classes)}

        def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
            quadratic = least_squares(
                params, "kernel", responses[:cut], targets[:cut], bias="bias", ridge=config.choice_ridge
            )
            solution = minimiser(quadratic, params, regular=True).params
            return quadratic, encode(solution, {"kernel": Mask(axis=1, cardinality=network.filters)})

        problem = formulated(formulate, empty, 1.0)
        propose = rounded if self.method == "rounded" else None
        states = initial_states(keys[1], problem, config.choice_reads, propose)
        return Choice(atoms, responses[cut:], targets[cut:], empty, problem, states)

    def keep(self, choice: Choice, samples: Samples) -> tuple[Any, Round]:
        """The convolution of the picked filters."""

        def loss(params: Any) -> jax.Array:
            return _squared_error(params, choice.responses, choice.targets)

        outcome = picked(loss, choice.empty, choice.problem, samples, 4, "always")
        used = jnp.any(outcome.params["kernel"] != 0, axis=(0, 2))
        kept = jnp.flatnonzero(used, size=self.network.filters, fill_value=0)
        chosen = Filters(choice.atoms.kernel[..., kept], choice.atoms.bias[kept])
        return _layers(self.network, chosen), outcome._replace(params=None)

    def unchosen(self, key: jax.Array, order: jax.Array, images: jax.Array) -> Any:
        """A convolution of filters at random: the dictionary's order is random already."""
        atoms = self._atoms(jax.random.split(key)[0], order, images)
        count = self.network.filters
        return _layers(self.network, Filters(atoms.kernel[..., :count], atoms.bias[:count]))

    def fit(self, order: jax.Array, layers: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        """The parameters with the continuous least-squares head, and the quadratic, features and targets behind it."""
        config = self.config
        rows = order[: config.images]
        features = mapped(self.network, "features", layers, images[rows])
        targets = _targets(labels[rows], self.network, config)
        shape = (features.shape[1], self.network.num_classes)
        blank = {**layers, "head": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1])}}
        quadratic = least_squares(blank, "head/kernel", features, targets, bias="head/bias", ridge=config.ridge)
        return minimiser(quadratic, blank, regular=True).params, (quadratic, features[:2000], targets[:2000])

    def head(self, key: jax.Array, order: jax.Array, layers: Any, images: jax.Array, labels: jax.Array) -> Head:
        """The QUBO of rounding every weight of the continuous head down or up."""
        solution, (quadratic, features, targets) = self.fit(order, layers, images, labels)

        def formulate(params: Any, radius: float) -> tuple[Quadratic, Any]:
            return quadratic, encode(params, {"head/kernel": Rounding(bits=self.config.bits)})

        problem = formulated(formulate, solution, 1.0)
        propose = _proposal(self.config, self.method)
        states = initial_states(key, problem, self.config.head_reads, propose)
        return Head(solution, features, targets, problem, states)

    def settle(self, head: Head, samples: Samples) -> tuple[Any, Round]:
        """The parameters with the picked head."""

        def loss(params: Any) -> jax.Array:
            return _squared_error(params["head"], head.features, head.targets)

        outcome = picked(loss, head.solution, head.problem, samples, self.config.head_reads, "always")
        return outcome.params, outcome._replace(params=None)

    def anneal_choice(self, key: jax.Array, choice: Choice) -> Samples:
        config = self.config
        anneal = samplers.get("anneal", num_sweeps=config.choice_sweeps, beta_range=config.choice_betas)
        sampler = sampler_of(self.method, anneal)
        return sampler(key, choice.problem.sampled_qubo, config.choice_reads, choice.states)

    def anneal_head(self, key: jax.Array, head: Head) -> Samples:
        config = self.config
        anneal = samplers.get("anneal", num_sweeps=config.head_sweeps, beta_range=config.head_betas)
        sampler = sampler_of(self.method, anneal)
        return sampler(key, head.problem.sampled_qubo, config.head_reads, head.states)

    def _atoms(self, key: jax.Array, order: jax.Array, images: jax.Array) -> Filters:
        layer = (self.network.size, self.network.stride, self.config.shrink)
        return patches.whitened(key, scaled(images[order[:500]]), self.config.dictionary, *layer)


def compiled(stages: Stages, key: jax.Array, images: jax.Array, labels: jax.Array) -> dict[str, Any]:
    """The stages by name, compiled ahead of time, two at a time."""
    built: dict[str, Future[Any]] = {}
    with ThreadPoolExecutor(2) as pool:

        def add(function: Callable[..., Any], *args: Any) -> Any:
            lowered = jax.jit(function).lower(*args)
            built[function.__name__] = pool.submit(lowered.compile, compiler_options(function.__name__))
            return lowered.out_info

        keys, order = drawn(key, images.shape[0])
        if stages.method not in SAMPLERS:
            layers = add(stages.unchosen, keys[0], order, images)
            add(stages.fit, order, layers, images, labels)
        else:
            choice = add(stages.choice, keys[0], order, images, labels)
            samples = add(stages.anneal_choice, keys[1], choice)
            layers, _ = add(stages.keep, choice, samples)
            head = add(stages.head, keys[2], order, layers, images, labels)
            samples = add(stages.anneal_head, keys[3], head)
            add(stages.settle, head, samples)
    return {name: program.result() for name, program in built.items()}


def start(programs: dict[str, Any], key: jax.Array, images: jax.Array, labels: jax.Array) -> Started:
    """A network's parameters by its compiled stages. images (N, H, W, C) uint8, labels (N,): the training split."""
    ledger, (keys, order) = Ledger(), drawn(key, images.shape[0])
    if "fit" in programs:
        layers, ledger = ledger.run("formulate", programs["unchosen"], keys[0], order, images)
        (params, _), ledger = ledger.run("formulate", programs["fit"], order, layers, images, labels)
        return Started(params, {}, ledger)
    choice, ledger = ledger.run("formulate", programs["choice"], keys[0], order, images, labels)
    samples, ledger = ledger.run("anneal", programs["anneal_choice"], keys[1], choice)
    (layers, filters), ledger = ledger.run("decode", programs["keep"], choice, samples)
    head, ledger = ledger.run("formulate", programs["head"], keys[2], order, layers, images, labels)
    samples, ledger = ledger.run("anneal", programs["anneal_head"], keys[3], head)
    (params, rounding), ledger = ledger.run("decode", programs["settle"], head, samples)
    return Started(params, {"filters": filters, "head": rounding}, ledger)


def compiler_options(stage: str) -> Any:
    """Every stage runs once, so on CPUs it compiles with fewer passes than usual: without any where it has next to
    nothing to do, elsewhere with those that it needs to run as fast. jaxlib 0.10 still has XLA's older generator, which
    halves the seconds (2.4 s for 5.3 s)."""
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, Any] = {"xla_backend_optimization_level": 0 if stage in ("keep", "settle", "unchosen") else 1}
    if version("jaxlib").startswith("0.10."):
        options |= {"xla_cpu_use_fusion_emitters": False, "xla_llvm_disable_expensive_passes": True}
    return options


def drawn(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Keys of the four drawing steps, and an order of the images, made on the host: sorts take long to compile."""
    seed = np.asarray(jax.random.key_data(key))
    return jax.random.split(key, 4), jnp.asarray(np.random.default_rng(seed).permutation(count), jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def mapped(network: PatchNetwork, method: str, params: Any, images: jax.Array, batch: int = 20) -> jax.Array:
    """network.`method` of images (N, H, W, C), batch by batch inside one program: (N, F) for "features".

    Small batches stay in a CPU's cache: 20 images at a time take a third of the time of 250.
    """

    def one(some: jax.Array) -> Any:
        return network.apply({"params": params}, some, method=method)

    count = images.shape[0]
    batch = min(batch, count)
    # Whole batches only: the last one is filled up with zeros, whose outputs are dropped.
    filled = jnp.pad(images, ((0, -count % batch), (0, 0), (0, 0), (0, 0)))
    outputs: jax.Array = jax.lax.map(one, filled.reshape(-1, batch, *images.shape[1:]))
    return outputs.reshape(-1, outputs.shape[-1])[:count]


def _targets(labels: jax.Array, network: PatchNetwork, config: Start) -> jax.Array:
    """Centred one-hot rows times the logit scale, (N, classes)."""
    one_hot = jax.nn.one_hot(labels, network.num_classes)
    return config.logit_scale * (one_hot - 1.0 / network.num_classes)


def _layers(network: PatchNetwork, filters: Filters) -> Any:
    """The parameters below the head: a - t_0 and -a - t_1 compare w . (x - m), of unit deviation, to the threshold."""
    thresholds = jnp.stack([network.threshold - filters.bias, network.threshold + filters.bias])
    return {"conv": {"kernel": filters.kernel}, "thresholds": thresholds}


def _proposal(config: Start, method: str) -> Callable[[jax.Array, Problem, int], jax.Array] | None:
    """First states of the head's bits: nearest rounding for the control of that name, none for random bits."""
    if method == "random-bits":
        return None
    return rounded if method == "rounded" else functools.partial(_sequential, config.temperatures)


def _sequential(ends: tuple[float, float], key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
    temperatures = jnp.geomspace(*ends, num_reads).at[0].set(0.0)
    return sequential(key, problem.quadratic, problem.encoding, num_reads, temperatures, regular=True)


def _squared_error(head: Any, features: jax.Array, targets: jax.Array) -> jax.Array:
    # Candidates differ in the fourth digit, which accelerators drop unless they are told not to.
    outputs = jnp.matmul(features, head["kernel"].reshape(-1, targets.shape[1]), precision="highest")
    predicted = outputs + head["bias"][None, :]
    return jnp.mean((predicted - targets) ** 2)
