"""Table I's images rows on the embedded digits: every method runs, repeats, and its seconds add up."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.controls import SAMPLERS
from experiments.images import models, training, tune
from experiments.images.start import Stages, Start, compiled, mapped, start

pytestmark = [pytest.mark.optimised, pytest.mark.slow]

START = Start(dictionary=64, choice_images=300, choice_reads=4, choice_sweeps=300, images=600, head_sweeps=3)


@pytest.fixture(autouse=True)
def digits_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def config(from_data: bool) -> training.Images:
    brief = training.Training(steps=20, batch_size=64, flip=False)
    return training.Images(brief, START if from_data else None, "digits", "patch-small", 1000, 100, 300, 2)


@pytest.mark.parametrize("method", ["adam", "hybrid"])
def test_a_run_repeats_bit_for_bit_and_its_phases_add_up(method: str) -> None:
    first, second = (training.run(config(method != "adam"), method, 3) for _ in range(2))
    assert json.dumps(first["results"]) == json.dumps(second["results"])
    timed = first["timed"]
    assert sum(timed["phases"].values()) == pytest.approx(timed["seconds"])
    seconds = [second for second, _ in timed["curve"]]
    # The curve's clock starts a call earlier than the ledger's.
    assert seconds == sorted(seconds) and seconds[-1] <= timed["seconds"] + 1e-2
    assert first["timed"]["phases"]["compile"] == second["timed"]["phases"]["compile"] > 0


def test_standings_are_those_of_the_curve_and_change_nothing_but_may_end_the_run() -> None:
    heard: list[tuple[float, float]] = []

    def listening(fraction: float, text: str = "", standing: Any = None) -> None:
        if standing is not None:
            heard.append((fraction, standing()["final"]))

    listened, alone = training.run(config(False), "adam", 3, listening), training.run(config(False), "adam", 3)
    assert listened["results"] == alone["results"]
    assert [value for _, value in heard] == [value for _, value in listened["timed"]["curve"][1:]] and len(heard) == 2
    assert [fraction for fraction, _ in heard] == pytest.approx([0.55, 0.9])

    def ending(fraction: float, text: str = "", standing: Any = None) -> None:
        if standing is not None:
            raise InterruptedError(f"at {fraction:.2f}")

    with pytest.raises(InterruptedError, match=r"at 0\.55"):
        training.run(config(False), "adam", 3, ending)


def test_a_start_from_data_is_far_better_than_none_before_any_step() -> None:
    started = training.run(config(True), "adam-data-start", 0)["results"]["started"]
    plain = training.run(config(False), "adam", 0)["results"]["started"]
    # Ten classes: an untrained network is near 10 %; measured for the start: 95 % and more.
    assert started > 80 and plain < 40


@functools.cache
def begun(method: str) -> tuple[Any, Any]:
    """The start that a method gives, made twice."""
    images, labels = training._pixels(config(True)).train
    key = jax.random.key(1)
    programs = compiled(Stages(START, models.get("patch-small"), method), key, images, labels)
    return start(programs, key, images, labels), start(programs, key, images, labels)


@pytest.mark.parametrize("method", SAMPLERS)
def test_every_sampler_keeps_the_stated_number_of_atoms(method: str) -> None:
    network: Any = models.get("patch-small")
    made, again = begun(method)
    jax.tree.map(np.testing.assert_array_equal, made.params, again.params)
    kernel = np.asarray(made.params["conv"]["kernel"]).reshape(-1, network.filters)
    assert (np.asarray(made.rounds["filters"].bits, int).sum(1) == network.filters).all()
    # Two windows of the digits may be equal.
    assert np.unique(kernel, axis=1).shape[1] >= network.filters - 2
    head = np.asarray(made.params["head"]["kernel"])
    assert max(len(np.unique(column.round(4))) for column in head.T) <= 2**START.bits + 1
    assert set(made.rounds) == {"filters", "head"}


def test_the_annealed_filters_have_lower_energy_than_random_ones() -> None:
    annealed, random = (begun(method)[0].rounds for method in ("hybrid", "random-bits"))
    for name in ("filters", "head"):
        assert float(annealed[name].energies[0]) < float(random[name].energies[0])


def test_mapped_fills_up_the_last_batch_without_a_trace() -> None:
    network: Any = models.get("patch-small")
    images = training._pixels(config(True)).train[0][:7]
    params = jax.jit(network.init)(jax.random.key(0), images)["params"]
    whole = jax.jit(network.apply)({"params": params}, images)
    np.testing.assert_allclose(mapped(network, "__call__", params, images, 4), whole, rtol=1e-4, atol=1e-4)


def test_mirroring_flips_whole_images_left_to_right() -> None:
    images = jnp.arange(64, dtype=jnp.uint8).reshape(4, 4, 4, 1)
    flipped, _ = training._flipped(jax.random.key(0), (images, jnp.zeros(4, jnp.int32)))
    for before, after in zip(np.asarray(images), np.asarray(flipped), strict=True):
        assert (after == before).all() or (after == before[:, ::-1]).all()


def test_cells_are_paired_and_named_after_their_copy() -> None:
    cells = training.cells("full")
    assert {(cell.problem, cell.data) for cell in cells} == {("digits-patch", "digits (scikit-learn)")}
    for method in training.METHODS:
        assert sorted(cell.seed for cell in cells if cell.method == method) == list(range(10))
    assert len({cell.key() for cell in cells}) == len(cells)


def test_unknown_method_and_missing_start_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown method 'adamw'"):
        training.run(config(False), "adamw", 0)
    with pytest.raises(ValueError, match="needs a configuration with a start"):
        training.run(config(False), "hybrid", 0)


def test_tuning_keeps_the_best_of_as_many_trials_as_asked() -> None:
    best, found = tune.search(config(False), "adam", 2)
    top = max(found, key=lambda trial: trial["validation"])
    assert len(found) == 2 and top["settings"]["peak"] == best.peak
    with pytest.raises(ValueError, match="trials must be at least 1"):
        tune.search(config(False), "adam", 0)
