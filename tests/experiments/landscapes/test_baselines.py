"""Every classical search on a problem it can solve, and bit for bit twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.account import Account
from experiments.landscapes.baselines import CMAES, LBFGS, Adam, Relaxed, Spectral
from experiments.landscapes.functions import Landscape, glass
from qjax import Qubo

pytestmark = pytest.mark.optimised


def _bowl(x: jax.Array, data: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(data["weights"] * (x - data["centre"]) ** 2)


def _problem(centre: float = 0.3) -> Landscape:
    data = {"weights": jnp.array([1.0, 3.0, 10.0]), "centre": jnp.full(3, centre)}
    return Landscape("bowl", 3, 1.0, _bowl, data, 5.0, np.full(3, centre))


@pytest.mark.parametrize(
    "method",
    [
        Adam(num_starts=4, num_steps=300, learning_rate=0.05),
        LBFGS(num_starts=2, num_steps=100),
        CMAES(num_evaluations=1500),
    ],
    ids=lambda method: type(method).__name__,
)
def test_searches_solve_a_bowl_and_repeat(method):
    problem = _problem()
    first, again = (method(jax.random.key(0), problem, Account()) for _ in range(2))
    assert problem.solved(problem.gap(first))
    np.testing.assert_array_equal(first, again)


def test_more_starts_never_end_higher():
    problem = glass(16, 0.95, 1.0, seed=0)
    gaps = [problem.gap(Adam(count, 200, 0.1)(jax.random.key(0), problem, Account())) for count in (1, 64)]
    assert gaps[1] <= gaps[0] + 1e-7


def test_spectral_rounding_solves_a_glass_with_one_null_vector():
    problem = glass(32, 1.5, 1.0, seed=0)
    account = Account()
    point = Spectral(num_vectors=1, num_steps=200)(jax.random.key(0), problem, account)
    assert problem.solved(problem.gap(point))
    assert {"compile", "formulate", "refine"} <= account.ledger.phases.keys()


def test_the_relaxed_qubo_reaches_the_minimum_of_a_convex_one():
    # Fields alone: the relaxation's minimum is the QUBO's.
    linear = np.linspace(-1, 1.1, 10).astype(np.float32)
    qubo = Qubo.from_terms(linear, np.zeros((10, 10), np.float32))
    samples = Relaxed(num_steps=200)(jax.random.key(0), qubo, num_reads=3)
    np.testing.assert_array_equal(samples.bits, np.broadcast_to(linear < 0, (3, 10)).astype(np.int8))
    with pytest.raises(ValueError, match="initial_states"):
        Relaxed()(jax.random.key(0), qubo, initial_states=samples.bits)


def test_compilation_is_charged_once_a_run_and_to_every_run():
    problem = _problem()
    first, second = Account(), Account()
    for account in (first, second):
        account.call("evaluate", _constant, problem.data["centre"])
        account.call("evaluate", _constant, problem.data["centre"])
    assert first.ledger["compile"] == second.ledger["compile"] > 0


def _constant(x: jax.Array) -> jax.Array:
    return jnp.sum(x)
