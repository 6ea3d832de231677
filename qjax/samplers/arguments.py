"""The arguments of a sampler's call, checked once for all samplers."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo


def check_call(key: Any, qubo: Any, num_reads: Any, initial_states: Any) -> tuple[jax.Array, int, jax.Array | None]:
    """Arguments checked: (typed key, num_reads, initial states int8 (*batch, num_reads, n) or None).

    Errors: ValueError naming the argument; initial states other than 0 and 1 are found where they are not traced.
    """
    if not isinstance(qubo, Qubo):
        raise ValueError(f"qubo must be a qjax.Qubo, got {type(qubo).__name__}")
    if qubo.linear.dtype.itemsize < 4:
        raise ValueError(f"qubo must be of float32 or float64 to be sampled, got {qubo.linear.dtype}")
    try:
        num_reads = operator.index(num_reads)
    except TypeError:
        raise ValueError(f"num_reads must be a static integer, got {num_reads!r}") from None
    if num_reads < 1:
        raise ValueError(f"num_reads must be at least 1, got {num_reads}")
    key = _typed_key(key)
    if initial_states is None:
        return key, num_reads, None
    if not isinstance(initial_states, jax.Array):
        initial_states = np.asarray(initial_states)
    if not only_bits(initial_states):
        raise ValueError("initial_states must hold 0 and 1 only")
    initial = jnp.asarray(initial_states)
    shape = (*qubo.batch_shape, num_reads, qubo.num_bits)
    try:
        fits = np.broadcast_shapes(initial.shape, shape) == shape and initial.shape[-1:] == shape[-1:]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"initial_states must broadcast to {shape} (*batch, reads, bits), got {initial.shape}")
    initial = (initial > 0).astype(jnp.int8)
    return key, num_reads, jnp.broadcast_to(initial.reshape((1,) * (len(shape) - initial.ndim) + initial.shape), shape)


def check_blocks(key: Any, qubo: Any, num_reads: Any, initial_states: Any, blocks: Any) -> None:
    """The arguments of a call with blocks; without blocks none is looked at.

    Errors: those of `check_call`; ValueError for what is no qjax.Blocks, blocks that do not fit the Qubo, and initial
    states outside them, where these are not traced.
    """
    if blocks is None:
        return
    if not isinstance(blocks, Blocks):
        raise ValueError(f"blocks must be qjax.Blocks or None, got {type(blocks).__name__}")
    _, _, initial = check_call(key, qubo, num_reads, initial_states)
    blocks.check(qubo.num_bits)
    if initial is not None:
        blocks.check_states("initial_states", initial)


def _typed_key(key: Any) -> jax.Array:
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"key must be a JAX random key, got {type(key).__name__}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype != jnp.uint32 or key.ndim != 1:
            raise ValueError(f"key must be one JAX random key, got {key.dtype} of shape {key.shape}")
        return jnp.asarray(jax.random.wrap_key_data(jnp.asarray(key)))
    if key.ndim:
        raise ValueError(f"key must be one key, got an array of keys of shape {key.shape}: use jax.vmap")
    return jnp.asarray(key) if isinstance(key, np.ndarray) else key


def only_bits(states: Any) -> bool:
    """Whether an array holds 0 and 1 only; True for a traced one, whose values are not known."""
    if isinstance(states, jax.core.Tracer) or states.dtype == bool:
        return True
    if isinstance(states, jax.Array) and not _on_host(states):
        # Evaluated at once, also inside jit, where the array is a constant.
        with jax.ensure_compile_time_eval():
            return bool(((states == 0) | (states == 1)).all())
    held = np.asarray(states)
    return bool(((held == 0) | (held == 1)).all())


def _on_host(array: jax.Array) -> bool:
    return array.is_fully_addressable and {device.platform for device in array.devices()} == {"cpu"}
