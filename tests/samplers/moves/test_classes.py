"""Sweeps by colour classes against plain sequential updates, for every kind of couplings that has a layout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.energy.couplings import Sparse
from qjax.samplers.moves import acceptance, classes, streams

_COLUMNS = 16


def _spread(values: jax.Array) -> jax.Array:
    return jnp.broadcast_to(values, (*values.shape[:-1], _COLUMNS))


def _graph(kind: str) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if kind == "hub":  # one site of 139 neighbours, whose sums exceed int8, among sites of three
        n = 140
        rows = np.concatenate([np.zeros(n - 1, int), np.arange(1, n - 1)])
        cols = np.concatenate([np.arange(1, n), np.arange(2, n)])
        return n, rows, cols, np.ones(rows.size)
    n = 24
    rows, cols = np.triu_indices(n, 1)
    kept = rng.random(rows.size) < 0.25
    rows, cols = rows[kept], cols[kept]
    values: dict[str, Any] = {"one": [1], "signs": [-1, 1], "minus three": [-3], "many": [1, 2, 5], "large": [60, -50]}
    weights = rng.normal(size=rows.size) if kind == "real" else rng.choice(values[kind], rows.size)
    return n, rows, cols, np.asarray(weights, float)


@pytest.mark.parametrize("kind", ["one", "signs", "minus three", "many", "large", "real", "hub"])
def test_a_sweep_equals_sequential_updates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same uniform numbers, all rules, scales of both signs and zero: the same bits and the same change of E."""
    monkeypatch.setattr(classes, "_LONGEST_KERNEL", 12)
    monkeypatch.setattr(classes, "_LOOPED_KERNEL", 5)
    n, rows, cols, weights = _graph(kind)
    couplings = Sparse.from_edges(n, rows, cols, weights)
    matrix = np.zeros((n, n))
    matrix[rows, cols] = weights
    matrix += matrix.T
    rng = np.random.default_rng(1)
    linear = rng.normal(size=n).astype(np.float32)
    bits = rng.integers(0, 2, (n, _COLUMNS)).astype(np.int8)
    # Columns of different scales: one program for all of them, and for all rules.
    scales = np.resize([1.0, -0.7, 0.0, 0.3], _COLUMNS).astype(np.float32)
    rules = (acceptance.metropolis, acceptance.heat_bath, acceptance.descend)

    @jax.jit
    def swept(couplings: Sparse, linear: jax.Array, scales: jax.Array, bits: jax.Array) -> Any:
        view = classes.Classes(couplings, linear[:, None], _spread)
        assert (kind == "hub") == bool(view._wide)
        seeds, state = streams.seeds(jax.random.key(0), jnp.arange(_COLUMNS, dtype=jnp.uint32), 1), view.load(bits)
        found = [view.sweep(state, rule, scales, seeds, jnp.int32(1)) for rule in rules]
        ends = [(view.unload(new), change) for new, change in found]
        return streams.uniforms(seeds, 1, jnp.arange(n)), view.energies(state), ends

    uniform, energies, ends = swept(couplings, linear, scales, bits)
    uniform = np.asarray(uniform, float)
    np.testing.assert_allclose(energies, _energies(matrix, linear, bits), atol=1e-2)
    for rule, (new, change) in zip(rules, ends, strict=True):
        expected = _sequential(rule, matrix, linear, scales, uniform, np.asarray(couplings.order), bits)
        np.testing.assert_array_equal(new, expected)
        difference = _energies(matrix, linear, expected) - _energies(matrix, linear, bits)
        np.testing.assert_allclose(change, difference, atol=1e-2)


def _sequential(
    rule: acceptance.Rule,
    matrix: np.ndarray,
    linear: np.ndarray,
    scales: np.ndarray,
    uniform: np.ndarray,
    order: np.ndarray,
    bits: np.ndarray,
) -> np.ndarray:
    x = bits.astype(float)
    for place, site in enumerate(order):
        field, u = scales * (linear[site] + matrix[site] @ x), uniform[place]
        change = (1 - 2 * x[site]) * field
        if rule is acceptance.heat_bath:
            x[site] = field < np.log((1 - u) / u)
        else:
            flips = change < 0 if rule is acceptance.descend else change <= -np.log(u)
            x[site] = np.where(flips, 1 - x[site], x[site])
    return x.astype(np.int8)


def _energies(matrix: np.ndarray, linear: np.ndarray, bits: np.ndarray) -> np.ndarray:
    x = bits.astype(float)
    energies: np.ndarray = np.sum(x * (0.5 * matrix @ x + linear[:, None]), axis=0)
    return energies
