"""The network that all methods begin with is trained once, kept, and found again."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import artefacts
from experiments.images.deep import training
from experiments.images.deep.lowbit import checkpoint
from experiments.images.deep.recipe import Recipe
from experiments.images.deep.training import Deep

CONFIG = Deep(Recipe(epochs=1), dataset="digits")
VARIABLES = {"params": {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, "batch_stats": {"b": {"mean": jnp.ones(3)}}}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were trained."""
    seen: list[int] = []

    def run(config: Deep, method: str, seed: int, progress: Any, folder: Any, keep: Any) -> Any:
        seen.append(seed)
        progress(0.5, "refine", lambda: {"final": 0.0})
        keep(VARIABLES)
        return {"results": {"final": 61.0, "validation": 60.0}, "timed": {"seconds": 7.0}}

    monkeypatch.setattr(training, "run", run)
    monkeypatch.setattr(checkpoint, "_trained", {})
    return seen


def test_it_is_trained_once_for_a_folder(trainings: list[int], tmp_path: Path, monkeypatch: Any) -> None:
    heard: list[Any] = []
    with artefacts.kept_in(tmp_path / "artefacts"):
        first = checkpoint.checkpoint(CONFIG, "adam", 0, lambda *said: heard.append(said))
        assert checkpoint.checkpoint(CONFIG, "adam", 0) is first
        monkeypatch.setattr(checkpoint, "_trained", {})  # another process
        again = checkpoint.checkpoint(CONFIG, "adam", 0)
        assert trainings == [0] and again[1:] == first[1:] == (61.0, 60.0, 7.0)
        np.testing.assert_array_equal(again.variables["params"]["a"]["kernel"], VARIABLES["params"]["a"]["kernel"])
        np.testing.assert_array_equal(again.variables["batch_stats"]["b"]["mean"], np.ones(3))
        checkpoint.checkpoint(CONFIG, "adam", 1)
        assert trainings == [0, 1] and len(list((tmp_path / "artefacts").glob("*.npz"))) == 2
    assert heard == [(0.5, "checkpoint")]  # its evaluations end no trial


def test_a_damaged_file_is_trained_again(trainings: list[int], tmp_path: Path, monkeypatch: Any) -> None:
    with artefacts.kept_in(tmp_path):
        checkpoint.checkpoint(CONFIG, "adam", 0)
        (path,) = tmp_path.glob("*.npz")
        for damage in (b"", path.read_bytes()[:-200]):
            path.write_bytes(damage)
            monkeypatch.setattr(checkpoint, "_trained", {})
            checkpoint.checkpoint(CONFIG, "adam", 0)
    assert trainings == [0, 0, 0]


def test_without_a_folder_it_lives_as_long_as_the_process(trainings: list[int]) -> None:
    assert artefacts.folder() is None
    assert checkpoint.checkpoint(CONFIG, "adam", 0) is checkpoint.checkpoint(CONFIG, "adam", 0)
    assert trainings == [0]
