"""The moves that a tabu search chooses from: changes of energy as they are, states inside the blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import samplers
from qjax.samplers.moves import allowed, streams
from qjax.samplers.moves.neighbourhood import Groups
from tests.samplers import blocked, problems

pytestmark = pytest.mark.slow

# All cases side by side, 60 bits, and how many moves a state has: those of the groups, and flips of the free bits.
HELD = blocked.side_by_side()
COUNT = (7 + 7 + 3 + 2) + (3 * 2 + 4) + (2 + 1 + 2 + 2) + (3 + 1 + 2) + (3 + 1) + (2 + 2 + 3 + 1)


def groups(columns: int) -> tuple[Any, Groups]:
    """A Qubo of two problems, of scales below and above 0, and the neighbourhood for so many columns of each."""
    qubo = replace(problems.qubo("dense", 60, (2,)), scale=jnp.asarray([-0.5, 2.0]))

    def per_column(values: jax.Array) -> jax.Array:
        return jnp.repeat(values, columns, axis=-1)

    return qubo, Groups(qubo, per_column, HELD)


def test_every_move_has_the_change_that_it_makes_and_keeps_the_blocks() -> None:
    """All moves of one state at once, each in a column of its own."""
    count = groups(1)[1].count
    index = jnp.tile(jnp.arange(count), 2)

    @jax.jit
    def moved() -> tuple[Any, ...]:
        _, moves = groups(count)
        seeds = jnp.repeat(streams.seeds(jax.random.key(3), jnp.arange(1), 2), count, axis=1)
        start = allowed.states(HELD, None, seeds, 0, 60)
        state, energy = moves.look(moves.load(start))
        until = jnp.zeros((2 * count, moves.marks), jnp.int32)
        found = moves.found(state, until, jnp.int32(0))
        after, until = moves.make(state, found, index, until, jnp.int32(0), jnp.full(2 * count, 3))
        again, lower = moves.look(moves.bits(after))
        changes = jnp.take_along_axis(found.changes, index[:, None], axis=1)[:, 0]
        bits = [start.T, moves.unload(moves.bits(after)).T]
        return changes, *bits, lower - energy, after.fields - again.fields, until

    changes, start, bits, difference, error, until = (np.asarray(part) for part in moved())
    makes = np.isfinite(changes)
    assert (makes.reshape(2, count).sum(1) == COUNT).all()
    assert HELD.feasible(bits).all()
    np.testing.assert_allclose(error, 0, atol=1e-4)
    np.testing.assert_allclose(difference, np.where(makes, changes, 0), atol=1e-3)
    qubo = groups(1)[0]
    before, after = (problems.energies(qubo, x.reshape(2, count, 60)) for x in (start, bits))
    scale = np.abs(np.asarray(qubo.scale))[:, None]
    np.testing.assert_allclose(np.where(makes, changes, 0).reshape(2, count), (after - before) / scale, atol=1e-3)
    for part in (slice(0, count), slice(count, 2 * count)):
        assert len({x.tobytes() for x in bits[part][makes[part]]}) == COUNT
    # Each move bars something, at most a quarter of its like, for three steps; one that is none bars nothing.
    np.testing.assert_array_equal(until.max(1)[~makes], 0)
    assert set(until.max(1)[makes].tolist()) <= {1, 2, 3, 4}


def test_starts_from_two_elites_stay_inside_the_blocks() -> None:
    @jax.jit
    def mixed(part: jax.Array) -> tuple[jax.Array, ...]:
        _, moves = groups(50)
        seeds = streams.seeds(jax.random.key(4), jnp.arange(50), 2)
        a, b = (moves.load(allowed.states(HELD, None, seeds, step, 60)) for step in (1, 2))
        words = streams.words(seeds, 3, jnp.arange(60)).T
        redrawn = part > streams.uniforms(seeds, 4, jnp.arange(60)).T
        pairs = ((a, b), (a, a))
        return tuple(
            moves.unload(x).T for x in (a, b, *(moves.mixed(*pair, words, redrawn, seeds, 5) for pair in pairs))
        )

    for part in (0.0, 0.3):
        a, b, new, same = (np.asarray(x) for x in mixed(jnp.float32(part)))
        assert HELD.feasible(new).all() and HELD.feasible(same).all()
        assert (new != a).any() and (new != b).any()
        assert (same == a).all() == (part == 0)


def test_greedy_ends_where_no_move_lowers_the_energy() -> None:
    qubo, _ = groups(1)
    samples = samplers.get("greedy")(jax.random.key(5), qubo, 6, blocks=HELD)
    assert np.asarray(samples.info["converged"]).all()

    @jax.jit
    def least(bits: jax.Array) -> jax.Array:
        _, moves = groups(6)
        state, _ = moves.look(moves.load(bits.reshape((-1, 60)).T))
        return moves.found(state, jnp.zeros((12, moves.marks), jnp.int32), jnp.int32(0)).changes.min()

    assert float(least(samples.bits)) > -1e-4
