"""The kernel of the flips inside a block, as a GPU runs it. Skipped without one."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.samplers.moves import block_kernel, sweeps
from tests.samplers import problems
from tests.samplers.moves.test_block_kernel import RULES, arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU"),
]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_the_kernel_makes_the_flips_of_the_loop(name: str, biased: bool) -> None:
    """The two may round w f + bias apart, so that a bit could differ where it is on the edge: none of these is."""
    values = arguments(RULES[name], biased, "float32")
    bits, change = jax.jit(partial(sweeps.flips, RULES[name]))(*values)
    found = jax.jit(partial(block_kernel.flips, RULES[name]))(*values)
    np.testing.assert_array_equal(found[0], bits)
    np.testing.assert_allclose(found[1], change, rtol=1e-5)


@pytest.mark.parametrize("form", ["dense", "gram", "implicit"])
def test_annealing_with_the_kernel_gives_the_same_bits(form: str) -> None:
    qubo = problems.qubo(form, 70, (2,) if form == "dense" else ())

    def bits(setting: str) -> Any:
        with block_kernel.setting(setting):
            return samplers.Anneal(20, (0.1, 2.0))(jax.random.key(3), qubo, 70).bits

    np.testing.assert_array_equal(bits("1"), bits("0"))
