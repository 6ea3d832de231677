"""Blocks as data: the states that they allow, what they refuse, and penalties that vanish on these states alone."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qjax import Blocks, Gram, Implicit, Qubo, Sparse, blocks, penalties

N = 8
STATES = np.array(list(itertools.product([0, 1], repeat=N)), np.int8)
TERNARY = [(0, 0), (1, 0), (1, 1)]
# Bit 3 or more stay free, but for the whole.
CASES = {
    "digits": blocks.digits([[0, 4, 2], [1, 7]]),
    "levels": blocks.levels([[0, 4], [7, 2], [1, 3]], TERNARY),
    "thermometer": blocks.levels([[0, 4, 6]], [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]),
    "one_hot": blocks.one_hot([[0, 5, 2], [6, 1], [7, 3, 4]]),
    "choose": blocks.choose([[0, 5, 2, 7], [6, 1]], 2),
    "assignment": blocks.assignment([[0, 5], [7, 2]]),
    "whole": blocks.one_hot([[0, 1, 2]]) + blocks.levels([[4, 3]], TERNARY) + blocks.choose([[5, 6, 7]], 1),
}


def satisfied(name: str, x: np.ndarray) -> bool:
    """The definitions, one state at a time."""
    match name:
        case "digits":
            return True
        case "levels":
            return all((x[i], x[j]) in TERNARY for i, j in ((0, 4), (7, 2), (1, 3)))
        case "thermometer":
            return bool(x[0] >= x[4] >= x[6])
        case "one_hot":
            return all(sum(x[i] for i in group) == 1 for group in ([0, 5, 2], [6, 1], [7, 3, 4]))
        case "choose":
            return x[0] + x[5] + x[2] + x[7] == 2 and x[6] + x[1] == 2
        case "assignment":
            return (x[0], x[5], x[7], x[2]) in ((1, 0, 0, 1), (0, 1, 1, 0))
        case _:
            return x[0] + x[1] + x[2] == 1 and (x[4], x[3]) in TERNARY and x[5] + x[6] + x[7] == 1


@pytest.mark.parametrize("name", CASES)
def test_feasible_states_and_their_number(name: str) -> None:
    held, expected = CASES[name], np.array([satisfied(name, x) for x in STATES])
    held.check(N)
    np.testing.assert_array_equal(held.feasible(STATES.reshape((2, -1, N))).reshape(-1), expected)
    np.testing.assert_array_equal(jax.jit(lambda held: held.feasible(STATES))(held), expected)
    assert math.isclose(held.log_count(N), math.log(expected.sum()), rel_tol=1e-12)
    held.check_states("states", STATES[expected])
    if not expected.all():
        with pytest.raises(ValueError, match="states must be inside the blocks, group"):
            held.check_states("states", STATES)


def qubo(form: str, scale: float = 0.5) -> Qubo:
    rng = np.random.default_rng(3)
    matrix = rng.integers(-4, 5, (N, N)).astype(np.float32)
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0)
    rows, cols = np.triu_indices(N, 1)
    held: Any = {
        "dense": matrix,
        "sparse": Sparse.from_edges(N, rows, cols, matrix[rows, cols]),
        "gram": Gram(jnp.asarray(rng.normal(size=(3, N)), jnp.float32)),
        "implicit": Implicit(Partial(jnp.matmul, jnp.asarray(matrix)), N),
    }[form]
    return Qubo.from_terms(rng.normal(size=N), held, scale=scale)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("form", "scale"), [("dense", 0.5), ("sparse", -2.0), ("gram", 0.5), ("implicit", -1.0)])
def test_penalties_vanish_on_allowed_states_alone(name: str, form: str, scale: float) -> None:
    """At least |scale| * weight on all others; the automatic weight puts the minimum of the sum inside."""
    problem, held = qubo(form, scale), CASES[name]
    expected = np.array([satisfied(name, x) for x in STATES])
    added = np.asarray(penalties.blocks(problem, held, 3.0).energies(STATES))
    np.testing.assert_allclose(added[expected], 0, atol=1e-4)
    assert (added[~expected] > 3.0 * abs(scale) - 1e-4).all()
    if name == "one_hot":
        both = np.asarray((problem + penalties.blocks(problem, held)).energies(STATES))
        assert expected[both.argmin()]


def test_states_that_no_pair_of_bits_tells_have_no_penalty() -> None:
    held = blocks.levels([[0, 1, 2]], [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)])
    with pytest.raises(ValueError, match="forbid the state"):
        penalties.blocks(qubo("dense"), held)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda held: penalties.blocks(qubo("dense"), held).linear)(CASES["one_hot"])


def test_joining_and_cutting() -> None:
    """Families that differ in their bits alone become one; `within` takes the groups of one channel."""
    joined = blocks.one_hot([[0, 1], [2, 3, 4]]) + blocks.one_hot([[5, 6]]) + blocks.levels([[7, 8]], TERNARY)
    assert [family.indices.shape for family in joined.families] == [(2, 2), (1, 3), (1, 2)]
    assert joined.num_bits == 9
    one, two = joined.within(0, 5), joined.within(5, 9)
    assert [f.indices.tolist() for f in one.families] == [[[0, 1]], [[2, 3, 4]]]
    assert [f.indices.tolist() for f in two.families] == [[[0, 1]], [[2, 3]]]
    assert Blocks().feasible(STATES).all()
    assert [f.kind for f in joined.of_kinds(["states"]).families] == ["states"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: blocks.one_hot([[0, 1], []]), "group 1"),
        (lambda: blocks.one_hot([[0.5, 1]]), "group 0"),
        (lambda: blocks.levels([[0, 1]], []), r"group \[0, 1\] has no states"),
        (lambda: blocks.levels([[0, 1]], [(0, 0), (0, 0)]), r"group \[0, 1\] must be distinct"),
        (lambda: blocks.levels([[0, 1]], [(0, 2)]), r"group \[0, 1\] must be distinct"),
        (lambda: blocks.levels([[0, 1, 2]], TERNARY), r"group \[0, 1, 2\]"),
        (lambda: blocks.digits([range(13)]), "more than 12 bits"),
        (lambda: blocks.choose([[0, 1]], 3), r"group \[0, 1\] .* no state of 3"),
        (lambda: blocks.assignment([[0, 1, 2]]), "square must have shape"),
        (lambda: blocks.one_hot([[0, 1], [2, N]]).check(N), r"group 1 of one_hot \(family 0\) has bit 8"),
        (lambda: blocks.choose([[0, -1]], 1).check(N), r"group 0 of choose \(family 0\) has bit -1"),
        (lambda: blocks.digits([[0, 1], [2, 2]]).check(N), r"group 1 of states \(family 0\) has bit 2 twice"),
        (lambda: (blocks.one_hot([[0, 1]]) + blocks.digits([[1, 2]])).check(N), r"as has group 0 of one_hot"),
    ],
)
def test_bad_blocks_are_named(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()
