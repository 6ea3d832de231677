"""Programs lowered for machines that are not here, by `jax.export`, and what no program for an accelerator may hold."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh

PLATFORMS = ("cuda", "tpu")
KERNEL = "__gpu$xla.gpu.triton"  # what a Pallas kernel is in a program for CUDA


def exported(function: Callable[..., Any], *args: Any, platform: str, **static: Any) -> str:
    """The StableHLO of a function, jitted or not, lowered for "cuda" or "tpu". Fails where JAX cannot export it, and on

    - host callbacks, infeeds and outfeeds, and kernels of the CPU's LAPACK
    - arrays of float64, whether or not JAX has 64 bits switched on
    """
    jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
    with ExitStack() as stack:
        if platform == "cuda" and any(field.name == "platform" for field in dataclasses.fields(AbstractDevice)):
            # Without a GPU, Pallas has to be told of one from JAX 0.11 on.
            device = AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="gpu")
            stack.enter_context(jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)))
        # JAX promises no stable form of Pallas kernels: all other calls are on its list of what is kept.
        unchecked = [export.DisabledSafetyCheck.custom_call(KERNEL)]
        program = export.export(jitted, platforms=[platform], disabled_checks=unchecked)(*args, **static)
    assert not program.ordered_effects and not program.unordered_effects
    text = program.mlir_module()
    foreign = [name for name in calls(text) if "callback" in name or name.startswith("lapack")]
    foreign += re.findall(r"stablehlo\.(?:send|recv|infeed|outfeed)\b", text)
    assert not foreign, f"for {platform}: {foreign}"
    # JAX's own scalars, such as the bias corrections of optax's Adam, are free.
    double = [line.strip()[:200] for line in text.splitlines() if re.search(r"<(?!1xf64)\d[\dx]*xf64>", line)]
    assert not double, f"for {platform}: {double[:3]} and {len(double)} lines in all"
    return text


def calls(text: str) -> list[str]:
    """The names of a program's custom calls."""
    return re.findall(r"custom_call @([\w.$]+)", text)


def products(text: str) -> list[str]:
    """The lines of a program's matrix products and convolutions."""
    return re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)


def imprecise(text: str) -> list[str]:
    """Those of float32 that a TPU rounds to bfloat16 and a GPU to TF32."""
    return [line for line in products(text) if "xf32" in line and "HIGHEST" not in line]
