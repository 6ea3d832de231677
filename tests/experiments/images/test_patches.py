"""Filters from whitened windows: their responses have unit deviation and no mean, and differ from one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images import models, patches


def images() -> jax.Array:
    """Neighbouring pixels are alike, as in photographs."""
    noise = jax.random.normal(jax.random.key(0), (40, 14, 14, 2))
    return 3.0 + models.gather_windows(noise, 3).reshape(40, 12, 12, 9, 2).mean(3)


def test_responses_are_centred_with_unit_deviation() -> None:
    x = images()
    filters = patches.whitened(jax.random.key(1), x, 8, 3, 1, 0.1)
    responses = models.gather_windows(x, 3) @ filters.kernel.reshape(-1, 8) + filters.bias[None, None, None, :]
    # About 4,000 windows drawn with replacement, correlated: means stray by 0.1 in fewer than one of 10^4 draws.
    np.testing.assert_allclose(responses.mean((0, 1, 2)), np.zeros(8), atol=0.1)
    np.testing.assert_allclose(responses.std((0, 1, 2)), np.ones(8), atol=0.1)


def test_responses_of_whitened_filters_are_less_alike_than_those_of_plain_windows() -> None:
    x = images()
    plain = patches.whitened(jax.random.key(1), x, 16, 3, 1, 1e6)
    white = patches.whitened(jax.random.key(1), x, 16, 3, 1, 1e-2)

    def overlap(filters: patches.Filters) -> float:
        responses = (models.gather_windows(x, 3) @ filters.kernel.reshape(-1, 16)).reshape(-1, 16)
        correlation = np.corrcoef(np.asarray(responses).T) - np.eye(16)
        return float(np.abs(correlation).mean())

    assert overlap(white) < 0.8 * overlap(plain)


def test_more_filters_than_windows_is_an_error() -> None:
    with pytest.raises(ValueError, match="need as many windows"):
        patches.whitened(jax.random.key(0), jnp.ones((1, 3, 3, 1)), 2, 3, 1, 0.1)
