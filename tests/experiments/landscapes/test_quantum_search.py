"""The hybrid's Qubos of Table I's functions, annealed as the table does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from experiments.landscapes import quantum_search
from experiments.landscapes.synthetic import TARGET_FUNCTION, methods
from qjax.hybrid import Sample

pytestmark = pytest.mark.optimised


@pytest.mark.slow
def test_the_annealer_is_never_above_the_rounded_minimiser_on_rastrigin() -> None:
    """All seeds of the table. Where H is close to a multiple of 1, as here, the rounded minimiser is lowest."""
    hybrid = methods(TARGET_FUNCTION)["hybrid"]
    sample = Sample(hybrid.sampler, hybrid.num_reads)
    for seed in range(10):
        problem, key = TARGET_FUNCTION.instance(seed), jax.random.fold_in(jax.random.key(7), seed)
        params, data = {"x": jnp.zeros(problem.size)}, quantum_search._boxed(problem)
        formulate = quantum_search._formulate(replace(hybrid, sampler=None), problem.objective)
        for radius in (problem.half_width, 0.25 * problem.half_width):
            parts = formulate(params, jnp.float32(radius), key, data)
            rounded = float(quantum_search._nearest(parts).energies[0])
            annealed = float(sample(key, *sample.given(parts, None)).energies.min())
            assert annealed <= rounded + 1e-6 * abs(rounded)
