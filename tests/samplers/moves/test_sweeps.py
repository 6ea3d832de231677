"""Sweeps by blocks of bits against plain sequential updates, for every way of getting the couplings' rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qjax.energy.couplings import Gram
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import acceptance, streams, sweeps
from tests.samplers import problems

_BITS, _COLUMNS = 40, 12  # two whole blocks and half of one; six columns for each of two problems
_ROWS = {"dense": sweeps.DenseRows, "gram": sweeps.GramRows, "implicit": sweeps._ImplicitRows}
_RULES = {"metropolis": acceptance.metropolis, "heat_bath": acceptance.heat_bath}


def _spread(values: jax.Array) -> jax.Array:
    return jnp.repeat(values, _COLUMNS // values.shape[-1], axis=-1)


def _seeds() -> jax.Array:
    return streams.seeds(jax.random.key(0), jnp.arange(_COLUMNS, dtype=jnp.uint32), 1)


@pytest.mark.parametrize("name", _RULES)
@pytest.mark.parametrize("form", _ROWS)
def test_a_sweep_equals_sequential_updates(form: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same uniform numbers, scales of both signs and zero, with and without a bias, two sweeps in a row: the
    same bits and, as all couplings are integers, exactly the same energies."""
    monkeypatch.setattr(sweeps, "_DENSE_LIMIT", 8)
    rule, qubo, rng = _RULES[name], problems.qubo(form, _BITS, (2,)), np.random.default_rng(1)
    view: Any = sweeps.sweeper(qubo, _spread)
    assert type(view._rows) is _ROWS[form]
    matrix = problems.matrix_of(qubo.couplings)
    linear = np.repeat(np.asarray(qubo.linear, float).T + 0.5 * np.diagonal(matrix)[:, None], _COLUMNS // 2, axis=1)
    np.fill_diagonal(matrix, 0)
    scales, seeds = np.resize([0.3, -0.2, 0.0, 0.05], _COLUMNS).astype(np.float32), _seeds()
    start, bias = rng.integers(0, 2, (_BITS, _COLUMNS)), rng.normal(size=(_BITS, _COLUMNS)).astype(np.float32)

    @jax.jit
    def sweep(state: Any, step: jax.Array, bias: Any) -> Any:
        new, change = view.sweep(state, rule, jnp.asarray(scales), seeds, step, bias)
        return new, change, view.gaps(new), view.energies(new)

    for own in (None, bias):
        bits, state = start.astype(float), view.load(jnp.asarray(start, jnp.int8))
        padded = None if own is None else np.pad(own, [(0, view.snapshot(state).shape[0] - _BITS), (0, 0)])
        for step in (1, 2):
            uniform = np.asarray(streams.uniforms(seeds, step, jnp.arange(_BITS)), float)
            expected = _sequential(name, matrix, linear, scales, 0 * bias if own is None else own, uniform, bits)
            state, change, gaps, energies = sweep(state, jnp.int32(step), padded)
            np.testing.assert_array_equal(view.unload(view.snapshot(state)), expected)
            assert 0.1 < np.mean(expected != bits) < 0.9
            np.testing.assert_array_equal(gaps, (1 - 2 * expected) * (matrix @ expected + linear))
            np.testing.assert_array_equal(energies, _energies(matrix, linear, expected))
            difference = _energies(matrix, linear, expected) - _energies(matrix, linear, bits)
            np.testing.assert_array_equal(change, difference)
            bits = expected


def test_the_image_of_a_factor_does_not_drift() -> None:
    """Least squares with a large constant part that cancels: the change of energy that a sweep reports is as accurate
    after 4000 sweeps of random flips as after none. Kept by updates alone, the image Ax would carry the rounding errors
    of all sweeps."""
    n, rng = 96, np.random.default_rng(0)
    factor = (100 + rng.normal(size=(4, n))).astype(np.float32)
    target = factor.astype(float) @ (np.arange(n) % 2)
    linear = (0.5 * (factor.astype(float) ** 2).sum(0) - target @ factor).astype(np.float32)
    view: Any = sweeps.sweeper(Qubo.from_terms(linear[None], Gram(jnp.asarray(factor))), _spread)
    assert isinstance(view._rows, sweeps.GramRows)
    weights, seeds = jnp.zeros(_COLUMNS, jnp.float32), _seeds()

    def sweep(t: jax.Array, state: Any) -> Any:
        return view.sweep(state, acceptance.heat_bath, weights, seeds, t)

    @jax.jit
    def run(state: Any, count: jax.Array) -> Any:
        state = lax.fori_loop(0, count, lambda t, state: sweep(t, state)[0], state)
        return state, *sweep(count, state)

    def error(count: int) -> float:
        before, after, change = run(view.load(streams.random_bits(seeds, 0, jnp.arange(n))), jnp.int32(count))
        before, after = (np.asarray(view.unload(view.snapshot(state)), float) for state in (before, after))
        exact = factor.astype(float).T @ factor
        np.fill_diagonal(exact, 0)
        true = _energies(exact, linear[:, None], after) - _energies(exact, linear[:, None], before)
        return float(np.sqrt(np.mean((np.asarray(change, float) - true) ** 2)))

    assert error(4000) < 4 * error(0)


def _sequential(
    name: str,
    matrix: np.ndarray,
    linear: np.ndarray,
    scales: np.ndarray,
    bias: np.ndarray,
    uniform: np.ndarray,
    bits: np.ndarray,
) -> np.ndarray:
    x = bits.copy()
    for i in range(_BITS):
        field, u = scales * (linear[i] + matrix[i] @ x) + bias[i], uniform[i]
        if name == "heat_bath":
            x[i] = field < np.log((1 - u) / u)
        else:
            x[i] = np.where((1 - 2 * x[i]) * field <= -np.log(u), 1 - x[i], x[i])
    return x


def _energies(matrix: np.ndarray, linear: np.ndarray, bits: np.ndarray) -> np.ndarray:
    energies: np.ndarray = np.sum(bits * (0.5 * matrix @ bits + linear), axis=0)
    return energies
