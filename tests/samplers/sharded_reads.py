"""Run by test_contract: reads on one device against reads sharded over eight, with integer couplings."""

from __future__ import annotations

import jax
import numpy as np

import qjax.samplers as samplers
from qjax.samplers import block_kernel
from tests.samplers import problems

CASES = (
    ("anneal", "dense", {"num_sweeps": 5}),
    ("anneal", "dense", {"num_sweeps": 5}, "interpret"),
    ("anneal", "sparse", {"num_sweeps": 5}),
    ("bifurcation", "dense", {"num_steps": 20, "readout_every": 10}),
    ("greedy", "dense", {}),
    ("exact", "dense", {}),
    ("random", "dense", {}),
    ("temper", "sparse", {"num_sweeps": 4, "betas": (0.1, 0.2, 0.4), "cluster_every": 2}),
    ("population", "dense", {"beta_schedule": (0.1, 0.2, 0.4), "population_size": 5}),
    ("tabu", "dense", {"num_sweeps": 4, "phase_sweeps": 2}),
    ("path_integral", "sparse", {"num_sweeps": 4, "num_slices": 4}),
    ("mean_field", "dense", {"num_steps": 20, "readout_every": 10}),
    ("qaoa", "dense", {"num_layers": 2, "num_steps": 3}),
    ("auto", "dense", {}),
)


def main() -> None:
    assert len(jax.devices()) == 8, jax.devices()
    jax.config.update("jax_disable_most_optimizations", True)  # as in conftest.py
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("reads",))
    assert block_kernel.setting.value == "0", "QJAX_PALLAS is not read"
    same = []
    for name, form, fields, *kernel in CASES:
        qubo, sampler = problems.qubo(form, n=12, batch=(2,)), samplers.get(name, **fields)
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
