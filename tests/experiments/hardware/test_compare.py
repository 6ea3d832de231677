"""The hardware experiment: problems and rows mean what they say, and its smoke run writes its files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import __main__ as cli
from experiments.hardware import cells
from experiments.hardware.small_problems import SmallGlass, SmallHead
from experiments.harness.presentation.cells import check_outcome
from qjax.hybrid import formulated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("hardware")
    assert cli.main(["hardware", "--smoke", "--out", str(folder)]) == 0
    made = folder / "hardware"
    assert {path.name for path in made.iterdir()} == {"cells", "config.json", "summary.json", "summary.md"}
    return json.loads((made / "summary.json").read_text()), (made / "summary.md").read_text()


@pytest.mark.parametrize("shape", [SmallHead(6, rows=100), SmallGlass(6)])
def test_energies_of_all_states_are_those_of_the_quadratic(shape: SmallHead | SmallGlass) -> None:
    params, data = shape.instance(1)
    problem = formulated(lambda p, radius: shape.formulate(p, data), params, 1.0)
    states = jnp.asarray((np.arange(64)[:, None] >> np.arange(6)[None, :]) & 1)
    modelled = jax.vmap(lambda bits: problem.quadratic(problem.encoding.decode(bits)))(states)
    np.testing.assert_allclose(problem.sampled_qubo.energies(states), modelled, rtol=1e-4, atol=1e-5)
    # Signs of one size: the glass's Hessian orders them as the glass itself does.
    if isinstance(shape, SmallGlass):
        losses = jax.vmap(lambda bits: shape.loss(problem.encoding.decode(bits), data))(states)
        np.testing.assert_allclose(modelled - modelled.mean(), losses - losses.mean(), atol=1e-4)


def test_the_head_starts_at_its_continuous_optimum() -> None:
    shape = SmallHead(8, rows=300)
    params, data = shape.instance(0)
    slope = jax.grad(lambda p: shape.loss(p, data) + 0.5 * shape.damping * (p["w"] ** 2).sum())(params)["w"]
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    assert float(shape.loss(params, data)) < 0.6


def test_every_row_is_there_and_mocks_are_called_mocks(summary: tuple[dict, str]) -> None:
    found, text = summary
    for problem in ("head-8bit", "glass-8bit"):
        rows = {row["method"]: row for row in found["rows"] if row["problem"] == problem}
        assert set(rows) == set(cells.METHODS)
        assert rows["exact"]["results"]["best_gap"]["mean"] == pytest.approx(0, abs=1e-3)
        assert all(row["results"]["best_gap"]["mean"] >= -1e-3 for row in rows.values())
        for method, row in rows.items():
            is_mock = method in cells.MOCKS
            assert ("chain_breaks" in row["results"]) == is_mock == ("MOCK" in row["sampler"])
            phases = row["timed"]["phases"]
            assert ("embed" in phases) == is_mock and "formulate" in phases and "decode" in phases
            assert sum(phases.values()) == pytest.approx(row["timed"]["seconds"], rel=1e-2)
        assert all(rows[method]["timed"]["phases"]["embed"] > 0 for method in cells.MOCKS)
        assert "expected_gap" in rows["qaoa"]["results"]
    assert "## Energies" in text and "## Seconds by phase" in text and "No quantum hardware" in text
    assert not [line for line in text.split("\n") if "mock-" in line and "## Energies" in line]


def test_cells_repeat_and_keep_the_protocol() -> None:
    shapes, settings, _ = cells.plan("smoke")
    for method in ("mock-zephyr", "noisy"):
        one, two = (cells.run(shapes[1], settings, method, 0) for _ in range(2))
        assert one["results"] == two["results"]
        cell = next(c for c in cells.cells("smoke") if c.method == method)
        check_outcome(cell, one)
