"""The kernel of the flips inside a block, in Pallas's interpreter, against XLA's loop; and that it lowers for CUDA."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

import qjax.samplers as samplers
from qjax.samplers.moves import acceptance, block_kernel, sweeps
from tests.samplers import problems

pytestmark = pytest.mark.slow

RULES = {"metropolis": acceptance.metropolis, "heat_bath": acceptance.heat_bath, "descend": acceptance.descend}
SIZE, COLUMNS = 8, 70  # a second block of columns, partly filled
CALL = "stablehlo.custom_call @__gpu$xla.gpu.triton"


def arguments(rule: acceptance.Rule, biased: bool, dtype: Any) -> list[Any]:
    """Arguments of `flips` after the rule. In half precision they are whole numbers, which no rounding changes."""
    rng, half = np.random.default_rng(0), jnp.finfo(dtype).bits == 16

    def draw(*shape: int) -> np.ndarray:
        return np.round(3 * rng.normal(size=shape)) if half else rng.normal(size=shape)

    among = np.triu(draw(SIZE, SIZE), 1)
    old, weights = rng.integers(0, 2, (SIZE, COLUMNS)), rng.choice([0.5, 1.0, 2.0], COLUMNS)
    noise = rule.noise(jnp.asarray(rng.uniform(0.01, 0.99, (SIZE, COLUMNS)), jnp.float32))
    bias = jnp.asarray(draw(SIZE, COLUMNS), dtype) if biased else None
    fields, old, among, weights, change = (
        jnp.asarray(a, dtype) for a in (draw(SIZE, COLUMNS), old, among + among.T, weights, draw(COLUMNS))
    )
    return [fields, old, noise, among, weights, bias, change]


@pytest.mark.parametrize(
    ("name", "biased", "dtype"),
    [(name, biased, "float32") for name in RULES for biased in (False, True)]
    + [("metropolis", True, "float64"), ("heat_bath", True, "bfloat16")],
)
def test_the_kernel_makes_the_flips_of_the_loop(name: str, biased: bool, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        values = arguments(RULES[name], biased, dtype)
        bits, change = jax.jit(partial(sweeps.flips, RULES[name]))(*values)
        found = jax.jit(partial(block_kernel.flips, RULES[name], interpret=True))(*values)
        assert found[0].dtype == found[1].dtype == dtype
        assert 0.1 < np.mean(np.asarray(bits != values[1], np.float32)) < 0.9
        np.testing.assert_array_equal(found[0], bits)
        np.testing.assert_allclose(np.asarray(found[1], np.float64), np.asarray(change, np.float64), rtol=1e-5)


def test_the_kernel_under_vmap() -> None:
    """Over the fields; all other arguments are shared."""
    fields, old, noise, among, weights, _, change = arguments(acceptance.metropolis, False, "float32")
    many = jnp.stack([fields, fields + 1, -fields])

    def run(flips: Any, fields: jax.Array) -> Any:
        return flips(acceptance.metropolis, fields, old, noise, among, weights, None, change)

    found = jax.jit(jax.vmap(partial(run, partial(block_kernel.flips, interpret=True))))(many)
    for k in range(3):
        bits, change_k = run(sweeps.flips, many[k])
        np.testing.assert_array_equal(found[0][k], bits)
        np.testing.assert_allclose(found[1][k], change_k, rtol=1e-5)


def test_annealing_with_the_kernel_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks of integer couplings, two problems, plain and vmapped; calls under one setting are traced once."""
    traced, flips = [], block_kernel.flips

    def counted(*args: Any, **kwargs: Any) -> Any:
        traced.append(kwargs)
        return flips(*args, **kwargs)

    monkeypatch.setattr(block_kernel, "flips", counted)
    qubo, sampler, key = problems.qubo("dense", 40, (2,)), samplers.Anneal(6, (0.1, 2.0)), jax.random.key(3)
    with block_kernel.setting("0"):
        loop = sampler(key, qubo, 35)
    assert not traced
    for _ in range(2):
        with block_kernel.setting("interpret"):
            found = sampler(key, qubo, 35)
    assert traced == [{"interpret": True}]
    np.testing.assert_array_equal(found.bits, loop.bits)
    np.testing.assert_array_equal(found.energies, loop.energies)
    with block_kernel.setting("interpret"):
        many = jax.vmap(lambda key: sampler(key, qubo, 35).bits)(key[None])
    np.testing.assert_array_equal(many[0], loop.bits)


def lowered(function: Any, *args: Any, platform: str = "cuda") -> str:
    with ExitStack() as stack:
        if any(field.name == "platform" for field in dataclasses.fields(AbstractDevice)):
            # Without a GPU, JAX 0.11 has to be told of one.
            device = AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="gpu")
            stack.enter_context(jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)))
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", RULES)
def test_the_kernel_lowers_for_cuda(name: str) -> None:
    """To the Triton IR of one call, on a machine without a GPU: nothing runs."""
    values = arguments(RULES[name], True, "float32")
    assert lowered(partial(block_kernel.flips, RULES[name]), *values).count(CALL) == 1


def test_a_whole_call_has_the_kernel_on_gpus_alone_and_only_where_it_is_set() -> None:
    qubo = problems.qubo("dense", 20)

    def run(key: jax.Array) -> Any:
        return samplers.Anneal(2, (0.1, 2.0))(key, qubo, 5).bits

    key, has = jax.random.key(0), {}
    for value, platform in (("0", "cuda"), ("1", "cuda"), ("1", "cpu")):
        with block_kernel.setting(value):
            has[value, platform] = lowered(run, key, platform=platform).count(CALL)
    assert has == {("0", "cuda"): 0, ("1", "cuda"): 1, ("1", "cpu"): 0}


def test_another_setting_is_refused() -> None:
    with block_kernel.setting("yes"), pytest.raises(ValueError, match="QJAX_PALLAS"):
        block_kernel.instead_of(sweeps.flips, jnp.float32)


class Device(NamedTuple):
    platform: str
    compute_capability: str


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "taken"),
    [
        ("gpu", "9.0", "float32", True),
        ("gpu", "12.0", "float32", True),
        ("gpu", "7.5", "float32", False),
        ("gpu", "9.0", "float64", False),
        ("gpu", "gfx942", "float32", False),
        ("tpu", "9.0", "float32", False),
    ],
)
def test_by_itself_it_is_taken_in_float32_where_triton_compiles(
    monkeypatch: pytest.MonkeyPatch, platform: str, capability: str, dtype: str, taken: bool
) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(platform, capability)])
    with block_kernel.setting("auto"):
        assert (block_kernel.instead_of(sweeps.flips, jnp.dtype(dtype)) is not sweeps.flips) == taken


def test_on_cpus_the_default_is_the_loop() -> None:
    assert not block_kernel.fits(jax.devices("cpu")[0])
