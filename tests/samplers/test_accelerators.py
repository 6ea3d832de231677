"""Every sampler that runs inside jit, exported for CUDA and TPU on a machine that has neither. Nothing runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import qjax.samplers as samplers
from qjax import Blocks, blocks
from qjax.annealers import Noisy
from qjax.energy.finder import Found, find_blocks
from qjax.samplers.moves import block_kernel
from tests.exports import KERNEL, PLATFORMS, calls, exported, imprecise
from tests.samplers import blocked, problems
from tests.samplers.test_contract import make
from tests.samplers.test_found import HELD, penalised

pytestmark = pytest.mark.slow

JAXED = tuple(row for row in samplers.table() if not row.host)
FORMS = [pytest.param(row, form, id=f"{row.name}-{form}") for row in JAXED for form in row.couplings]
NAMES = tuple(row.name for row in JAXED)
WITH_KERNEL = ("anneal", "auto", "decompose", "path_integral", "population", "temper")
# All kinds of blocks, in 18 bits.
BLOCKS = blocked.ALL + blocks.digits([[11, 14], [17, 15]])


def call(name: str, held: Blocks | None = None) -> Any:
    """The sampler as a function of a key and a Qubo. Blocks are constants: penalties need their indices."""
    return jax.jit(lambda key, qubo: make(name)(key, qubo, 4, blocks=held))


def problem(row: samplers.Capabilities, form: str, n: int) -> Any:
    return problems.qubo(form, n, (2,) if row.batches else ())


@pytest.mark.parametrize(("row", "form"), FORMS)
def test_every_sampler_takes_every_form_to_accelerators(row: samplers.Capabilities, form: str) -> None:
    """No product of float32 is left to the device's own precision, by which energies would be wrong in the third
    digit."""
    run, qubo = call(row.name), problem(row, form, 12)
    for platform in PLATFORMS:
        assert not imprecise(exported(run, jax.random.key(0), qubo, platform=platform))


@pytest.mark.parametrize(("row", "form"), FORMS)
def test_blocks_go_with_them(row: samplers.Capabilities, form: str) -> None:
    """All kinds at once, by moves where the sampler has them, else by penalties."""
    run, qubo = call(row.name, BLOCKS), problem(row, form, 18)
    for platform in PLATFORMS:
        assert not imprecise(exported(run, jax.random.key(0), qubo, platform=platform))


@pytest.mark.parametrize(("row", "form"), [case for case in FORMS if not case.id.startswith("qaoa")])
def test_a_float32_qubo_stays_so_where_64_bits_are_switched_on(row: samplers.Capabilities, form: str) -> None:
    """TPUs have no float64; GPUs for desktops have little. That of qaoa is its few angles and the bias corrections of
    optax's Adam."""
    qubo = problem(row, form, 12)
    with jax.enable_x64(True):
        exported(call(row.name), jax.random.key(0), qubo, platform="tpu")


@pytest.mark.parametrize("name", [name for name in NAMES if samplers.sampler_class(name).adds_moves])
def test_groups_found_in_a_plain_qubo_go_with_them(name: str) -> None:
    qubo = penalised(HELD["one_hot"], 3.0, 0.4)
    found = find_blocks(qubo)
    assert isinstance(found, Found)
    for platform in PLATFORMS:
        assert not imprecise(exported(call(name, found), jax.random.key(0), qubo, platform=platform))


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_is_in_programs_for_cuda_alone(name: str) -> None:
    qubo, counts = problems.qubo("dense", 20), {}
    with block_kernel.setting("1"):
        run = call(name)
        for platform in PLATFORMS:
            counts[platform] = calls(exported(run, jax.random.key(0), qubo, platform=platform)).count(KERNEL)
    assert counts["tpu"] == 0
    assert counts["cuda"] > 0 or name not in WITH_KERNEL


def test_starts_polish_noise_and_shards_go_with_them() -> None:
    qubo, states = problems.qubo("dense", 12, (2,)), jnp.zeros((2, 4, 12), jnp.int8)
    noisy = Noisy(make("anneal"), precision_bits=5, sigma_h=0.02, sigma_j=0.02, readout_error=0.01)

    sharded = samplers.Sharded(make("anneal"), jax.make_mesh((1,), ("reads",)))

    def run(key: jax.Array, states: jax.Array) -> Any:
        first = make("anneal")(key, qubo, 4, states)
        return samplers.polish(qubo, first.bits), noisy(key, qubo, 4), sharded(key, qubo, 4)

    for platform in PLATFORMS:
        assert not imprecise(exported(run, jax.random.key(0), states, platform=platform))


def test_what_the_programs_are_searched_for_is_found() -> None:
    """A sampler that runs on the host, a product left to the device, and float64."""

    def host(x: jax.Array) -> Any:
        return jax.pure_callback(lambda y: y, x, x)

    vector = jnp.ones(12)
    for platform in PLATFORMS:
        with pytest.raises(Exception, match=r"callback|platform"):
            exported(host, vector, platform=platform)
        assert len(imprecise(exported(lambda x: x @ x, vector, platform=platform))) == 1
        with jax.enable_x64(True), pytest.raises(AssertionError, match="xf64"):
            exported(lambda x: x.astype("float64") + 1, vector, platform=platform)
