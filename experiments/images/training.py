"""Does a start made of annealed bits beat Adam from scratch? One small network on CIFAR-10, for Table I.

    python -m experiments table1 --only cifar10-patch          3 paired seeds, about 30 s per run on 2 cores
    python -m experiments table1 --full --only cifar10-patch   10 paired seeds, about 120 s per run, every control

    adam              He initialisation, AdamW with a one-cycle schedule, tuned
    adam-data-start   the same descent from `images.start` with random filters and the continuous head
    hybrid            the same start with both choices annealed; its controls differ in the sampler alone

A run's length is a number of steps; seconds are measured. Curves are accuracies on 5,000 training images kept apart,
of copies made during training and evaluated after it; the test images are looked at once, at the end. Decoding is
charged to every run, and so are compile seconds.
"""

import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.prepare import is_prepared
from experiments.data.sources import Dataset, load, title
from experiments.harness.controls import SAMPLERS
from experiments.harness.presentation.cells import Cell, Comparison, Progress, Scale, unheard
from experiments.images import models
from experiments.images.start import Stages, Start, compiled, mapped, start
from qjax import Ledger
from qjax.descend.refine import Compiled, Refine
from qjax.rounds import Round

CONTROLS = ("random-bits", "greedy", "rounded", "shuffled")
METHODS = ("adam", "adam-data-start", "hybrid", *CONTROLS)
DEFAULT_METHODS = ("adam", "adam-data-start", "hybrid", "random-bits")
TUNED = Path(__file__).parent.parent / "tuned"


@dataclass(frozen=True)
class Training:
    """AdamW with a one-cycle schedule: the rate rises linearly from `first` of its peak over `warmup` of the steps,
    then falls linearly to `last` of it. head_scale: rate of the head over the convolution's. microbatch_size: images
    at a time, as many as a CPU's cache holds.
    """

    steps: int
    peak: float = 3e-3
    warmup: float = 0.2
    first: float = 0.1
    last: float = 0.02
    batch_size: int = 128
    weight_decay: float = 1e-2
    head_scale: float = 1.0
    microbatch_size: int = 16
    flip: bool = True


@dataclass(frozen=True)
class Images:
    """What decides the numbers of one run, method and seed apart; training_images, test_images: None for all."""

    training: Training
    start: Start | None = None
    dataset: str = "cifar10"
    network: str = "patch"
    training_images: int | None = None
    test_images: int | None = None
    validation: int = 5000
    points: int = 6


def configuration(scale: Scale, method: str) -> Images:
    """The tuned settings; digits where CIFAR-10 is not prepared. All starts from data train by the same settings."""
    name = data_name()
    settings = json.loads((TUNED / f"{name}.json").read_text())["settings"]
    length = "full" if scale == "full" else "default"
    kind = "adam" if method == "adam" else "start"
    training = Training(**settings[length][kind])
    config = Images(training, None if kind == "adam" else Start(**tuples(settings[length]["from_data"])))
    if name == "digits":
        config = replace(config, dataset=name, network="patch-small", validation=300)
    if scale == "smoke":
        config = replace(
            config,
            training=replace(training, steps=10),
            network="patch-small",
            training_images=1000,
            test_images=300,
            validation=300,
            points=2,
        )
        if config.start is not None:
            brief = replace(config.start, dictionary=32, choice_images=200, images=500, choice_sweeps=20, head_sweeps=5)
            config = replace(config, start=brief)
    return config


def cells(scale: Scale) -> list[Cell]:
    seeds = {"smoke": 1, "default": 3, "full": 10}[scale]
    methods = METHODS if scale == "full" else DEFAULT_METHODS
    return [
        _cell(scale, {"images": configuration(scale, method), "method": method}, seed)
        for seed in range(seeds)
        for method in methods
    ]


def _cell(scale: Scale, settings: dict[str, Any], seed: int) -> Cell:
    config: Images = settings["images"]
    method: str = settings["method"]
    return Cell(
        problem=problem_name(),
        method=method,
        seed=seed,
        config=settings,
        run=functools.partial(run, config, method, seed),
        sampler=SAMPLERS.get(method, "-"),
        cost={"smoke": 2.0, "default": 35.0, "full": 130.0}[scale],
        data=title(config.dataset),
        varied=functools.partial(_cell, scale),
    )


def comparisons(scale: Scale) -> list[Comparison]:
    """Smoke runs are too short for targets."""
    targets = () if scale == "smoke" else (("time_ratio", "<=", 0.6), ("gain", ">=", 3.0))
    controls = ("adam-data-start", *(CONTROLS if scale != "default" else ("random-bits",)))
    return [Comparison(problem_name(), "adam", "hybrid", controls, targets)]


def problem_name() -> str:
    return f"{data_name()}-patch"


def data_name() -> str:
    return "cifar10" if is_prepared("cifar10") else "digits"


@dataclass(frozen=True)
class Splits:
    """Pixels on the device: training, validation (the last rows of the training split), test; and what that took."""

    data: Dataset
    train: tuple[jax.Array, jax.Array]
    validation: tuple[jax.Array, np.ndarray[Any, Any]]
    test: tuple[jax.Array, np.ndarray[Any, Any]]
    seconds: float


@functools.lru_cache(maxsize=2)
def splits(dataset: str, validation: int, training_images: int | None, test_images: int | None) -> Splits:
    data = load(dataset)
    begin = time.perf_counter()
    cut = len(data.train_labels) - validation
    rows = slice(0, cut if training_images is None else min(cut, training_images))
    train = (jnp.asarray(data.train_images[rows]), jnp.asarray(data.train_labels[rows]))
    held = (jnp.asarray(data.train_images[cut:]), data.train_labels[cut:])
    test = (jnp.asarray(data.test_images[:test_images]), data.test_labels[:test_images])
    jax.block_until_ready((train, held[0], test[0]))
    return Splits(data, train, held, test, data.seconds + time.perf_counter() - begin)


def _pixels(config: Images) -> Splits:
    return splits(config.dataset, config.validation, config.training_images, config.test_images)


def run(config: Images, method: str, seed: int, progress: Progress = unheard) -> dict[str, Any]:
    """One cell. results: final (test accuracy, percent), validation, started (validation accuracy before the first
    step), and with a sampler the feasible fraction, fidelity and sampled energies of each QUBO.

    Errors: ValueError for an unknown method, or one whose start the configuration lacks.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    progress(0.0, "data")
    pixels = _pixels(config)
    network = models.get(config.network, num_classes=pixels.data.num_classes)
    assert isinstance(network, models.PatchNetwork)
    progress(0.05, "compile")
    programs = _programs(config, network, method)
    key = jax.random.key(seed)
    ledger = Ledger().add("data", pixels.seconds).add("compile", programs.seconds)
    rounds: dict[str, Round] = {}
    if method == "adam":
        params, ledger = ledger.run("other", programs.made["initial"], jax.random.fold_in(key, 0))
    else:
        progress(0.1, "start")
        started = start(programs.made, jax.random.fold_in(key, 2), *pixels.train)
        params, rounds = started.params, started.rounds
        ledger = ledger + started.ledger
    snapshots = [(ledger.total, params)]
    every = _chunk(config)
    begin, aside = time.perf_counter(), 0.0

    def standing() -> dict[str, float]:
        """The validation images stand for those of the test, which are looked at once, at the end."""
        accuracy = _accuracy(programs, snapshots[-1][1], *pixels.validation)
        return {"final": accuracy, "validation": accuracy}

    def watch(step: int, metrics: Any, now: Any) -> None:
        nonlocal aside
        reached = time.perf_counter()
        snapshots.append((ledger.total + reached - begin - aside, jax.tree.map(jnp.copy, now)))
        progress(0.2 + 0.7 * step / config.training.steps, "refine", standing)
        aside += time.perf_counter() - reached

    steps = config.training.steps
    refined, spent = Ledger().run(
        "refine", programs.train, jax.random.fold_in(key, 1), params, pixels.train, steps, watch
    )
    ledger = ledger.add("refine", spent.total - aside)
    final, ledger = ledger.run("evaluate", _accuracy, programs, refined.params, *pixels.test)
    # Every point as if the run had ended there: nothing is known before a last evaluation.
    last = ledger["evaluate"]
    curve = [[second + last, _accuracy(programs, tree, *pixels.validation)] for second, tree in snapshots]
    results: dict[str, Any] = {
        "final": final,
        "validation": curve[-1][1],
        "started": curve[0][1],
        "steps": refined.step,
        "training_loss": float(np.mean(refined.metrics["loss"][-every:])),
    }
    found = {name: outcome.to_dict() for name, outcome in rounds.items()}
    for name, outcome in found.items():
        results |= {f"{name}_{what}": outcome[what] for what in ("fidelity", "feasible")}
        results[f"{name}_energy"] = outcome["energies"][0]
    if "filters" in found:
        results["sampled_energies"] = found["filters"]["energies_read"]
    return {"results": results, "timed": {"seconds": ledger.total, "curve": curve, "phases": ledger.phases}}


@dataclass(frozen=True, eq=False)
class _Programs:
    """What every run of a configuration executes, compiled ahead of time, and the seconds that took.

    batch: images per call of `logits`.
    """

    made: dict[str, Any]
    train: Compiled
    logits: Any
    batch: int
    seconds: float


@functools.lru_cache(maxsize=8)
def _programs(config: Images, network: models.PatchNetwork, method: str) -> _Programs:
    """Compiled anew for every method, also what two share: each run is charged all that it needs."""
    pixels = _pixels(config)
    begin = time.perf_counter()
    key = jax.random.key(0)
    initial = jax.jit(lambda key: network.init(key, pixels.train[0][:1])["params"])
    params = jax.eval_shape(initial, key)
    descent = Refine(
        functools.partial(_loss, network),
        optimizer(config.training),
        batch_size=config.training.batch_size,
        microbatch_size=config.training.microbatch_size,
        augment=_flipped if config.training.flip else None,
        chunk_size=_chunk(config),
    )
    with ThreadPoolExecutor(2) as pool:
        train = pool.submit(descent.compile, params, pixels.train)
        logits = pool.submit(mapped.lower(network, "__call__", params, pixels.validation[0]).compile)
        if method == "adam":
            made = {"initial": initial.lower(key).compile()}
        elif config.start is None:
            raise ValueError(f"method {method} needs a configuration with a start")
        else:
            made = compiled(Stages(config.start, network, method), key, *pixels.train)
    return _Programs(made, train.result(), logits.result(), config.validation, time.perf_counter() - begin)


def _chunk(config: Images) -> int:
    return max(1, config.training.steps // config.points)


def optimizer(training: Training) -> optax.GradientTransformation:
    """AdamW, decay decoupled, with the layers' rates in proportion."""
    scales = {"conv": 1.0, "thresholds": 1.0, "head": training.head_scale}

    def scaled(updates: Any, params: Any) -> Any:
        return {name: jax.tree.map(lambda u, s=scales[name]: u * s, updates[name]) for name in updates}

    rise = max(1, round(training.warmup * training.steps))
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(training.first * training.peak, training.peak, rise),
            optax.linear_schedule(training.peak, training.last * training.peak, max(1, training.steps - rise)),
        ],
        [rise],
    )
    return optax.chain(
        optax.scale_by_adam(b2=0.99),
        optax.add_decayed_weights(training.weight_decay),
        optax.stateless(scaled),
        optax.scale_by_learning_rate(schedule),
    )


def _loss(network: models.PatchNetwork, params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    images, labels = batch
    logits = network.apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _flipped(key: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    images, labels = batch
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images), labels


def _accuracy(programs: _Programs, params: Any, images: jax.Array, labels: np.ndarray[Any, Any]) -> float:
    """Percent classified correctly, by the program compiled for as many images as the validation split has."""
    batch = programs.batch
    filled = jnp.pad(images, ((0, -len(labels) % batch), (0, 0), (0, 0), (0, 0)))
    logits = [np.asarray(programs.logits(params, filled[i : i + batch])) for i in range(0, len(filled), batch)]
    return 100.0 * float(np.mean(np.concatenate(logits).argmax(1)[: len(labels)] == labels))


def tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a JSON file with its lists as tuples, which can be hashed."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
