"""The landscapes' minima, the hybrid's two formulations, and the cells that Table I is made of."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.account import Account
from experiments.landscapes import synthetic
from experiments.landscapes.functions import FUNCTIONS, function, glass
from experiments.landscapes.quantum_search import Continuous, FittedHybrid, GlassHybrid
from qjax import samplers

pytestmark = [pytest.mark.optimised, pytest.mark.slow]


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_have_their_minimum_where_they_say(kind):
    problem = function(kind, 6, seed=3)
    assert abs(problem.gap(problem.optimum)) < 1e-9
    slope = jax.jit(jax.grad(problem.objective))(jnp.asarray(problem.optimum, jnp.float32), problem.data)
    assert jnp.all(jnp.isfinite(slope)) and float(jnp.abs(slope).max()) < 1e-4 * problem.scale
    rng = np.random.default_rng(0)
    far = rng.uniform(-problem.half_width, problem.half_width, (100, 6))
    near = problem.optimum + 0.01 * problem.half_width * rng.normal(size=(100, 6))
    assert all(problem.gap(point) > 0 for point in np.concatenate([far, near]))


def test_the_deeper_well_of_styblinski_tang_is_the_minimum():
    problem = function("styblinski-tang", 3, seed=0)
    rotation = np.asarray(problem.data["rotation"], np.float64)
    other_well = problem.optimum + rotation.T @ np.array([2.903534 + 2.746803, 0.0, 0.0])
    # 14.1377 is the textbook difference of the two wells.
    assert problem.gap(other_well) * problem.scale == pytest.approx(14.1377, abs=1e-2)


@pytest.mark.parametrize(("alpha", "height"), [(0.5, 0.1), (0.95, 1.0), (1.5, 3.0)])
def test_the_planted_state_is_the_glass_minimum(alpha, height):
    problem = glass(12, alpha, height, seed=1)
    assert abs(problem.gap(problem.optimum)) < 1e-6 and abs(problem.gap(-problem.optimum)) < 1e-6
    couplings = np.asarray(problem.data["couplings"])
    assert np.linalg.eigvalsh(couplings).min() > -1e-5
    states = 2 * ((np.arange(2**12)[:, None] >> np.arange(12)) & 1) - 1
    energies = 0.5 * np.einsum("si,ij,sj->s", states, couplings, states)
    overlap = np.abs(states[energies < energies.min() + 1e-4] @ problem.optimum)
    assert np.all(overlap == 12) or alpha < 0.75  # few columns leave other states in the null space


def test_height_changes_the_wells_and_not_the_couplings():
    low, high = glass(16, 0.95, 0.1, 5), glass(16, 0.95, 3.0, 5)
    np.testing.assert_array_equal(low.data["couplings"], high.data["couplings"])


@pytest.mark.parametrize(
    "bad", [lambda: glass(0, 1.0, 1.0, 0), lambda: glass(8, 1.0, -1.0, 0), lambda: function("x", 8, 0)]
)
def test_bad_problems_are_refused(bad):
    with pytest.raises(ValueError, match=r"glass needs|unknown function"):
        bad()


def test_the_sign_formulation_orders_states_as_the_objective_does():
    problem = glass(8, 0.95, 1.0, seed=0)
    from experiments.landscapes.quantum_search import _boxed, _formulate

    hybrid = GlassHybrid(sampler=None)
    states = jnp.asarray((np.arange(256)[:, None] >> np.arange(8)) & 1, jnp.int8)

    @jax.jit
    def offsets(box):
        parts = _formulate(hybrid, problem.objective)({"x": jnp.zeros(8)}, jnp.float32(1.0), jax.random.key(0), box)
        points = parts.encoding.decode(states)["x"]
        values = jax.vmap(problem.objective, in_axes=(0, None))(points, problem.data)
        return values - parts.qubo.energies(states)

    found = np.asarray(offsets(_boxed(problem)))
    np.testing.assert_allclose(found, np.full_like(found, found[0]), atol=1e-4)


def test_hybrid_solves_a_glass_that_random_bits_do_not():
    # 64 reads that each succeed with p > 0.5 here; random bits hit a 1 in 2^47 state.
    problem = glass(48, 1.0, 1.0, seed=0)
    hybrid = GlassHybrid(
        samplers.get("bifurcation", variant="generalized", strength=0.9, nonlinearity=1.3, num_steps=300),
        64,
        num_steps=100,
    )
    solved, random = Account(), Account()
    assert problem.solved(problem.gap(hybrid(jax.random.key(0), problem, solved)))
    control = dataclasses.replace(hybrid, sampler=samplers.get("random"))
    assert not problem.solved(problem.gap(control(jax.random.key(0), problem, random)))
    assert {"compile", "formulate", "anneal", "decode", "refine"} <= solved.ledger.phases.keys()
    assert len(solved.notes["sampled_energies"]) == 64


def test_fitted_hybrid_and_its_continuous_control_solve_a_small_rastrigin():
    # With 20,000 probes the centre's error is 0.16 per coordinate; a basin is 0.5 wide: 10 coordinates, 3 rounds.
    problem = function("rastrigin", 10, seed=0)
    hybrid = FittedHybrid(samplers.get("anneal", num_sweeps=50), 3, 20_000, num_reads=8, num_candidates=2)
    for method in (hybrid, Continuous(hybrid), dataclasses.replace(hybrid, start="rounded")):
        assert problem.solved(problem.gap(method(jax.random.key(1), problem, Account())))
    with pytest.raises(ValueError, match="start"):
        dataclasses.replace(hybrid, start="other")


@pytest.mark.parametrize("scale", ["smoke", "default", "full"])
def test_cells_are_distinct_and_comparisons_name_rows_that_exist(scale):
    cells = synthetic.cells(scale)
    assert len({cell.key() for cell in cells}) == len(cells)
    rows = {(cell.problem, cell.method) for cell in cells}
    for comparison in synthetic.comparisons(scale):
        assert {(comparison.problem, comparison.baseline), (comparison.problem, comparison.method)} <= rows
    # No row names a sampler that did not run.
    assert {cell.sampler for cell in cells if cell.method == "rounded"} <= {"given"}


def test_the_same_cell_gives_the_same_results():
    cell = next(c for c in synthetic.cells("smoke") if c.problem.startswith("glass") and c.method == "hybrid")
    first, second = (cell.run(lambda fraction, text: None) for _ in range(2))
    assert first["results"] == second["results"]
    timed = second["timed"]
    assert timed["seconds"] == pytest.approx(sum(timed["phases"].values()))
    # What was compiled for the first run is charged to the second one too.
    assert timed["phases"]["compile"] == pytest.approx(first["timed"]["phases"]["compile"])
