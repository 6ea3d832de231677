"""flax's layers and optax's updates promote dtypes by JAX's standard rules."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def as_flax_assumes() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
