"""Samplers on the implicit Qubo of a convolutional network: its products stay fast inside their loops.

A loop that runs a convolution slowly (qjax.rewriting) has one whose axes are out of order in its program: that is what
is looked for here, since times on a busy machine say nothing. `bench-samplers` times it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax import programs
from qjax.energy.qubo import Qubo
from qjax.hybrid import Sample
from tests.jaxprs import in_order, orders

STEPS: dict[str, dict[str, Any]] = {
    "bifurcation": {"num_steps": 4, "readout_every": 2},
    "mean_field": {"num_steps": 4, "readout_every": 2},
    "auto": {"num_sweeps": 4},
    "random": {},
}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        for width in (3, 4):
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(5)(x.reshape((x.shape[0], -1)))


class Problem:
    """The Gauss-Newton model of the kernels, 81 + 108 bits, by functions that close over the data."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = jnp.asarray(rng.normal(size=(6, 8, 8, 3)), jnp.float32)
        self.labels = jnp.asarray(rng.integers(0, 5, 6))
        self.network, self.traces = Network(), 0
        self.params = self.network.init(jax.random.key(0), self.images)["params"]

    def outputs(self, params: Any) -> Any:
        self.traces += 1
        with jax.numpy_rank_promotion("allow"):  # of flax's biases
            return self.network.apply({"params": params}, self.images)

    def loss(self, logits: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), self.labels[:, None], axis=1).mean()

    def qubo(self) -> Qubo:
        kernels = ("Conv_0/kernel", "Conv_1/kernel")
        quadratic = qjax.gauss_newton(self.outputs, self.loss, self.params, leaves=kernels, damping=1e-3)
        return qjax.pull_back(quadratic, qjax.encode(self.params, {name: qjax.Sign() for name in kernels}), "implicit")


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


@pytest.fixture(scope="module")
def qubo(problem: Problem) -> Qubo:
    return problem.qubo()


@pytest.mark.parametrize("name", STEPS)
def test_all_convolutions_of_a_call_are_in_order(name: str, qubo: Qubo) -> None:
    """Those of the spectrum, the diagonal, the steps, the read-outs and the energies."""
    sampler = qjax.samplers.get(name, **STEPS[name])
    found = orders(lambda key, qubo: sampler(key, qubo, 3), jax.random.key(0), qubo)
    assert found and all(map(in_order, found)), found


@pytest.mark.slow
def test_the_dense_matrix_is_made_by_such_products(qubo: Qubo) -> None:
    """Past 64 bits they are made in a loop."""

    def dense(qubo: Qubo) -> jax.Array:
        return qubo.couplings.to_dense()

    found = orders(dense, qubo)
    assert found and all(map(in_order, found)), found
    x = np.random.default_rng(1).normal(size=(3, qubo.num_bits)).astype(np.float32)
    image = jax.jit(lambda qubo, x: qubo.couplings.matvec(x))(qubo, x)
    np.testing.assert_allclose(image, x @ jax.jit(dense)(qubo).T, rtol=1e-3, atol=1e-6)


def test_the_data_are_arguments_of_the_program(problem: Problem, qubo: Qubo) -> None:
    """No constant of their size, which XLA would compute with while it compiles; what it does hold is one value
    repeated (-inf around a max-pool), which text has as a splat."""
    sampler = qjax.samplers.get("bifurcation", **STEPS["bifurcation"])
    text = jax.jit(lambda key, qubo: sampler(key, qubo, 3)).lower(jax.random.key(0), qubo).as_text()
    constants = re.findall(r'stablehlo.constant dense<(?:\[|").*?> : tensor<([\dx]*)x\w+>', text)
    assert max((np.prod([int(n) for n in shape.split("x")]) for shape in constants), default=0) < 10
    assert any(leaf is problem.images for leaf in jax.tree.leaves(qubo))


@pytest.mark.slow
def test_calls_inside_jit_and_of_more_reads_agree(qubo: Qubo) -> None:
    """Bits after a step, and the energies within 1e-5 of their size, which a convolution's rounding may change when it
    has more channels."""
    sampler, key = qjax.samplers.get("bifurcation", num_steps=1), jax.random.key(0)
    samples, more = (sampler(key, qubo, reads) for reads in (3, 5))
    inside = jax.jit(lambda key, qubo: sampler(key, qubo, 3))(key, qubo)
    size = float(jnp.abs(samples.energies).max())
    for other in (inside, more):
        np.testing.assert_array_equal(other.bits[:3], samples.bits)
        np.testing.assert_allclose(other.energies[:3], samples.energies, rtol=0, atol=1e-5 * size)


@pytest.mark.slow
def test_a_model_made_again_runs_the_same_programs(problem: Problem, qubo: Qubo) -> None:
    """Other data of the same shapes, too: the sampler traces nothing."""
    sampler, key = qjax.samplers.get("bifurcation", **STEPS["bifurcation"]), jax.random.key(0)
    first = sampler(key, qubo, 3)
    kept, problem.images = problem.images, problem.images[::-1] * 0.5
    try:
        other = problem.qubo()
        traces = problem.traces
        found = sampler(key, other, 3)
        assert problem.traces == traces
    finally:
        problem.images = kept
    size = float(jnp.abs(found.energies).max())
    energies = jax.jit(lambda qubo, bits: qubo.energies(bits))(other, found.bits)
    np.testing.assert_allclose(found.energies, energies, rtol=0, atol=1e-5 * size)
    assert not np.allclose(found.energies, first.energies, rtol=1e-3)


@pytest.mark.slow
def test_hybrid_and_budgets_take_such_problems(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = ("Conv_0/kernel", "Conv_1/kernel")

    def formulate(params: Any, radius: float) -> Any:
        quadratic = qjax.gauss_newton(problem.outputs, problem.loss, params, leaves=kernels, damping=1e-3)
        return quadratic, qjax.encode(params, {name: qjax.Rounding(step=0.1 * radius) for name in kernels})

    # Of so few bits the matrix would be made.
    monkeypatch.setitem(qjax.hybrid.__globals__, "pull_back", partial(qjax.pull_back, form="implicit"))
    monkeypatch.setattr(programs, "_compiled", type(programs._compiled)())
    sampler = qjax.samplers.get("bifurcation", num_steps=30)

    def loss(params: Any) -> jax.Array:
        return problem.loss(problem.outputs(params))

    trained = qjax.hybrid(jax.random.key(0), loss, problem.params, formulate, sampler, num_reads=2, num_candidates=2)
    assert trained.ledger["compile"] > 0 and trained.ledger["anneal"] > 0
    assert float(trained.rounds[0].loss) <= float(trained.rounds[0].loss_before)
    (found,) = (program for (function, *_), (program, _) in programs._compiled.items() if isinstance(function, Sample))
    assert set(re.findall(r"dim_labels=(\S+?),", found.as_text())) == {"b01f_01io->b01f"}
    samples = qjax.samplers.within(sampler, seconds=0.05)(jax.random.key(0), problem.qubo(), 2)
    assert samples.bits.shape == (2, 189)
