"""The moves that a tabu search chooses from: changes of energy as they are, states inside the blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import Blocks
from qjax.samplers.moves import allowed, streams
from qjax.samplers.moves.neighbourhood import Groups
from tests.samplers import blocked, problems

# Moves of one state of ten bits: those of the groups, and a flip of each free bit.
COUNTS = {
    "digits": 7 + 7 + 3,
    "levels": 3 * 2 + 4,
    "one_hot": 2 + 1 + 2 + 2,
    "choose": 3 + 1 + 2,
    "assignment": 3 + 1,
    "mixed": 2 + 2 + 3 + 1,
}


def groups(held: Blocks, columns: int) -> tuple[Any, Groups]:
    """A Qubo of two problems of scales below and above 0, and the neighbourhood for so many columns of each."""
    qubo = problems.qubo("dense", 10, (2,))
    qubo = replace(qubo, scale=jnp.asarray([-0.5, 2.0]))

    def per_column(values: jax.Array) -> jax.Array:
        return jnp.repeat(values, columns, axis=-1)

    return qubo, Groups(qubo, per_column, held)


@pytest.mark.parametrize("name", list(blocked.CASES))
def test_every_move_has_the_change_that_it_makes_and_keeps_the_blocks(name: str) -> None:
    """All moves of one state at once, each in a column of its own; states reached differ; marks bar some way back."""
    held = blocked.CASES[name]
    count = groups(held, 1)[1].count
    qubo, moves = groups(held, count)
    seeds = jnp.repeat(streams.seeds(jax.random.key(3), jnp.arange(1), 2), count, axis=1)
    start = allowed.states(held, None, seeds, 0, 10)
    state, energy = moves.look(moves.load(start))
    until = jnp.zeros((2 * count, moves.marks), jnp.int32)
    found = moves.found(state, until, jnp.int32(0))
    index = jnp.tile(jnp.arange(count), 2)
    after, until = moves.make(state, found, index, until, jnp.int32(0), jnp.full(2 * count, 5))
    bits = np.asarray(moves.unload(moves.bits(after))).T.reshape(2, count, 10)
    assert held.feasible(bits).all()
    changes = np.asarray(found.changes)[np.arange(2 * count), index].reshape(2, count)
    makes = np.isfinite(changes)
    assert (makes.sum(1) == COUNTS[name]).all()
    scale = np.abs(np.asarray(qubo.scale))[:, None]
    true = problems.energies(qubo, bits) - problems.energies(qubo, np.asarray(start).T.reshape(2, count, 10))
    np.testing.assert_allclose(np.where(makes, changes, 0), true / scale, rtol=1e-5, atol=1e-5)
    again, lower = moves.look(moves.bits(after))
    np.testing.assert_allclose(after.fields, again.fields, atol=1e-5)
    np.testing.assert_allclose((lower - energy).reshape(2, count), true / scale, rtol=1e-5, atol=1e-5)
    assert all(
        len({state.tobytes() for state in each[made]}) == made.sum() for each, made in zip(bits, makes, strict=True)
    )


@pytest.mark.parametrize("name", list(blocked.CASES))
def test_starts_from_two_elites_stay_inside_the_blocks(name: str) -> None:
    held = blocked.CASES[name]
    _, moves = groups(held, 100)
    seeds = streams.seeds(jax.random.key(4), jnp.arange(100), 2)
    a, b = (moves.load(allowed.states(held, None, seeds, step, 10)) for step in (1, 2))
    words = streams.words(seeds, 3, jnp.arange(10)).T
    for part in (0.0, 0.3):
        redrawn = part > streams.uniforms(seeds, 4, jnp.arange(10)).T
        new = moves.mixed(a, b, words, redrawn, seeds, 5)
        assert held.feasible(moves.unload(new).T).all()
        assert (np.asarray(new) != np.asarray(a)).any() and (np.asarray(new) != np.asarray(b)).any()
        if part == 0:
            np.testing.assert_array_equal(moves.mixed(a, a, words, redrawn, seeds, 5), a)
