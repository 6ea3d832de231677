"""The rows of Table I on a network of several convolutions: which runs there are, and their settings.

    cifar10-conv         with --full, each run some minutes on 2 cores
    cifar10-conv-short   one epoch of one pair, in the default table: shows that the rows run and how far that goes
    cifar100-conv        with --full: the same rows and settings on other images, one seed
    cifar10-airbench, cifar10-resnet
                         with --full, on accelerators: the same settings, not tuned for these networks, one seed

They need their data set prepared: the digits are too small for such a network.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from experiments.data.prepare import is_prepared
from experiments.data.sources import title
from experiments.harness.controls import SAMPLERS
from experiments.harness.presentation.cells import Cell, Comparison, Scale
from experiments.images.deep.recipe import Recipe
from experiments.images.deep.training import CONTROLS, STARTS, Deep, run
from experiments.images.start import Start
from experiments.images.training import tuples

TUNED = Path(__file__).parent.parent.parent / "tuned" / "conv.json"
SHORT = ("adam", "hybrid")
# Of the full run: three where pairs are compared, one where a row is looked at.
SEEDS = {method: 3 if method in ("adam", "adam-data-start", "hybrid", "random-bits") else 1 for method in STARTS}
ONE_SEED = dict.fromkeys(STARTS, 1)


@dataclass(frozen=True)
class Plan:
    """The rows of one problem. network: "" for the tuned one; seeds: of each method; accelerated: not for CPUs."""

    dataset: str
    seeds: Mapping[str, int]
    network: str = ""
    accelerated: bool = False


PLANS = {
    "cifar10-conv": Plan("cifar10", SEEDS),
    "cifar100-conv": Plan("cifar100", ONE_SEED),
    "cifar10-airbench": Plan("cifar10", ONE_SEED, "airbench", accelerated=True),
    "cifar10-resnet": Plan("cifar10", ONE_SEED, "resnet", accelerated=True),
}
BRIEF = {"cifar10-conv-short": Plan("cifar10", dict.fromkeys(SHORT, 1))}


def configuration(scale: Scale, method: str, plan: Plan = PLANS["cifar10-conv"]) -> Deep:
    """Settings of tuned/conv.json, the same for all starts from data; smoke runs are a few steps of a small network."""
    settings = json.loads(TUNED.read_text())["settings"]
    kind = ("muon" if "muon" in method else "adam") + ("-start" if STARTS[method] else "")
    recipe = Recipe(**settings[kind])
    if scale != "full":
        recipe = replace(recipe, epochs=1)
    start = Start(**tuples(settings["from_data"])) if STARTS[method] else None
    if scale != "smoke":
        return Deep(recipe, start, plan.dataset, plan.network or settings["network"])
    if start is not None:
        start = replace(start, dictionary=32, choice_images=200, choice_sweeps=20)
    brief = Deep(replace(recipe, batch_size=128), start, plan.dataset, network="conv-small")
    return replace(brief, training_images=640, test_images=300, validation=300, points=2)


def cells(scale: Scale) -> list[Cell]:
    return [
        _cell(scale, problem, {"deep": configuration(scale, method, plan), "method": method}, seed)
        for problem, plan in _plans(scale).items()
        for seed in range(max(plan.seeds.values()))
        for method in plan.seeds
        if seed < plan.seeds[method]
    ]


def comparisons(scale: Scale) -> list[Comparison]:
    """The full run of cifar10-conv is judged by the paper's own figures, nothing else is."""
    if scale != "full":
        return [Comparison(problem, "adam", "hybrid") for problem in _plans(scale)]
    targets = (("baseline_final", ">=", 85.2), ("gain", ">=", 0.0), ("time_ratio", "<=", 0.79), ("gain", ">=", 2.3))
    start = ("start from data", "adam-data-start", "adam"), ("annealer's choice", "hybrid", "adam-data-start")
    muon = (
        ("optimizer", "muon", "adam"),
        ("start from data", "muon-data-start", "muon"),
        ("annealer's choice", "hybrid-muon", "muon-data-start"),
    )
    made = []
    for problem in PLANS:
        judged = targets if problem == "cifar10-conv" else ()
        made.append(Comparison(problem, "adam", "hybrid", ("adam-data-start", *CONTROLS), judged, start))
        made.append(Comparison(problem, "adam", "hybrid-muon", ("muon-data-start",), shares=muon))
    return made


def _plans(scale: Scale) -> Mapping[str, Plan]:
    return PLANS if scale == "full" else BRIEF


def _cell(scale: Scale, problem: str, settings: dict[str, Any], seed: int) -> Cell:
    config: Deep = settings["deep"]
    method: str = settings["method"]
    here = is_prepared(config.dataset)
    return Cell(
        problem=problem,
        method=method,
        seed=seed,
        config=settings,
        run=functools.partial(run, config, method, seed),
        sampler=SAMPLERS.get(STARTS[method], "-"),
        cost=5.0 if scale == "smoke" else 25.0 * config.recipe.epochs,
        data=title(config.dataset) if here else "",
        varied=functools.partial(_cell, scale, problem),
        resumes=scale == "full",
        lacks=_lacks(_plans(scale)[problem]),
    )


def _lacks(plan: Plan) -> str:
    if not is_prepared(plan.dataset):
        return f"{plan.dataset} is not prepared: python experiments/data/prepare.py {plan.dataset}"
    if plan.accelerated and jax.default_backend() == "cpu":
        return f"{plan.network} needs an accelerator"
    return ""
