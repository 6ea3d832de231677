"""The benchmark of refine measures what it says: loops over the same network, and a verdict."""

import jax
import numpy as np
import pytest

from experiments.bench.refine import BOUND, BenchRefine, bench_refine, table


@pytest.mark.slow
def test_rows_ratios_and_verdict() -> None:
    config = BenchRefine(networks=("mlp", "resnet"), batch_size=4, num_images=16, steps=1, repeats=2)
    # As optax (decay**count) and flax compute, in the hand-written loops.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = bench_refine(config)
    assert [(row["network"], row["loop"]) for row in found["rows"]] == [("mlp", "DeviceLoop"), ("resnet", "HostLoop")]
    for row in found["rows"]:
        refined, handwritten = (np.asarray(row["rates"][loop]) for loop in ("refine", row["faster"]))
        assert len(refined) == len(handwritten) == 2
        assert row["ratio"] == pytest.approx(np.median(refined / handwritten))
        assert row["handwritten"] == max(np.median(row["rates"][loop]) for loop in row["rates"].keys() - {"refine"})
        assert f"| {row['network']} |" in table(found)
    assert found["target"]["ratio"] == min(row["ratio"] for row in found["rows"])
    assert found["target"]["met"] == (found["target"]["ratio"] >= BOUND)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean"):
        bench_refine(BenchRefine(networks=("perceptron",)))
