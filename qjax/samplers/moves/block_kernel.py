"""The sequential flips inside a block of bits as one GPU kernel (Pallas, by its Triton route).

The flips of a column need nothing from other columns, so one program takes 64 columns and makes all B flips of a block
with its rows in registers, without a barrier:

    for k = 0 .. B-1:   new_k = decide(w f_k + bias_k, x_k, noise_k);   d = new_k - x_k
                        change += d f_k;   f_j += M_kj d   for the later bits j > k

where XLA's loop (`qjax.samplers.moves.sweeps`) makes several launches per bit. Each number is computed as in that loop,
up to the rounding of w f + bias, which either compiler may fuse.

Measured on an H100 (JAX 0.11.2): a call of `anneal` takes 0.18 to 0.24 of its time with the loop, dense and Gram, 2000
bits, five sweeps, 64 and 1024 reads, all bits equal (`experiments/README.md`).

`setting` says when it is used:

    "auto"        (the default) in float32, in programs for NVIDIA GPUs that are traced beside one of compute capability
                  8 or more (Ampere), as Triton needs
    "0"           never
    "1"           in all programs for NVIDIA GPUs, exported ones too; those for other devices keep the loop
    "interpret"   everywhere, by the interpreter: for tests

The environment variable QJAX_PALLAS, read when this module is imported, gives the default; `with setting("0"):` is for
the calls inside. The value is part of the keys of JAX's caches: a call under another value is traced again.

JAX 0.11 deprecates Pallas's Triton route, and warns when a program with this kernel is lowered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.moves.acceptance import Rule

# Columns of a program, one per thread: the 64 reads of a default call fill one.
_COLUMNS, _WARPS = 64, 2

Flips = Callable[..., tuple[jax.Array, jax.Array]]

setting: Any = jax.make_user_context(os.environ.get("QJAX_PALLAS", "") or "auto")


def instead_of(loop: Flips, dtype: Any) -> Flips:
    """The kernel where `setting` says so for arrays of this dtype, else `loop`, which takes the arguments of `flips`.

    Errors: ValueError for an unknown setting.
    """
    match setting.value:
        case "auto":
            return partial(_by_platform, loop) if dtype == jnp.float32 and fits(jax.local_devices()[0]) else loop
        case "0":
            return loop
        case "1":
            return partial(_by_platform, loop)
        case "interpret":
            return partial(flips, interpret=True)
    raise ValueError(f"QJAX_PALLAS must be auto, 0, 1 or interpret, got {setting.value!r}")


def fits(device: Any) -> bool:
    """Whether Triton compiles for it. AMD's devices have names where NVIDIA's have numbers."""
    found = re.match(r"(\d+)\.\d+$", str(getattr(device, "compute_capability", "")))
    return device.platform == "gpu" and found is not None and int(found[1]) >= 8


def _by_platform(loop: Flips, rule: Rule, *arrays: Any) -> tuple[jax.Array, jax.Array]:
    # Chosen when the program is lowered, so that the CPU of a machine with a GPU keeps the loop.
    return lax.platform_dependent(*arrays, cuda=partial(flips, rule), default=partial(loop, rule))


def flips(
    rule: Rule,
    fields: jax.Array,
    old: jax.Array,
    noise: jax.Array,
    among: jax.Array,
    weights: jax.Array,
    bias: jax.Array | None,
    change: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Each bit of a block once, in order -> (new bits (B, C), `change` with the block's change of E/scale added (C,)).

    fields, old, noise (B, C), bias (B, C) or None: of the block's bits. among (B, B): the couplings among them, of
    which only those above the diagonal are read. weights, change (C,).
    """
    # Imported here: it takes a second, and hardly any process needs it.
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    size, columns = fields.shape
    surplus = -columns % _COLUMNS
    rows = [fields, old, noise] if bias is None else [fields, old, noise, bias]

    def kernel(among: Any, weights: Any, change: Any, *refs: Any) -> None:
        *inputs, new_out, change_out = refs
        # All loads come before the first store, so that no load waits for a store.
        w, total = weights[...], change[...]
        f, x, u, *b = ([ref[k] for k in range(size)] for ref in inputs)
        for k in range(size):
            scaled = f[k] * w + b[0][k] if b else f[k] * w
            new = rule.decide(scaled, x[k], u[k])
            delta, x[k] = new - x[k], new
            total = total + delta * f[k]
            for j in range(k + 1, size):
                f[j] = f[j] + among[k, j] * delta
        for k in range(size):
            new_out[k] = x[k]
        change_out[...] = total

    def padded(array: jax.Array) -> jax.Array:
        return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, surplus)])

    square = pallas.BlockSpec((size, size), lambda c: (0, 0))
    row = pallas.BlockSpec((_COLUMNS,), lambda c: (c,))
    block = pallas.BlockSpec((size, _COLUMNS), lambda c: (0, c))
    new, change = pallas.pallas_call(
        kernel,
        grid=((columns + surplus) // _COLUMNS,),
        in_specs=[square, row, row, *[block] * len(rows)],
        out_specs=[block, row],
        out_shape=[jax.ShapeDtypeStruct((*a.shape[:-1], columns + surplus), a.dtype) for a in (old, change)],
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=interpret,
        name="block_of_flips",
    )(among, padded(weights), padded(change), *map(padded, rows))
    return new[:, :columns], change[:columns]
