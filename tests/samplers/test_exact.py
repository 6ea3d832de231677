"""Enumeration: the right state and the right ranks where float32 sums would put states in the wrong order."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax.energy.qubo import Qubo
from tests.samplers import problems

KEY = jax.random.key(0)
EXACT = qjax.samplers.get("exact")


@pytest.mark.parametrize(
    ("bits", "keep_features"),
    [
        *((bits, False) for bits in (1, 12, 16)),
        *(pytest.param(bits, False, marks=pytest.mark.slow) for bits in range(2, 16) if bits != 12),
        (8, True),
        (12, True),
        (16, True),
    ],
)
def test_the_nearest_level_of_a_weight_of_many_bits_wins(bits: int, keep_features: bool) -> None:
    """w of 2^bits levels from -1 to 1 against 31 targets, as the channels of one kernel: the first read and the best of
    four have the level nearest to each. At 16 bits energies of the order of 1 are left of terms of the order of 2^30.
    """
    targets, step = -0.93 + 0.062 * np.arange(31), 2 / (2**bits - 1)
    params = {"w": jnp.zeros((1, 31))}
    quadratic = qjax.least_squares(params, "w", np.ones((1, 1)), targets[None], keep_features=keep_features)
    encoding = qjax.encode(params, {"w": qjax.FixedPoint(bits=bits, step=step)})
    samples = EXACT(KEY, qjax.pull_back(quadratic, encoding), 4)
    distances = np.abs(-1 + step * np.arange(2**bits)[None, :] - targets[:, None])
    for states in (samples.bits[:, 0], samples.best_bits):
        levels = np.asarray(states, np.int64) @ 2 ** np.arange(bits)
        reached = np.take_along_axis(distances, levels[:, None], axis=1)[:, 0]
        assert (reached <= distances.min(1) + 1e-9).sum() == 31


def _of_two_weights(bits: int) -> Qubo:
    """Least squares of two weights of `bits` bits each, correlated: a long flat valley."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]])
    params = {"w": jnp.zeros((2, 1))}
    quadratic = qjax.least_squares(params, "w", x, x @ np.array([[0.3], [-0.4]]) + 0.1 * rng.normal(size=(50, 1)))
    encoding = qjax.encode(params, {"w": qjax.FixedPoint(bits=bits, step=2 / (2**bits - 1))})
    batch = qjax.pull_back(quadratic, encoding, "dense")
    return dataclasses.replace(batch, offset=batch.offset[0], linear=batch.linear[0], scale=batch.scale[0])


def _in_double(qubo: Qubo) -> np.ndarray:
    """E/scale - offset of all states by their numbers, in float64."""
    n, energies = qubo.num_bits, np.zeros(1)
    linear, matrix = np.asarray(qubo.linear, np.float64), problems.matrix_of(qubo.couplings)
    states = np.zeros((1, n))
    for i in range(n):
        energies = np.concatenate([energies, energies + linear[i] + states @ matrix[i]])
        states = np.concatenate([states, states])
        states[states.shape[0] // 2 :, i] = 1
    return energies


@pytest.mark.parametrize(("bits", "reads"), [(6, 60), (7, 500), (9, 60), (10, 1)])
def test_ranks_are_those_of_double_precision(bits: int, reads: int) -> None:
    """In one block of states, and in up to four of them. Gaps below 1e-6 of a gap to the lowest are not told apart."""
    qubo = _of_two_weights(bits)
    samples, energies = EXACT(KEY, qubo, reads), _in_double(qubo)
    numbers = np.asarray(samples.bits, np.int64) @ 2 ** np.arange(2 * bits)
    assert np.unique(numbers).size == reads
    gaps, expected = energies[numbers] - energies.min(), np.sort(energies)[:reads] - energies.min()
    np.testing.assert_allclose(gaps, expected, rtol=1e-6, atol=1e-9 * np.ptp(energies) ** 0.5)
    assert gaps[0] == 0


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_equal_energies_are_ranked_by_number(sign: float) -> None:
    """E = x_13 of 14 bits, more reads than a row of the table has states."""
    linear = np.zeros(14, np.float32)
    linear[13] = 1
    samples = EXACT(KEY, sign * Qubo.from_terms(linear, np.zeros((14, 14), np.float32)), 10_000)
    numbers = np.asarray(samples.bits, np.int64) @ 2 ** np.arange(14)
    expected = np.argsort(sign * (np.arange(2**14) >> 13), kind="stable")[:10_000]
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_random_problems_of_any_size(size: float) -> None:
    """Of 20 bits, so of four blocks: the 100 lowest."""
    rng: Any = np.random.default_rng(1)
    matrix = (size * np.triu(rng.normal(size=(20, 20)))).astype(np.float32)
    qubo = Qubo.from_matrix(matrix)
    samples, energies = EXACT(KEY, qubo, 100), _in_double(qubo)
    numbers = np.asarray(samples.bits, np.int64) @ 2 ** np.arange(20)
    np.testing.assert_array_equal(numbers, np.argsort(energies)[:100])
