"""BatchNorm's statistics by the weights as they are."""

from typing import Any

import jax
import numpy as np
import pytest

from experiments.images.deep import statistics
from experiments.images.deep.statistics import PART, Statistics
from tests.experiments.images.deep.conftest import IMAGES, NETWORK


def test_statistics_are_those_that_training_moves_towards(variables: Any) -> None:
    program = jax.jit(Statistics(NETWORK))
    _, moved = NETWORK.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    found = program(variables, IMAGES)
    for name in ("block0", "block1"):
        old, new = variables["batch_stats"][name]["norm"], moved["batch_stats"][name]["norm"]
        for leaf in ("mean", "var"):
            expected = (new[leaf] - 0.9 * old[leaf]) / 0.1
            np.testing.assert_allclose(found[name]["norm"][leaf], expected, rtol=1e-3, atol=1e-4)


def test_pooled_statistics_are_those_of_all_rows_together() -> None:
    rows = np.random.default_rng(0).normal(1.0, 2.0, (3, 50, 4))
    parts = [{"a": {"norm": {"mean": part.mean(0), "var": part.var(0)}}} for part in rows]
    found = statistics.pooled(parts)["a"]["norm"]
    np.testing.assert_allclose(found["mean"], rows.mean((0, 1)))
    np.testing.assert_allclose(found["var"], rows.reshape(-1, 4).var(0))


@pytest.mark.parametrize(("count", "used"), [(7, 7), (PART, PART), (2 * PART + 3, 2 * PART)])
def test_estimates_are_of_whole_parts(count: int, used: int) -> None:
    rows = np.random.default_rng(0).normal(1.0, 2.0, (count, 4))
    given = {"params": 5, "batch_stats": None}

    def program(variables: Any, images: Any) -> Any:
        assert variables is given
        return {"norm": {"mean": images.mean(0), "var": images.var(0)}}

    found = statistics.estimated(program, rows, given)
    assert found["params"] == 5
    np.testing.assert_allclose(found["batch_stats"]["norm"]["mean"], rows[:used].mean(0))
    np.testing.assert_allclose(found["batch_stats"]["norm"]["var"], rows[:used].var(0))
