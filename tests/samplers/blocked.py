"""Blocks for the sampler tests, and the states that they allow by enumeration."""

from __future__ import annotations

import numpy as np

from qjax import Blocks, blocks
from tests.samplers import problems

TERNARY = [(0, 0), (1, 0), (1, 1)]
# One for every kind of family, of ten bits, some of them free; groups neither sorted nor contiguous.
CASES = {
    "digits": blocks.digits([[0, 4, 2], [1, 7, 9], [8, 5]]),
    "levels": blocks.levels([[0, 4], [7, 2], [1, 3]], TERNARY),
    "one_hot": blocks.one_hot([[0, 5, 2], [6, 1], [7, 3, 4]]),
    "choose": blocks.choose([[0, 5, 2, 7, 9], [6, 1, 3]], 2),
    "assignment": blocks.assignment([[0, 5, 9], [7, 2, 1], [3, 4, 8]]),
    "mixed": blocks.one_hot([[0, 1, 2]]) + blocks.levels([[4, 3]], TERNARY) + blocks.choose([[5, 6, 7, 9]], 1),
}
# All kinds in 14 bits, one of them free.
ALL = (
    blocks.one_hot([[0, 9, 4]])
    + blocks.levels([[1, 5]], TERNARY)
    + blocks.choose([[2, 6, 13, 7]], 2)
    + blocks.assignment([[3, 8], [12, 10]])
)


def side_by_side() -> Blocks:
    """All cases, the k-th of them on bits 10 k .. 10 k + 9."""
    joined = Blocks()
    for k, held in enumerate(CASES.values()):
        joined += held.shifted(10 * k)
    return joined


def allowed(held: Blocks, n: int) -> np.ndarray:
    """All states of n bits inside the blocks, (S, n)."""
    states = problems.all_states(n)
    return states[np.asarray(held.feasible(states))]
