"""Seeded samplers of other libraries inside jit and vmap: the same bits as outside, in the right shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import dimod
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dwave.samplers import (
    PathIntegralAnnealingSampler,
    SimulatedAnnealingSampler,
    SteepestDescentSampler,
    TabuSampler,
    TreeDecompositionSampler,
    TreeDecompositionSolver,
)

from qjax.energy.qubo import Qubo
from qjax.interop.dimod import DimodSampler, neal
from tests.samplers import problems

SEEDED = {
    "neal": neal(num_sweeps=10),
    "simulated": DimodSampler(SimulatedAnnealingSampler(), (("num_sweeps", 10), ("beta_range", (0.1, 3.0)))),
    "path_integral": DimodSampler(PathIntegralAnnealingSampler(), (("num_sweeps", 10),)),
    "descent": DimodSampler(SteepestDescentSampler()),
    # Limited by restarts: with a limit on time the answer would depend on the machine.
    "tabu": DimodSampler(TabuSampler(), (("num_restarts", 1), ("timeout", 10_000))),
    "tree": DimodSampler(TreeDecompositionSampler()),
    "tree_solver": DimodSampler(TreeDecompositionSolver(), deterministic=True),
}


@pytest.mark.parametrize("name", SEEDED)
def test_traced_and_eager_calls_agree(name: str) -> None:
    sampler, qubo, keys = SEEDED[name], problems.qubo("dense", n=6, batch=(2,)), jax.random.split(jax.random.key(1), 3)
    plain = [sampler(key, qubo, 4) for key in keys]
    jitted = jax.jit(lambda key, problem: sampler(key, problem, 4))(keys[0], qubo)
    assert jitted.bits.shape == (2, 4, 6) and jitted.bits.dtype == jnp.int8
    np.testing.assert_array_equal(jitted.bits, plain[0].bits)
    np.testing.assert_allclose(jitted.energies, plain[0].energies, rtol=1e-6)
    mapped = jax.jit(jax.vmap(lambda key: sampler(key, qubo, 4)))(keys)
    np.testing.assert_array_equal(mapped.bits, np.stack([p.bits for p in plain]))


@pytest.mark.parametrize("form", problems.FORMS)
def test_every_form_of_couplings_works(form: str) -> None:
    qubo = problems.qubo(form, n=6)
    inside = jax.jit(lambda key, problem: neal(num_sweeps=20)(key, problem, 3))(jax.random.key(0), qubo)
    np.testing.assert_array_equal(inside.bits, neal(num_sweeps=20)(jax.random.key(0), qubo, 3).bits)


def test_mapped_over_problems_and_starts() -> None:
    """vmap over linear terms and initial states: every element is a problem of its own."""
    base = problems.qubo("dense", n=6)
    linear = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)
    starts = jnp.asarray(np.random.default_rng(1).integers(0, 2, (3, 6)), jnp.int8)
    sampler = DimodSampler(SteepestDescentSampler())
    mapped = jax.vmap(lambda h, s: sampler(jax.random.key(2), replace(base, linear=h), 2, s))(linear, starts)
    for i in range(3):
        alone = sampler(jax.random.key(2), replace(base, linear=linear[i]), 2, starts[i])
        np.testing.assert_array_equal(mapped.bits[i], alone.bits)


def test_gradients_flow_through_the_energies() -> None:
    """For scale 1, dE/dlinear at the sampled bits is equal to the bits."""
    base = Qubo.from_terms(np.array([1.0, -2.0, 0.5], np.float32), np.zeros((3, 3), np.float32))

    def lowest(linear: jax.Array) -> jax.Array:
        return neal(num_sweeps=20)(jax.random.key(0), replace(base, linear=linear), 4).best_energy

    np.testing.assert_allclose(jax.grad(lowest)(base.linear), [0.0, 1.0, 0.0])


def test_empty_problems_and_timing() -> None:
    empty = Qubo.from_terms(np.zeros(0, np.float32), np.zeros((0, 0), np.float32))
    assert jax.jit(lambda key: neal()(key, empty, 3).bits)(jax.random.key(0)).shape == (3, 0)
    info = neal(num_sweeps=5)(jax.random.key(0), problems.qubo("dense", n=4, batch=(2,)), 3).info
    assert info["timing"]["sampling_ns"] > 0


class _RepeatsItself(dimod.Sampler):
    """Behaves as OpenJij does: lists few of its parameters, and all reads of a seeded call are equal."""

    parameters: ClassVar[dict[str, Any]] = {"beta_min": []}
    properties: ClassVar[dict[str, Any]] = {}

    def sample(self, bqm: Any, beta_min: Any = None, num_reads: int = 1, seed: Any = None) -> Any:
        read = np.random.default_rng(seed).integers(0, 2, (1, bqm.num_variables))
        return dimod.SampleSet.from_samples_bqm((np.repeat(read, num_reads, 0), list(bqm.variables)), bqm)


def test_reads_of_openjij_each_get_a_seed() -> None:
    alike = type("Alike", (_RepeatsItself,), {"__module__": "openjij.sampler"})
    samples = DimodSampler(alike())(jax.random.key(0), problems.qubo("dense", n=30), 6)
    assert len({row.tobytes() for row in np.asarray(samples.bits)}) == 6
