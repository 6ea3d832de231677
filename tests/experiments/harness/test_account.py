"""Samples through an account: one program for equal samplers, the sampler's own states."""

import jax
import numpy as np

from experiments.harness.account import Account
from experiments.harness.controls import Given
from qjax import Qubo, samplers
from qjax.hybrid import Sample


def test_equal_samplers_share_a_program_and_sample_as_they_do_alone() -> None:
    qubo, key = Qubo.from_matrix(np.arange(16.0).reshape(4, 4) - 8.0), jax.random.key(0)
    account = Account()
    first, second = (account.program(Sample(samplers.get("random"), 3), key, qubo) for _ in range(2))
    assert first is second
    assert account.program(Sample(samplers.get("random"), 2), key, qubo) is not first
    np.testing.assert_array_equal(first(key, qubo).bits, samplers.get("random")(key, qubo, num_reads=3).bits)


def test_first_states_are_handed_on() -> None:
    qubo = Qubo.from_matrix(np.eye(3))
    states = np.array([[0, 1, 1], [1, 0, 0]], np.int8)
    samples = Account().call("anneal", Sample(Given(), 2), jax.random.key(0), qubo, states)
    np.testing.assert_array_equal(samples.bits, states)
