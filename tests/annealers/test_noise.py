"""The noise model: what it changes and what it does not, its chains, and that no coupling is ever dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.annealers.chains import Chip, MissingEdge
from qjax.annealers.noise import Noisy
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.interop.bqm import from_bqm, to_bqm
from qjax.samplers.samples import Samples
from tests.samplers import problems

pytestmark = pytest.mark.slow

SEEN: list[Qubo] = []
TRIANGLE_ON_SQUARE = Chip.of([(0, 1), (1, 2), (2, 3), (3, 0)], [[0], [1], [2, 3]])


@dataclass(frozen=True)
class Recorder:
    """Keeps the problems that it is called with, and returns bits that are all 1."""

    is_host: ClassVar[bool] = True

    def __call__(self, key: Any, qubo: Qubo, num_reads: int, initial_states: Any = None) -> Samples:
        SEEN.append(qubo)
        bits = jnp.ones((num_reads, qubo.num_bits), jnp.int8)
        return Samples(bits, qubo.energies(bits), {})


def programmed(noisy: Noisy, qubo: Qubo, key: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """(h, J, f) as the sampler sees them, in device units."""
    samples = noisy(jax.random.key(key), qubo, 2)
    seen, factor = SEEN[-1], float(samples.info["scale_factor"])
    assert float(seen.scale) == 1.0
    coupled = 0.25 * np.asarray(seen.couplings.to_dense())
    return factor * np.asarray(seen.ising().fields), factor * coupled, factor


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_without_noise_it_is_the_sampler_itself(form: str) -> None:
    qubo, sampler = problems.qubo(form), samplers.get("greedy")
    plain = sampler(jax.random.key(3), qubo, 6)
    noisy = Noisy(sampler)(jax.random.key(3), qubo, 6)
    np.testing.assert_array_equal(plain.bits, noisy.bits)
    np.testing.assert_allclose(plain.energies, noisy.energies)


def test_coefficients_fill_the_ranges_and_lie_on_levels() -> None:
    qubo = 0.5 * problems.qubo("dense")
    h, j, _ = programmed(Noisy(Recorder(), precision_bits=4), qubo)
    steps_h, steps_j = h / (4.0 / 7), j / (1.0 / 7)
    np.testing.assert_allclose(steps_h, np.rint(steps_h), atol=1e-4)
    np.testing.assert_allclose(steps_j, np.rint(steps_j), atol=1e-4)
    assert np.abs(h).max() <= 4 + 1e-5 and np.abs(j).max() <= 1 + 1e-5
    exact_h, exact_j, _ = programmed(Noisy(Recorder()), qubo)
    assert max(np.abs(exact_h).max() / 4, np.abs(exact_j).max()) <= 1 + 1e-5
    assert np.abs(h - exact_h).max() <= 2.0 / 7 + 1e-4 and np.abs(j - exact_j).max() <= 0.5 / 7 + 1e-4


def test_noise_has_its_deviation_and_is_drawn_once_per_call() -> None:
    """400 fields, 79800 couplings: mean and standard deviation within 5 standard errors, false failure below 1e-5."""
    rng = np.random.default_rng(0)
    matrix = np.triu(rng.choice([-1.0, 1.0], (400, 400)), 1).astype(np.float32)
    qubo = Qubo.from_terms(rng.normal(size=400).astype(np.float32), matrix + matrix.T)
    exact_h, exact_j, _ = programmed(Noisy(Recorder()), qubo)
    noisy = Noisy(Recorder(), sigma_h=0.05, sigma_j=0.02)
    h, j, _ = programmed(noisy, qubo)
    pairs = np.triu_indices(400, 1)
    for change, sigma in ((h - exact_h, 0.05), ((j - exact_j)[pairs], 0.02)):
        assert abs(change.mean()) < 5 * sigma / np.sqrt(change.size)
        assert abs(change.std() / sigma - 1) < 5 / np.sqrt(2 * change.size)
    np.testing.assert_allclose(j, j.T)
    assert np.all(np.diagonal(j) == 0)
    other, _, _ = programmed(noisy, qubo, key=1)
    assert np.abs(other - h).max() > 0.01


def test_dense_and_sparse_get_the_same_noise_and_no_new_couplings() -> None:
    rows, cols, weights = np.array([0, 1, 2, 0]), np.array([1, 2, 3, 4]), np.array([1.0, -2.0, 0.5, 1.5])
    sparse = Qubo.from_terms(np.arange(5.0), Sparse.from_edges(5, rows, cols, weights))
    dense = replace(sparse, couplings=Dense(sparse.couplings.to_dense()))
    noisy = Noisy(Recorder(), precision_bits=5, sigma_h=0.1, sigma_j=0.1)
    (h, j, _), (h2, j2, _) = programmed(noisy, sparse), programmed(noisy, dense)
    np.testing.assert_allclose(h, h2, atol=1e-5)
    np.testing.assert_allclose(j, j2, atol=1e-5)
    np.testing.assert_array_equal(j != 0, np.asarray(dense.couplings.matrix) != 0)


def test_bits_are_misread_and_energies_are_true() -> None:
    """Of 12000 bits, misread with p = 0.2: their number within 5 standard deviations, false failure below 1e-6."""
    qubo = problems.qubo("dense", n=60)
    samples = Noisy(Recorder(), sigma_j=0.3, readout_error=0.2)(jax.random.key(0), qubo, 200)
    wrong = int((np.asarray(samples.bits) == 0).sum())
    assert abs(wrong - 2400) < 5 * np.sqrt(12000 * 0.2 * 0.8)
    np.testing.assert_allclose(samples.energies, qubo.energies(samples.bits))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_inside_jit(form: str) -> None:
    noisy = Noisy(samplers.get("greedy"), precision_bits=4, sigma_h=0.2, sigma_j=0.2, readout_error=0.01)
    qubo, key = problems.qubo(form, n=8), jax.random.key(1)
    plain = noisy(key, qubo, 4)
    mapped = jax.jit(jax.vmap(lambda k, q: noisy(k, q, 4), in_axes=(0, None)))(key[None], qubo)
    np.testing.assert_array_equal(plain.bits, mapped.bits[0])


def test_batches_are_programmed_one_by_one() -> None:
    noisy, key = Noisy(samplers.get("random"), precision_bits=4, sigma_h=0.2, readout_error=0.01), jax.random.key(1)
    batch = problems.qubo("dense", n=8, batch=(3,))
    samples = noisy(key, batch, 4)
    assert samples.bits.shape == (3, 4, 8) and samples.info["scale_factor"].shape == (3,)
    np.testing.assert_allclose(samples.energies, batch.energies(samples.bits), rtol=1e-6)
    alike = replace(batch, linear=jnp.tile(batch.linear[:1], (3, 1)), scale=jnp.ones(3), offset=jnp.zeros(3))
    SEEN.clear()
    Noisy(Recorder(), sigma_h=0.2)(key, alike, 2, np.zeros(8, int))
    assert len(SEEN) == 3 and not np.allclose(SEEN[0].linear, SEEN[1].linear)


def test_a_chip_keeps_the_energy_of_unbroken_states() -> None:
    """E_chip(chains of x) - E(x) is the same for all states x; the chain's coupling is -strength."""
    qubo = problems.qubo("dense", n=3)
    Noisy(Recorder(), chip=TRIANGLE_ON_SQUARE, chain_strength=7.0)(jax.random.key(0), qubo, 1)
    states = problems.all_states(3)
    chip = SEEN[-1]
    difference = chip.energies(states[:, TRIANGLE_ON_SQUARE.owner]) - qubo.energies(states)
    np.testing.assert_allclose(difference, np.full(8, difference[0]), atol=1e-4)
    assert float(chip.couplings.to_dense()[2, 3]) == -28.0


def test_chains_break_and_vote() -> None:
    qubo, key = problems.qubo("dense", n=3), jax.random.key(0)
    weak = Noisy(samplers.get("random"), chip=TRIANGLE_ON_SQUARE)(key, qubo, 64)
    broken = np.asarray(weak.info["chain_break_fraction"])
    assert broken.shape == (64,) and set(np.round(broken, 4)) == {0.0, np.float32(0.3333)}
    strong = Noisy(samplers.get("exact"), chip=TRIANGLE_ON_SQUARE)(key, qubo, 4, np.ones(3, int))
    np.testing.assert_allclose(strong.best_energy, problems.lowest(qubo))
    assert not np.any(strong.info["chain_break_fraction"])


def test_a_missing_edge_raises_and_nothing_is_dropped() -> None:
    names = Labels.of_names(["a", "b", "c"])
    qubo = replace(problems.qubo("dense", n=3), labels=names)
    sparse = replace(from_bqm(to_bqm(qubo), "sparse"), labels=names)
    path, key = Chip.of([(0, 1), (1, 2)], 3), jax.random.key(0)
    noisy = Noisy(samplers.get("greedy"), chip=path)
    for problem in (qubo, sparse):
        with pytest.raises(MissingEdge, match="'a'-'c'"):
            noisy(key, problem, 2)
    with pytest.raises(MissingEdge, match="traced"):
        jax.jit(lambda q: noisy(key, q, 2).bits)(qubo)
    chain = Qubo.from_terms(np.ones(3), Sparse.from_edges(3, [0, 1], [1, 2], [1.0, -1.0]))
    inside = jax.jit(lambda k: noisy(k, chain, 2).bits)(key)
    np.testing.assert_array_equal(inside, noisy(key, chain, 2).bits)
    complete = Noisy(samplers.get("greedy"), chip=TRIANGLE_ON_SQUARE)
    assert jax.jit(lambda q: complete(key, q, 2).bits)(qubo).shape == (2, 3)
    with pytest.raises(ValueError, match="3 bits"):
        noisy(key, problems.qubo("dense", n=4), 2)


def test_bad_chips_fields_and_couplings() -> None:
    for chains, message in (([[0], [0]], "share"), ([[0, 2]], "not connected"), ([[]], "empty")):
        with pytest.raises(ValueError, match=message):
            Chip.of([(0, 1), (1, 2)], chains)
    for field, value in (
        ("precision_bits", 1),
        ("sigma_h", -1.0),
        ("sigma_j", float("nan")),
        ("readout_error", 0.6),
        ("h_max", 0.0),
    ):
        with pytest.raises(ValueError, match=field):
            Noisy(samplers.get("greedy"), **{field: value})
    with pytest.raises(ValueError, match="dense or sparse"):
        Noisy(samplers.get("greedy"))(jax.random.key(0), problems.qubo("gram"), 2)
    nothing = Qubo.from_terms(np.zeros(3), np.zeros((3, 3)))
    assert Noisy(samplers.get("greedy"), precision_bits=3, sigma_h=0.1)(jax.random.key(0), nothing, 2).bits.shape == (
        2,
        3,
    )
