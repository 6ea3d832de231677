"""The variants of bifurcation on planted glasses, whose ground state is known to have energy 0."""

import jax
import numpy as np
import pytest

from qjax import Qubo, samplers

pytestmark = pytest.mark.optimised

N = 64


def _glass(alpha, seed):
    """J = WW'/n without its diagonal, columns of W orthogonal to a planted t: E(t) = 0 is the minimum (Wishart)."""
    rng = np.random.default_rng(seed)
    planted = rng.choice([-1.0, 1.0], N)
    w = rng.normal(size=(N, round(alpha * N)))
    w -= np.outer(planted, planted @ w) / N
    j = w @ w.T / N
    constant = 0.5 * np.trace(j)
    np.fill_diagonal(j, 0)
    return Qubo.from_ising(np.zeros(N), ((j + j.T) / 2).astype(np.float32), constant)


@pytest.mark.parametrize(
    "fields",
    [
        {"variant": "discrete"},
        {"variant": "ballistic", "strength": 0.9},
        {"variant": "discrete", "heat": 0.06},
        {"variant": "generalized", "strength": 0.9, "nonlinearity": 1.3},
        {},
    ],
)
def test_easy_glasses_are_solved(fields):
    for seed in range(3):
        samples = samplers.get("bifurcation", num_steps=500, **fields)(jax.random.key(seed), _glass(1.2, seed), 64)
        assert float(samples.best_energy) < 1e-3


def test_generalized_finds_what_ballistic_does_not():
    """Summed over three instances; the margin is wide (docs/samplers.md has the parts at n = 128)."""
    hits = {}
    for variant in ("ballistic", "generalized"):
        sampler = samplers.get("bifurcation", variant=variant, strength=0.9, nonlinearity=1.3, num_steps=1000)
        solved = [sampler(jax.random.key(s), _glass(0.8, s), 64).energies < 1e-3 for s in range(3)]
        hits[variant] = int(sum(np.asarray(s).sum() for s in solved))
    assert hits["generalized"] > 2 * hits["ballistic"] + 10


def test_bad_nonlinearity_is_named():
    with pytest.raises(ValueError, match="nonlinearity"):
        samplers.get("bifurcation", nonlinearity=-1.0)
