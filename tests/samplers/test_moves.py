"""Moves where numbers are large, equal, zero or double: descent, tabu, tempering, resampling, schedules."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.energy.qubo import Qubo
from qjax.samplers import population
from qjax.samplers.contract import Outcome
from qjax.samplers.moves import temperature
from tests.samplers import problems


@pytest.mark.parametrize(("form", "ones"), [("dense", None), ("sparse", None), ("dense", 4)])
def test_one_large_coefficient_leaves_the_others_their_minimum(form: str, ones: int | None) -> None:
    """Bit 0 costs 1e9, against which the integers of the others look like rounding errors: polished states are minima
    all the same."""
    n, qubo = 12, problems.qubo(form, n=12, batch=(2,))
    qubo = dataclasses.replace(qubo, linear=qubo.linear.at[:, 0].set(1e9))
    states = problems.all_states(n)
    if ones is None:
        start = np.random.default_rng(0).integers(0, 2, (2, 15, n))
    else:
        states = states[states.sum(-1) == ones]
        start = np.stack([states[:6], states[-6:]])
    energies = problems.energies(qubo, np.broadcast_to(states, (2, *states.shape)))
    end = np.asarray(samplers.polish(qubo, start, fixed_cardinality=ones))
    for problem in range(2):
        for state, energy in zip(end[problem], problems.energies(qubo, end)[problem], strict=True):
            near = np.abs(states - state).sum(-1) == (1 if ones is None else 2)
            assert energies[problem][near].min() >= energy


def test_tabu_takes_exact_minima_and_keeps_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bits of 1e6 and 28 of 1 to 9: each read ends in the minimum. Random real couplings, where the rounding of an
    energy depends on the path: no two elites of a read are equal."""

    def finish(self: Any, task: Any, prepared: Any, state: Any) -> Outcome:
        best = jnp.argmin(state.energies, axis=0)
        bits = state.elites[best, jnp.arange(task.num_columns)].T
        return Outcome((bits,), {"elites": state.elites.swapaxes(0, 1), "energies": state.energies.T}, {})

    monkeypatch.setattr(samplers.Tabu, "finish", finish)
    n, rng = 32, np.random.default_rng(0)
    linear = (rng.integers(1, 10, n) * rng.choice([-1, 1], n)).astype(np.float32)
    linear[:4] = 1e6
    sampler = samplers.Tabu(num_sweeps=24, phase_sweeps=3)
    mixed = sampler(jax.random.key(0), Qubo.from_terms(linear, np.zeros((n, n), np.float32)), 16)
    np.testing.assert_array_equal(mixed.bits, np.tile(linear < 0, (16, 1)))
    half = np.triu(rng.normal(size=(n, n)), 1).astype(np.float32)
    glass = sampler(jax.random.key(0), Qubo.from_terms(rng.normal(size=n).astype(np.float32), half + half.T), 16)
    for elites, energies in zip(np.asarray(glass.info["elites"]), np.asarray(glass.info["energies"]), strict=True):
        found = [state.tobytes() for state in elites[np.isfinite(energies)]]
        assert len(found) == len(set(found)) >= 1


def test_a_ladder_that_starts_at_beta_zero() -> None:
    """Three rungs are equal, so all exchanges between them are accepted, and their rates are exactly 1: in 21 sweeps
    the first pair tries 11, the second 10. The best state is that of the cold rung, also where the scale is negative.
    """
    qubo = problems.qubo("dense", n=10, batch=(3,))
    qubo = dataclasses.replace(qubo, scale=jnp.array([1.0, -1.0, 0.5]))
    samples = samplers.Temper(21, betas=(0.0, 0.0, 0.0, 2.0))(jax.random.key(0), qubo, 8)
    np.testing.assert_allclose(samples.best_energy, problems.lowest(qubo))
    rates = np.asarray(samples.info["exchange_rates"])
    np.testing.assert_array_equal(rates[..., :2], 1)
    assert np.all(rates[..., 2] < 1)


def test_half_a_million_replicas_are_resampled_exactly() -> None:
    """Weights add up to 1/2, 3/2, 5/2, ...: all marks just before and just after these sums fall on different parents.
    Few replicas: each is copied as often as its weight says, rounded up or down."""
    size = 2**19
    weights = np.ones((2, size), np.float32)
    weights[:, 0], weights[:, -1] = 0.5, 1.5
    parents = population._systematic(jnp.asarray(weights), jnp.array([0.49, 0.51], jnp.float32))
    np.testing.assert_array_equal(parents, [np.arange(size), np.minimum(np.arange(size) + 1, size - 1)])
    rng = np.random.default_rng(0)
    few = rng.exponential(size=(64, 7)).astype(np.float32)
    parents = population._systematic(jnp.asarray(few), jnp.asarray(rng.uniform(size=64).astype(np.float32)))
    copies = (np.asarray(parents)[:, :, None] == np.arange(7)).sum(1)
    assert np.all(np.abs(copies - 7 * few / few.sum(-1, keepdims=True)) < 1 + 1e-5)


def test_schedules_of_one_step_and_of_nothing() -> None:
    """A schedule of one step is at its cold end; where all energies are zero both ends are 2 ln 2."""
    hot, cold = jnp.array([0.1, 0.5]), jnp.array([4.0, 2.0])
    for kind in ("geometric", "linear"):
        np.testing.assert_allclose(temperature.between(hot, cold, 1, kind), cold[None], rtol=1e-6)
        np.testing.assert_allclose(temperature.between(hot, cold, 2, kind), [hot, cold], rtol=1e-6)
    nothing = Qubo.from_terms(np.zeros(10, np.float32), np.zeros((10, 10), np.float32))
    info = samplers.Anneal(5)(jax.random.key(0), nothing, 4).info
    np.testing.assert_allclose(info["beta_range"], 2 * math.log(2), rtol=1e-6)


@pytest.mark.slow
def test_replicas_and_tabu_in_double_precision() -> None:
    """Integers are int64 by default there; the other samplers are in test_laws. With repeats steps are still counted in
    int32, which is only traced."""
    settings: dict[str, dict[str, Any]] = {
        "path_integral": {"num_sweeps": 40, "num_slices": 4, "beta": 20.0},
        "population": {"num_betas": 10, "population_size": 6, "beta_range": (0.1, 5.0)},
        "tabu": {"num_sweeps": 12, "phase_sweeps": 3},
        "temper": {"num_sweeps": 20, "num_betas": 4, "beta_range": (0.2, 5.0)},
    }
    with jax.enable_x64(True):
        qubo = Qubo.from_matrix(np.random.default_rng(0).normal(size=(10, 10)))
        key, one = jax.random.key(1), jnp.int32(1)
        for name, fields in settings.items():
            sampler = samplers.get(name, **fields)
            found = sampler(key, qubo, 16)
            assert found.energies.dtype == jnp.float64
            np.testing.assert_allclose(found.best_energy, problems.lowest(qubo), rtol=0, atol=1e-12)
            jax.eval_shape(partial(sampler.repeated, qubo=qubo, num_reads=16, initial_states=None), key, repeats=one)
