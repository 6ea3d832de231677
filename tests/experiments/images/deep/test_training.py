"""Runs of a network of several convolutions: every method's cell, its start, its curve, its seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.data.prepare import is_prepared
from experiments.data.sources import Dataset
from experiments.harness import pieces
from experiments.harness.presentation.cells import UsageError, check_outcome
from experiments.harness.presentation.driver import select
from experiments.images import training as image_training
from experiments.images.deep import rows, training

needs_images = pytest.mark.skipif(not is_prepared("cifar10"), reason="CIFAR-10 is not prepared")


@needs_images
@pytest.mark.slow
@pytest.mark.parametrize("method", ["adam", "adam-data-start", "hybrid", "greedy", "hybrid-muon"])
def test_a_run_of_each_kind(method: str) -> None:
    config = rows.configuration("smoke", method)
    seen: list[float] = []

    def progress(fraction: float, text: str = "", standing: Any = None) -> None:
        if standing is not None:
            seen.append(standing()["validation"])

    outcome = training.run(config, method, 0, progress)
    cell = next(cell for cell in rows.cells("full") if cell.method == method)
    check_outcome(cell, outcome)
    results, timed = outcome["results"], outcome["timed"]
    assert results["steps"] == 5 and len(timed["curve"]) == 1 + len(seen)
    assert [accuracy for _, accuracy in timed["curve"]][1:] == seen and seen[-1] == results["validation"]
    seconds = [second for second, _ in timed["curve"]]
    assert seconds == sorted(seconds) and seconds[-1] <= timed["seconds"] + 0.1
    assert ("sampled_energies" in results) == (method in ("hybrid", "greedy", "hybrid-muon"))
    if method == "hybrid":
        assert results["feasible"] > 0 and timed["phases"]["anneal"] > 0
    again = training.run(config, method, 0)
    assert again["results"] == results
    # Nothing is compiled again, and all of it is charged again.
    assert again["timed"]["phases"]["compile"] == timed["phases"]["compile"]


@needs_images
@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SECONDS", 0.0)  # a piece a chunk
    config = rows.configuration("smoke", "hybrid")
    whole = training.run(config, "hybrid", 0)

    def killed(fraction: float, text: str = "", standing: Any = None) -> None:
        if fraction > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run(config, "hybrid", 0, killed, tmp_path / "state")
    resumed = training.run(config, "hybrid", 0, folder=tmp_path / "state")
    assert resumed["results"] == whole["results"]
    curves = ([value for _, value in run["timed"]["curve"]] for run in (resumed, whole))
    assert next(curves) == next(curves)
    seconds = [second for second, _ in resumed["timed"]["curve"]]
    assert seconds == sorted(seconds) and resumed["timed"]["repeated_seconds"] > 0
    check_outcome(next(cell for cell in rows.cells("full") if cell.method == "hybrid"), resumed)


@needs_images
def test_rows_share_their_settings_and_differ_in_the_start() -> None:
    full = rows.cells("full")
    full = [cell for cell in full if cell.problem == "cifar10-conv"]
    assert {cell.method for cell in full} == set(training.STARTS)
    count = {method: sum(cell.method == method for cell in full) for method in training.STARTS}
    assert count == rows.SEEDS
    adam, hybrid, greedy = (rows.configuration("full", method) for method in ("adam", "hybrid", "greedy"))
    assert adam.start is None and hybrid == greedy and replace(hybrid, start=None, recipe=adam.recipe) == adam
    short = rows.cells("default")
    assert [(cell.problem, cell.method, cell.seed) for cell in short] == [
        ("cifar10-conv-short", "adam", 0),
        ("cifar10-conv-short", "hybrid", 0),
    ]
    assert short[0].config["deep"].recipe.epochs == 1


def test_other_images_are_an_entry_that_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    cells = rows.cells("full")
    assert {cell.problem for cell in cells} == set(rows.PLANS) and all(cell.lacks for cell in cells)
    with pytest.raises(UsageError, match="cifar100-conv: cifar100 is not prepared: python"):
        select(cells, ["cifar100-conv"])
    assert select(cells, []) == []


@needs_images
def test_networks_for_accelerators_are_refused_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(UsageError, match="cifar10-resnet: resnet needs an accelerator"):
        select(rows.cells("full"), ["cifar10-resnet"])


@pytest.mark.slow
def test_a_run_on_images_of_the_shape_of_cifar100(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for count in (1000, 300))
    labels = [np.arange(len(images), dtype=np.int32) % 100 for images in (train, test)]
    images = Dataset("cifar100", "noise", 100, train, labels[0], test, labels[1])
    monkeypatch.setattr(image_training, "load", lambda name: images)
    outcome = training.run(rows.configuration("smoke", "hybrid", rows.PLANS["cifar100-conv"]), "hybrid", 0)
    assert outcome["results"]["steps"] == 5 and 0.0 <= outcome["results"]["final"] <= 10.0
    assert outcome["results"]["training_loss"] > 3.0  # of 100 classes; ten have log 10 = 2.3


def test_accuracy_counts_whole_and_partial_batches() -> None:
    labels = np.arange(750) % 10
    images = np.zeros((750, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.where(np.arange(750) < 600, labels, (labels + 1) % 10)
    assert training.accuracy(lambda variables, some: some[:, 0, 0, 0], {}, images, labels) == 80.0


def test_mistakes_are_said() -> None:
    with pytest.raises(ValueError, match="unknown method 'adm'; there are adam"):
        training.run(training.Deep(training.Recipe()), "adm", 0)
