"""Generated problems: planted minima against enumeration, graphs, names and sizes that there are not."""

import numpy as np
import pytest

from experiments.solvers.generate import generate
from tests.samplers.problems import lowest


@pytest.mark.parametrize("name", ["wishart-12-0.5", "wishart-10-s3", "tile-4", "tile-4-s1"])
def test_planted_minima_are_minima(name: str) -> None:
    instance = generate(name)
    assert instance.best_known is not None
    np.testing.assert_allclose(lowest(instance.qubo), instance.best_known, rtol=1e-5)


def test_generated_graphs() -> None:
    for name, n, degree in (("regular3-50", 50, 3), ("lattice2-5", 25, 4), ("lattice3-4", 64, 6), ("sk-12", 12, 11)):
        qubo = generate(name).qubo
        matrix = np.asarray(qubo.couplings.to_dense())
        assert matrix.shape == (n, n) and set(np.unique(matrix)) <= {-1, 0, 1}
        np.testing.assert_array_equal((matrix != 0).sum(1), degree)
        spins = np.where(np.random.default_rng(0).random(n) < 0.5, 1, -1)
        np.testing.assert_allclose(qubo.energies((spins + 1) / 2), 0.5 * spins @ matrix @ spins)
    one, same, other = (np.asarray(generate(n).qubo.linear) for n in ("sk-12", "sk-12", "sk-12-s1"))
    assert (one == same).all() and (one != other).any()


def test_dense_problems_with_fields_are_integers_on_all_pairs() -> None:
    first, second = (generate(name).qubo for name in ("dense-fields-40", "dense-fields-40-s1"))
    matrix, fields = np.asarray(first.couplings.to_dense()), np.asarray(first.linear)
    drawn = np.concatenate([matrix[np.triu_indices(40, 1)], fields])
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert 45 <= np.abs(drawn).max() <= 50 and np.unique(drawn).size > 95
    x = np.random.default_rng(0).integers(0, 2, 40)
    np.testing.assert_allclose(first.energies(x), x @ np.triu(matrix, 1) @ x + fields @ x, rtol=1e-6)
    assert (np.asarray(second.linear) != fields).any()


@pytest.mark.parametrize(
    "name",
    [
        "sk",
        "dense-fields",
        "sk-fields-9",
        "dense-fields-9-0.5",
        "ring-5",
        "lattice-5",
        "regular3-5",
        "lattice2-2",
        "tile-5",
        "sk-9-0.5",
        "one-hot-19",
        "one-hot-0x6",
        "one-hot-3x1",
        "one-hot-3x2-P0",
        "queen8_8",
        "queen8_9-9",
        "queen8_8-1",
        "myciel1-3",
    ],
)
def test_names_and_sizes_that_there_are_not(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown problem|regular|lattice|tile|parameter|one-hot|queen|myciel"):
        generate(name)
