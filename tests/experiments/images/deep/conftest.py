"""Dtypes are promoted by JAX's standard rules, as flax and optax assume; a small network that several tests look at."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.images.deep import networks

IMAGES = jax.random.randint(jax.random.key(0), (8, 12, 12, 3), 0, 256).astype(jnp.uint8)
NETWORK = networks.get("conv-small")


@pytest.fixture(autouse=True)
def as_flax_assumes() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="session")
def variables() -> Any:
    """Those of NETWORK, as they are drawn."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.jit(lambda key: NETWORK.init(key, IMAGES, train=False))(jax.random.key(1))
