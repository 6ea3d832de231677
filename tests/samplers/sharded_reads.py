"""Run by test_contract: every JAX sampler's reads on one device against those sharded over eight, with integer
couplings."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import qjax.samplers as samplers
from qjax.samplers.moves import block_kernel
from tests.samplers import problems

# Short settings; a sampler that is not here runs with its defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "anneal": {"num_sweeps": 5},
    "bifurcation": {"num_steps": 20, "readout_every": 10},
    "decompose": {"sampler": samplers.Anneal(num_sweeps=2), "size": 6, "num_rounds": 2, "sub_reads": 2},
    "temper": {"num_sweeps": 4, "betas": (0.1, 0.2, 0.4), "cluster_every": 2},
    "population": {"beta_schedule": (0.1, 0.2, 0.4), "population_size": 5},
    "tabu": {"num_sweeps": 4, "phase_sweeps": 2},
    "path_integral": {"num_sweeps": 4, "num_slices": 4},
    "mean_field": {"num_steps": 20, "readout_every": 10},
    "qaoa": {"num_layers": 2, "num_steps": 3},
}
SPARSE = ("temper", "path_integral")
CASES = (
    *((row.name, "sparse" if row.name in SPARSE else "dense") for row in samplers.table() if not row.host),
    ("anneal", "sparse"),
    ("anneal", "dense", "interpret"),
)


def main() -> None:
    assert len(jax.devices()) == 8, jax.devices()
    jax.config.update("jax_disable_most_optimizations", True)  # as in conftest.py
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("reads",))
    assert block_kernel.setting.value == "0", "QJAX_PALLAS is not read"
    same = []
    for name, form, *kernel in CASES:
        qubo, sampler = problems.qubo(form, n=12, batch=(2,)), samplers.get(name, **SETTINGS.get(name, {}))
        alone = sampler(jax.random.key(5), qubo, 16)
        with block_kernel.setting(*kernel or "0"):
            spread = samplers.Sharded(sampler, mesh)(jax.random.key(5), qubo, 16)
        assert len(spread.bits.sharding.device_set) == 8
        np.testing.assert_array_equal(alone.bits, spread.bits)
        np.testing.assert_array_equal(alone.energies, spread.energies)
        same.append(name)
    try:
        samplers.Sharded(samplers.get("random"), mesh)(jax.random.key(5), qubo, 12)
    except ValueError as error:
        assert "num_reads" in str(error)
    else:
        raise AssertionError("12 reads over 8 devices were taken")
    print("same bits:", *same)


if __name__ == "__main__":
    main()
