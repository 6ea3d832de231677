"""Laws against enumeration: last states at a fixed beta, estimates of ln Z, the random numbers below them, exact ranks.

Chi-square tests of counts with fixed seeds; under another seed a correct sampler would fail each with probability 1e-4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import qjax.samplers as samplers
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import clusters, streams, sweeps
from tests.samplers import problems

pytestmark = pytest.mark.optimised

_FALSE_FAILURE = 1e-4


@pytest.fixture(autouse=True)
def _as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph or a factor of six bits would be turned into a matrix."""
    monkeypatch.setattr(sweeps, "by_classes", lambda couplings: True)
    monkeypatch.setattr(sweeps, "_DENSE_LIMIT", 5)


@pytest.mark.parametrize(
    ("form", "acceptance"),
    [("dense", "metropolis"), ("sparse", "metropolis"), ("sparse", "heat_bath"), ("gram", "heat_bath")],
)
def test_last_states_follow_the_boltzmann_law(form: str, acceptance: str) -> None:
    """4096 independent reads of 6 bits, 60 sweeps at beta = 0.3, scale 0.5: counts of all 64 states against
    exp(-beta E)."""
    n, reads, beta = 6, 4096, 0.3
    linear = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0], np.float32)
    qubo = Qubo.from_terms(linear, problems.couplings(form, n, seed=3), scale=0.5)
    sampler = samplers.Anneal(60, beta_range=(beta, beta), acceptance=acceptance, return_states="last")
    bits = np.asarray(sampler(jax.random.key(11), qubo, reads).bits)
    weights = np.exp(-beta * problems.energies(qubo, problems.all_states(n)))
    assert_counts(bits @ (1 << np.arange(n)), weights)


def test_last_states_of_a_batch_follow_each_problems_law() -> None:
    """Two problems over shared couplings, scales 1 and -0.5, by heat bath: each follows its own law."""
    n, beta = 5, 0.25
    linear = np.array([[1.0, -2.0, 0.5, 3.0, -1.0], [0.0, 1.0, -1.0, 2.0, 1.0]], np.float32)
    qubo = Qubo.from_terms(linear, problems.couplings("sparse", n, seed=4), scale=np.array([1.0, -0.5], np.float32))
    sampler = samplers.Anneal(60, beta_range=(beta, beta), acceptance="heat_bath", return_states="last")
    bits = np.asarray(sampler(jax.random.key(12), qubo, 2048).bits)
    states = problems.all_states(n)
    energies = problems.energies(qubo, np.broadcast_to(states, (2, *states.shape)))
    for problem in range(2):
        assert_counts(bits[problem] @ (1 << np.arange(n)), np.exp(-beta * energies[problem]))


@pytest.mark.parametrize("acceptance", ["metropolis", "heat_bath"])
def test_exchanges_follow_the_boltzmann_law_of_the_states_of_k_ones(acceptance: str) -> None:
    """The 20 states of 3 ones among 6 bits, all reads from one first state: 4096 reads, 100 sweeps at beta = 0.3."""
    n, k, beta = 6, 3, 0.3
    linear = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0], np.float32)
    qubo = Qubo.from_terms(linear, problems.couplings("sparse", n, seed=3), scale=0.5)
    sampler = samplers.Anneal(
        100, beta_range=(beta, beta), acceptance=acceptance, fixed_cardinality=k, return_states="last"
    )
    bits = np.asarray(sampler(jax.random.key(17), qubo, 4096, [1, 1, 1, 0, 0, 0]).bits)
    assert np.all(bits.sum(-1) == k)
    states = problems.all_states(n)
    weights = np.exp(-beta * problems.energies(qubo, states)) * (states.sum(-1) == k)
    chosen = weights > 0
    place = np.cumsum(chosen) - 1
    assert_counts(place[bits @ (1 << np.arange(n))], weights[chosen])


@pytest.mark.parametrize(("form", "rung"), [("dense", 0), ("dense", -1), ("sparse", -1)])
def test_rungs_of_tempering_follow_their_laws(form: str, rung: int) -> None:
    """A ring of 6 (sparse with cluster moves): counts of all states at the hot and the cold end of a ladder."""
    n, betas = 6, (0.2, 0.5, 1.0)
    ring = Sparse.from_edges(n, range(n), [*range(1, n), 0], [2.0, -1.0, 1.0, 2.0, -2.0, 1.0])
    linear = np.array([1.0, -2.0, 0.5, 1.0, -1.0, 0.0], np.float32)
    qubo = Qubo.from_terms(linear, ring if form == "sparse" else ring.to_dense())
    sampler = samplers.Temper(40, betas=betas, cluster_every=1, return_states="last", return_rung=rung)
    bits = np.asarray(sampler(jax.random.key(13), qubo, 2048).bits)
    weights = np.exp(-betas[rung] * problems.energies(qubo, problems.all_states(n)))
    assert_counts(bits @ (1 << np.arange(n)), weights)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_population_annealing_estimates_the_partition_function(form: str) -> None:
    """8 bits, scale 0.5, 1024 reads of 16 replicas: the mean of exp(log_partition) over the reads against enumeration,
    within 4.5 of its standard errors (as estimated from 1024 reads, each a mean of 16 weights)."""
    n, beta = 8, 0.4
    linear = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0, 2.0, -1.0], np.float32)
    qubo = Qubo.from_terms(linear, problems.couplings(form, n, seed=3), -2.0, scale=0.5)
    sampler = samplers.Population(beta_schedule=(0.1, 0.2, 0.3, beta), population_size=16, return_states="last")
    info = sampler(jax.random.key(14), qubo, 1024).info
    exact = np.log(np.sum(np.exp(-beta * problems.energies(qubo, problems.all_states(n)))))
    ratios = np.exp(np.asarray(info["log_partition"], np.float64) - exact)
    assert ratios.std() < 1
    assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / np.sqrt(ratios.size)
    assert np.all((info["effective_fraction"] > 1 / 16) & (info["effective_fraction"] <= 1))


def test_a_member_of_the_final_population_follows_the_boltzmann_law() -> None:
    """64 replicas and sweeps after resampling: the bias, of order 1/population_size, is small beside the noise of the
    counts."""
    n, beta = 6, 0.3
    linear = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0], np.float32)
    qubo = Qubo.from_terms(linear, problems.couplings("dense", n, seed=3), scale=0.5)
    sampler = samplers.Population(beta_schedule=(0.1, 0.2, beta), sweeps_per_beta=5, return_states="last")
    bits = np.asarray(sampler(jax.random.key(15), qubo, 2048).bits)
    weights = np.exp(-beta * problems.energies(qubo, problems.all_states(n)))
    assert_counts(bits @ (1 << np.arange(n)), weights)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_slice_follows_the_law_of_the_trotter_system(form: str) -> None:
    """3 bits in 4 slices, 2048 reads, 60 sweeps at a fixed Gamma: the first slice against the sum over the other
    slices of all 4096 states of the ring."""
    n, slices, beta, gamma = 3, 4, 1.0, 1.5
    ring = Sparse.from_edges(n, [0, 1], [1, 2], [2.0, -1.0])
    linear = np.array([1.0, -1.5, 0.5], np.float32)
    qubo = Qubo.from_terms(linear, ring if form == "sparse" else ring.to_dense(), scale=0.5)
    sampler = samplers.PathIntegral(60, slices, beta, (gamma, gamma), return_states="last")
    bits = np.asarray(sampler(jax.random.key(16), qubo, 2048).bits)
    one = np.exp(-beta / slices * problems.energies(qubo, problems.all_states(n)))
    spins = 2.0 * problems.all_states(n) - 1
    coupling = -0.5 * np.log(np.tanh(beta * gamma / slices))
    step = one[:, None] * np.exp(coupling * spins @ spins.T)
    weights = np.diag(np.linalg.matrix_power(step, slices))
    assert_counts(bits @ (1 << np.arange(n)), weights)


@pytest.mark.parametrize("fields", [{}, {"passes": 1}])
def test_cluster_moves_keep_the_energy_of_the_pair(fields: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a 6 x 6 grid; where one pass is allowed, only small clusters move."""
    if fields:
        monkeypatch.setattr(clusters, "_MOST_PASSES", fields["passes"])
    site, rng = np.arange(36).reshape(6, 6), np.random.default_rng(0)
    rows = np.concatenate([site[:, :-1].ravel(), site[:-1].ravel()])
    cols = np.concatenate([site[:, 1:].ravel(), site[1:].ravel()])
    grid = Sparse.from_edges(36, rows, cols, rng.choice([-1, 1], rows.size))
    qubo = Qubo.from_terms(rng.integers(-2, 3, 36).astype(np.float32), grid)
    a, b = (rng.integers(0, 2, (36, 64)).astype(np.int8) for _ in range(2))

    @jax.jit
    def exchanged(a: jax.Array, b: jax.Array) -> list[jax.Array]:
        view = sweeps.sweeper(qubo, lambda values: values)
        seeds = streams.seeds(jax.random.key(0), jnp.arange(64, dtype=jnp.uint32), 1)
        return [view.unload(s) for s in clusters.exchange(grid, view.load(a), view.load(b), seeds, jnp.int32(0))]

    new = exchanged(a, b)
    np.testing.assert_array_equal(np.sort(np.stack([a, b]), axis=0), np.sort(np.stack(new), axis=0))
    energies = [problems.energies(qubo, np.asarray(s).T) for s in (a, b, *new)]
    np.testing.assert_allclose(energies[0] + energies[1], energies[2] + energies[3])
    sizes = np.sum(new[0] != a, axis=0)
    assert (sizes.min() >= 1 and sizes.max() > 8) if not fields else (0 == sizes.min() < sizes.max())


def assert_counts(numbers: np.ndarray, weights: np.ndarray) -> None:
    counts = np.bincount(numbers, minlength=weights.size)
    expected = weights / weights.sum() * numbers.size
    # States too rare for the chi-square approximation share one bin.
    rare = expected < 8
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(counts, expected).pvalue > _FALSE_FAILURE


def test_random_numbers_are_uniform_and_uncorrelated() -> None:
    """128 sites x 512 columns x 4 steps: 256 equal cells by chi-square, and correlations of neighbours in each
    direction.

    A correlation of 2^18 pairs has the standard deviation 2^-9; 4.5 of those are exceeded with probability 7e-6 in each
    of the three directions.
    """
    seeds = jax.jit(streams.seeds, static_argnums=2)(jax.random.key(5), jnp.arange(512, dtype=jnp.uint32), 1)
    uniforms = jax.jit(streams.uniforms)
    u = np.stack([np.asarray(uniforms(seeds, t, jnp.arange(128))) for t in range(4)])
    assert u.min() > 0 and u.max() < 1
    counts = np.bincount((u.reshape(-1) * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > _FALSE_FAILURE
    centred = (u - 0.5) * np.sqrt(12)
    for axis in range(3):
        pairs = np.take(centred, range(1, u.shape[axis]), axis) * np.take(centred, range(u.shape[axis] - 1), axis)
        assert abs(pairs.mean()) * np.sqrt(pairs.size) < 4.5
    bits = np.asarray(jax.jit(streams.random_bits)(seeds, 9, jnp.arange(128)))
    assert abs(bits.mean() - 0.5) * 2 * np.sqrt(bits.size) < 4.5


def test_exact_ranks_all_states_and_refuses_more_than_it_can() -> None:
    qubo = problems.qubo("dense", n=14)
    energies = problems.energies(qubo, problems.all_states(14))
    samples = samplers.Exact()(jax.random.key(0), qubo, 200)
    np.testing.assert_allclose(samples.energies, np.sort(energies)[:200])
    assert len({row.tobytes() for row in np.asarray(samples.bits)}) == 200
    with pytest.raises(ValueError, match="max_bits"):
        samplers.Exact(max_bits=12)(jax.random.key(0), qubo, 2)
    few = samplers.Exact()(jax.random.key(0), problems.qubo("dense", n=2), 7)
    np.testing.assert_array_equal(few.energies[3:], few.energies[3])


@pytest.mark.slow
def test_exact_in_double_precision() -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        qubo = Qubo.from_matrix(rng.normal(size=(13, 13)))
        samples = samplers.Exact()(jax.random.key(0), qubo, 3)
        assert samples.energies.dtype == jnp.float64
        energies = problems.energies(qubo, problems.all_states(13))
        np.testing.assert_allclose(samples.energies, np.sort(energies)[:3], rtol=0, atol=1e-12)
        for name in ("greedy", "anneal", "bifurcation"):
            fields = {"anneal": {"num_sweeps": 40}, "bifurcation": {"num_steps": 100}}.get(name, {})
            found = samplers.get(name, **fields)(jax.random.key(1), qubo, 16)
            np.testing.assert_allclose(found.best_energy, samples.best_energy, rtol=0, atol=1e-12)
