"""The store of compiled programs: one entry a program and all that it depends on, and not without end."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax import programs
from qjax.samplers.moves import block_kernel


def double(x):
    return 2 * x


def matmul(x):
    return x @ x


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.default_matmul_precision("highest"),
        lambda: jax.enable_x64(True),
        lambda: jax.numpy_dtype_promotion("standard"),
        lambda: jax.default_device(jax.devices()[0]),
        lambda: block_kernel.setting("interpret"),
    ],
    ids=["precision", "x64", "promotion", "device", "user context"],
)
def test_other_settings_are_another_program(setting):
    """And the same settings the same program, with the seconds of its compilation."""
    x = jnp.ones((3, 3))
    outside = programs.compiled(matmul, x)
    with setting():
        inside = programs.compiled(matmul, x)
        assert programs.compiled(matmul, x) is inside
    assert inside is not outside
    assert programs.compiled(matmul, x) is outside and outside[1] > 0


def test_hybrid_runs_the_program_of_the_kernel_that_is_set(monkeypatch):
    """The kernel for blocks of flips, set outside of the call, is in its program."""
    used = []
    flips = block_kernel.flips
    monkeypatch.setattr(block_kernel, "flips", lambda *args, **kwargs: used.append(1) or flips(*args, **kwargs))
    target = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)}

    def loss(params):
        return ((params["w"] - target["w"]) ** 2).sum()

    def formulate(params, radius):
        eye, goal = jnp.eye(4), target["w"]
        return qjax.least_squares(params, "w", eye, goal), qjax.encode(params, {"w": qjax.Sign(step=radius)})

    sampler = qjax.samplers.get("anneal", num_sweeps=3, beta_range=(0.5, 2.0))

    def run():
        return qjax.hybrid(jax.random.key(0), loss, target, formulate, sampler, num_reads=2)

    plain = run()
    assert not used
    with block_kernel.setting("interpret"):
        by_kernel = run()
    assert used
    np.testing.assert_array_equal(by_kernel.rounds[0].bits, plain.rounds[0].bits)


def test_the_program_used_longest_ago_goes_first(monkeypatch):
    monkeypatch.setattr(programs, "_compiled", type(programs._compiled)())
    monkeypatch.setattr(programs, "MOST_PROGRAMS", 2)
    shapes = [jnp.ones(n) for n in (1, 2, 3)]
    first, second = (programs.compiled(double, x)[0] for x in shapes[:2])
    assert programs.compiled(double, shapes[0])[0] is first
    programs.compiled(double, shapes[2])
    assert len(programs._compiled) == 2
    assert programs.compiled(double, shapes[0])[0] is first
    assert programs.compiled(double, shapes[1])[0] is not second


def test_caches_that_were_cleared_are_not_used():
    x = jnp.ones(4)
    before = programs.compiled(double, x)
    jax.clear_caches()
    assert programs.compiled(double, x) is not before


PLACED = """
import jax, jax.numpy as jnp
from qjax import programs
one, two = (jax.device_put(jnp.ones(3), device) for device in jax.devices())
found = [programs.compiled(jnp.sin, x)[0](x) for x in (one, two)]
assert [next(iter(x.devices())).id for x in found] == [0, 1], found
"""


def test_arrays_on_another_device_are_another_program():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment = flags | {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PLACED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
