"""The automatic range of temperatures of numbers in digits, against costs that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, optimize

from qjax import blocks
from qjax.energy.couplings import Dense
from qjax.energy.qubo import Qubo
from qjax.samplers.moves.temperature import automatic_range

_SCALE = 0.5


def apart(centres: np.ndarray, digits: int) -> tuple[Qubo, np.ndarray]:
    """A batch of one, E = scale/2 sum_i (v_i - centre_i)^2 over v_i = 0 .. 2^b - 1 in digits; and the costs
    (G, 2^b - 1) of all moves out of its minimum, the cheapest of each number first."""
    weights = 2.0 ** np.arange(digits)
    matrix = linalg.block_diag(*[np.outer(weights, weights) - np.diag(weights**2)] * len(centres))
    linear = (0.5 * weights[None, :] - centres[:, None]) * weights[None, :]
    levels = 0.5 * _SCALE * (np.arange(2**digits)[None, :] - centres[:, None]) ** 2
    costs = np.sort(levels, axis=1)
    qubo = Qubo.from_terms(linear.reshape(1, -1), Dense(jnp.asarray(matrix, jnp.float32)), scale=_SCALE)
    return qubo, costs[:, 1:] - costs[:, :1]


@pytest.mark.slow
@pytest.mark.parametrize("digits", [1, 3])
def test_range_of_digits_counts_the_cheapest_move_of_each_number(digits: int) -> None:
    """Numbers that are not coupled, so that every quench ends in the minimum: both ends, cold and warm, by their
    formulas."""
    centres = np.linspace(0.1, 2.0**digits - 1.15, 9)
    qubo, costs = apart(centres, digits)
    held = blocks.digits(np.arange(9 * digits).reshape(9, digits))
    least = costs[:, 0]
    cold = optimize.brentq(lambda beta: np.sum(least * np.exp(-beta * least)) - 0.01 * least.mean(), 1, 1e4)
    hot = 2 * np.log(2) / costs.mean()
    half_way = np.sqrt(2 * np.log(2) / least.mean() * cold)
    for warm, first in ((False, hot), (True, half_way)):
        found = jax.jit(automatic_range, static_argnums=1)(qubo, warm, None, held)
        np.testing.assert_allclose(np.asarray(found)[:, 0], [first, cold], rtol=2e-3)


def test_problems_of_a_batch_in_digits_share_a_warm_range_in_units_of_their_scales() -> None:
    ones, scales = np.ones(3), jnp.asarray([1.0, 2.0, 8.0])
    single = [apart(centre * ones, 2)[0] for centre in (0.2, 1.3, 2.45)]
    linear = jnp.concatenate([qubo.linear for qubo in single])
    qubo = Qubo.from_terms(linear, single[0].couplings, scale=scales)
    held = blocks.digits(np.arange(6).reshape(3, 2))
    warm = [np.asarray(end) * scales for end in automatic_range(qubo, True, None, held)]
    cold = [np.asarray(end) * scales for end in automatic_range(qubo, False, None, held)]
    for end in warm:
        np.testing.assert_allclose(end, end[0], rtol=1e-6)
    np.testing.assert_allclose(warm[1][0], np.median(cold[1]), rtol=1e-5)
    assert len(np.unique(np.round(cold[1], 3))) == 3
