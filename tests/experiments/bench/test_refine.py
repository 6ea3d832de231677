"""The benchmark of refine measures what it says: two loops over the same network, and a verdict."""

import jax
import numpy as np
import pytest

from experiments.bench.refine import BenchRefine, bench_refine, table


def test_rows_ratio_and_verdict() -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic (decay**count), in the hand-written loop
        found = bench_refine(BenchRefine(networks=("mlp",), batch_size=4, num_images=16, steps=1, repeats=2))
    (row,) = found["rows"]
    refined, handwritten = (np.asarray(row["rates"][loop]) for loop in ("refine", "handwritten"))
    assert len(refined) == len(handwritten) == 2
    assert row["ratio"] == pytest.approx(np.median(refined / handwritten))
    assert found["target"]["met"] == (row["ratio"] >= 0.9)
    assert "| mlp |" in table(found)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="there are"):
        bench_refine(BenchRefine(networks=("resnet",)))
