"""Does the annealer choose better bits than its controls? A head of one bit per weight on cached features.

    weights of class c in {-s_c, +s_c};   loss = cross-entropy;   H = Gauss-Newton at the continuous solution
    hybrid:   QUBO of all weights -> sampler -> best candidate by true training loss -> scales -> again, re-centred
    refine:   straight-through training (Bengio et al. 2013), the same for every method, lowest training loss kept

Controls differ from `hybrid` in the sampler alone: random bits, greedy descent, the rounded continuous solution
(`rounded`), and the same annealer on a shuffled QUBO. Everything else, first states, reads, picking by true loss and
refinement, is shared. Two rows have no QUBO: `straight-through` trains from the continuous weights with more steps,
`continuous` is the head before its weights became bits, printed and not a competitor.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import prepare, sources
from experiments.harness.account import Account
from experiments.harness.controls import SAMPLERS, named, rounded, sampler_of
from experiments.harness.presentation.cells import Cell, Comparison, Progress, Scale, unheard
from experiments.images import straight_through
from experiments.images.patch_features import NetworkFeatures, PatchFeatures, features
from experiments.images.straight_through import Schedule
from qjax import (
    Encoding,
    Ledger,
    Quadratic,
    Samples,
    Sign,
    encode,
    gauss_newton,
    samplers,
)
from qjax.formulate.curvature import Matrix
from qjax.formulate.rounding import sequential
from qjax.hybrid import Sample, formulated, initial_states, picked
from qjax.rounds import Problem, Round

CONTROLS = tuple(method for method in SAMPLERS if method != "hybrid")
METHODS = (*SAMPLERS, "straight-through", "continuous")
TUNED = Path(__file__).parent.parent / "tuned" / "lowbit.json"


@dataclass(frozen=True)
class LowBit:
    """Everything that decides the numbers of one run. temperatures: of the reads' first states, from the coldest to the
    hottest, in units of the loss; curvature_rows: images the Gauss-Newton matrix is averaged over."""

    dataset: str = "cifar10"
    classes: int = 10
    features: PatchFeatures = field(default_factory=PatchFeatures)
    num_rounds: int = 2
    num_reads: int = 16
    sampler: samplers.Sampler = field(default_factory=lambda: samplers.Anneal(num_sweeps=500))
    curvature_rows: int = 10000
    damping: float = 1e-4
    temperatures: tuple[float, float] = (1e-6, 1e-4)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")


def configuration(scale: Scale) -> LowBit:
    """The tuned settings, shortened for a smoke run; digits where CIFAR-10 is not prepared."""
    tuned = json.loads(TUNED.read_text())["settings"]
    schedule = Schedule(**tuned.pop("schedule"))
    tuned |= {"temperatures": tuple(tuned["temperatures"]), "sampler": samplers.get(**tuned["sampler"])}
    config = LowBit(**tuned, schedule=schedule)
    if scale == "smoke":
        brief = replace(schedule, continuous_steps=50, scale_steps=10, steps=50, long_steps=50)
        config = replace(
            config,
            num_rounds=1,
            num_reads=4,
            sampler=samplers.of_length(config.sampler, 50),
            curvature_rows=2000,
            schedule=brief,
        )
    if not prepare.is_prepared("cifar10"):
        small = PatchFeatures(size=3, stride=1, shown=300, validation=300)
        config = replace(config, dataset="digits", features=small, curvature_rows=1000)
    few = {
        "smoke": {"networks": 1, "filters": 8, "limit": 4000, "validation": 300},
        "default": {"networks": 2},
        "full": {"networks": 4},
    }
    return replace(config, features=replace(config.features, **few[scale]))


def cells(scale: Scale) -> list[Cell]:
    config = configuration(scale)
    seeds = {"smoke": 1, "default": 3, "full": 10}[scale]
    # Shuffled couplings are another program of the annealer to compile, which a smoke run has already seen run.
    methods = [method for method in METHODS if scale != "smoke" or method != "shuffled"]
    return [_cell(scale, {"lowbit": config, "method": method}, seed) for seed in range(seeds) for method in methods]


def _cell(scale: Scale, settings: dict[str, Any], seed: int) -> Cell:
    config: LowBit = settings["lowbit"]
    method: str = settings["method"]
    bits = config.classes * config.features.filters * config.features.grid**2
    return Cell(
        problem=_problem_name(config),
        method=method,
        seed=seed,
        config=settings,
        run=functools.partial(run, config, method, seed),
        sampler=named(method, config.sampler),
        cost=1.0 if scale == "smoke" else 2.0 * config.features.networks,
        data=sources.title(config.dataset),
        tags={"bits": bits, "networks": config.features.networks},
        varied=functools.partial(_cell, scale),
    )


def comparisons(scale: Scale) -> list[Comparison]:
    name = _problem_name(configuration(scale))
    return [Comparison(name, "straight-through", "hybrid", CONTROLS, (("annealer_gain", ">", 0.0),))]


def run(config: LowBit, method: str, seed: int, progress: Progress = unheard) -> dict[str, Any]:
    """One cell: features, continuous head, rounds with the method's sampler, refinement, one look at the test images.

    results: final (accuracy in percent of the kept state), unrefined (before refinement), refined (its last state,
    whether kept or not), validation, train_loss; with a QUBO also fidelity, ratio, accepted and sampled_energies.
    Errors: ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    progress(0.0, "features")
    found = features(config.dataset, config.features, seed)
    account = Account(Ledger().add("data", found.decoding_seconds + found.seconds))
    outcomes: list[dict[str, Any]] = []
    energies: list[Any] = []
    for index, network in enumerate(found.networks):
        progress((index + 0.5) / len(found.networks), f"network {index + 1}")
        key = jax.random.fold_in(jax.random.key(seed), index)
        outcomes.append(_trained(config, method, key, network, account))
        energies.append(outcomes[-1].pop("sampled_energies", None))
        with account.aside():
            progress((index + 1) / len(found.networks), "", functools.partial(_means, outcomes))
    results: dict[str, Any] = dict(_means(outcomes))
    if energies[0] is not None:
        results["sampled_energies"] = energies[0]
    ledger = account.close()
    timed = {"seconds": ledger.total, "curve": [[ledger.total, results["final"]]], "phases": ledger.phases}
    return {"results": results, "timed": timed}


def _means(outcomes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([outcome[name] for outcome in outcomes])) for name in outcomes[0]}


def _trained(config: LowBit, method: str, key: jax.Array, network: NetworkFeatures, account: Account) -> dict[str, Any]:
    """One network's numbers."""
    schedule, train = config.schedule, network.train
    key_start, key_refine, *keys = jax.random.split(key, 2 + config.num_rounds)
    params = straight_through.continuous(schedule, key_start, train, config.classes, account)
    # Numbers of the rounds, not the rounds: those hold parameters and states on the device.
    annealed: dict[str, Any] = {}
    accepted = 0
    for round_key in keys if method in SAMPLERS else ():
        outcome = _round(config, method, round_key, params, train, not annealed, account)
        params = straight_through.refit(schedule, round_key, outcome.params, train, account)
        accepted += bool(outcome.accepted)
        annealed = annealed or _numbers(outcome)
    loop = {"continuous": None, "straight-through": straight_through.trained}.get(method, straight_through.refined)
    kept, last = (params, params) if loop is None else loop(schedule, key_refine, params, train, account)
    numbers: dict[str, Any] = {
        name: float(account.call("evaluate", straight_through.accuracy, state, network.test))
        for name, state in (("final", kept), ("refined", last), ("unrefined", params))
    }
    numbers["validation"] = float(account.call("evaluate", straight_through.accuracy, kept, network.validation))
    numbers["train_loss"] = float(account.call("evaluate", straight_through.head_loss, kept, train))
    return numbers | annealed | ({"accepted": float(accepted)} if annealed else {})


def _numbers(outcome: Round) -> dict[str, Any]:
    found = outcome.to_dict()
    energies = found["energies_read"]
    named = {name: found[name] for name in ("fidelity", "ratio")}
    return named | {"best_energy": min(energies), "sampled_energies": energies}


@dataclass(frozen=True)
class Formulation:
    """(key, params, features, labels) -> the round's problem, first states, rounded states, as one program.

    First states are Babai's, Klein's at rising temperatures, and the current weights rounded. Rounded states are the
    continuous minimiser rounded, in every read: the whole sample of the control `rounded`.
    """

    config: LowBit

    def __call__(
        self, key: jax.Array, params: Any, x: jax.Array, y: jax.Array
    ) -> tuple[Problem, jax.Array | None, jax.Array | None]:
        problem = formulated(functools.partial(self._formulate, x, y), params, 1.0)
        reads = self.config.num_reads
        first = initial_states(key, problem, reads, self._proposed)
        return problem, first, initial_states(key, problem, reads, rounded)

    def _formulate(self, x: jax.Array, y: jax.Array, params: Any, radius: float) -> tuple[Quadratic, Encoding]:
        """Value and gradient over all images, the Gauss-Newton matrix over the first `curvature_rows`."""
        rows = self.config.curvature_rows
        exact = gauss_newton(_logits, _cross_entropy, params, x, y, leaves=("kernel",))
        some = gauss_newton(_logits, _cross_entropy, params, x[:rows], y[:rows], leaves=("kernel",))
        kernel = exact.centre["kernel"]

        def column(unit: jax.Array) -> jax.Array:
            return some.curvature.product({"kernel": unit.reshape(kernel.shape)})["kernel"].reshape(-1)

        # Formed once: the pull-back, the rounding and the minimiser all use it.
        eye = jnp.eye(kernel.size, dtype=kernel.dtype)
        matrix = jax.lax.map(column, eye, batch_size=64)
        curvature = Matrix((0.5 * (matrix + matrix.T) + self.config.damping * eye) / radius)
        quadratic = Quadratic(exact.centre, exact.value, exact.gradient, curvature)
        return quadratic, encode(params, {"kernel": Sign(step=params["step"][None, :])})

    def _proposed(self, key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
        temperatures = jnp.geomspace(*self.config.temperatures, num_reads).at[0].set(0.0)
        states = sequential(key, problem.quadratic, problem.encoding, num_reads, temperatures)
        return states.at[-1].set(problem.encoding.nearest(problem.encoding.params))


@dataclass(frozen=True)
class _Pick:
    accept: Literal["better", "always"]

    def __call__(self, params: Any, problem: Problem, samples: Samples, x: jax.Array, y: jax.Array) -> Round:
        reads = samples.energies.shape[-1]
        return picked(lambda p: straight_through.head_loss(p, (x, y)), params, problem, samples, reads, self.accept)


def _round(
    config: LowBit,
    method: str,
    key: jax.Array,
    params: Any,
    train: straight_through.Examples,
    first: bool,
    account: Account,
) -> Round:
    """One outer round: the weights become bits in the first, later only what lowers the training loss is taken."""
    key_start, key_sample = jax.random.split(key)
    problem, first_states, nearest = account.call("formulate", Formulation(config), key_start, params, *train)
    start = nearest if method == "rounded" else first_states
    sampler = sampler_of(method, config.sampler)
    sample = Sample(sampler, config.num_reads)
    samples = account.call("anneal", sample, key_sample, *sample.given(problem, start))
    outcome: Round = account.call("decode", _Pick("always" if first else "better"), params, problem, samples, *train)
    return outcome


def _logits(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return straight_through.logits(params, x)


def _cross_entropy(logits: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return straight_through.cross_entropy(logits, y)


def _problem_name(config: LowBit) -> str:
    return f"{config.dataset}-patch-1bit"
