"""What `refine` dispatches, exported for CUDA and TPU on a machine that has neither. Nothing runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.descend import chunk, refine
from qjax.descend.refine import Refine
from tests.descend.test_chunk import DATA, KEY, PARAMS, STATE, cross_entropy
from tests.exports import PLATFORMS, exported, products

pytestmark = pytest.mark.slow


def flipped(key: jax.Array, batch: Any) -> Any:
    flips = jax.random.bernoulli(key, shape=batch["image"].shape[:1])
    image = jnp.where(flips[:, None, None, None], batch["image"][:, :, ::-1], batch["image"])
    return {**batch, "image": image}


def dropped_out(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    kept = jax.random.bernoulli(key, 0.5, batch["image"].shape).astype(batch["image"].dtype)
    return cross_entropy(params, state, {**batch, "image": 2 * kept * batch["image"]})


# A convolution and batch statistics, from augmented images.
PROGRAM = Refine(cross_entropy, optax.adam(1e-2), batch_size=4, chunk_size=7, augment=flipped)
CHANGES = {
    "plain": {},
    "microbatches": {"microbatch_size": 2},
    "bfloat16": {"compute_dtype": jnp.bfloat16},
    "bfloat16 microbatches": {"compute_dtype": jnp.bfloat16, "microbatch_size": 2},
    "from host memory": {"resident": False},
    "all rows": {"batch_size": None},
    "stochastic": {"loss": dropped_out, "stochastic": True},
    "skipping faults": {"on_nonfinite": "skip"},
    "the head alone": {"trainable": ("head",)},
    "muon": {"optimizer": optax.contrib.muon(1e-2)},
    "line search": {"optimizer": optax.lbfgs(), "batch_size": None, "augment": None},
    "mesh": {"mesh": jax.make_mesh((1,), ("data",))},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_programs_of_a_run_go_to_accelerators(name: str) -> None:
    """The first state, the loop on the device over a chunk, the step of the loop on the host, an epoch's order."""
    program = replace(PROGRAM, loop="device", **CHANGES[name])
    size, start = 22, partial(refine.start, program, size=22)
    first, _ = jax.eval_shape(start, PARAMS, STATE)
    state, data, key = refine._arguments(program, first, DATA)
    traced = chunk.traced(program, size, state, data, key)
    for platform in PLATFORMS:
        send = partial(exported, platform=platform)
        send(start, PARAMS, STATE)
        given = traced.captured, state, data, key
        advance = partial(chunk._advance, program, traced.step, size=size)
        texts = [send(advance, *given, np.int32(7)), send(partial(chunk._one, traced.step), *given)]
        send(lambda key, step: chunk.epoch_order(program, key, step, size), KEY, np.int32(0))
        for text in texts:
            convolutions = [line for line in products(text) if "stablehlo.convolution" in line]
            # Of a head alone, backward stops above the convolution.
            assert len(convolutions) >= (1 if name == "the head alone" else 2)
            half = program.compute_dtype is not None
            assert all(("xbf16" in line) == half for line in convolutions)


def test_a_chunk_is_one_loop_on_accelerators_also_with_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What "auto" says is asked of the machine that runs it."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    first, _ = jax.eval_shape(partial(refine.start, PROGRAM, size=22), PARAMS, STATE)
    given = refine._arguments(PROGRAM, first, DATA)
    traced = chunk.traced(PROGRAM, 22, *given)
    assert isinstance(traced, chunk.DeviceLoop)
    advance = partial(chunk._advance, PROGRAM, traced.step, size=22)
    text = exported(advance, traced.captured, *given, np.int32(7), platform="tpu")
    assert "stablehlo.while" in text
