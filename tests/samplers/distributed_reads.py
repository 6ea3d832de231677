"""Run by test_distributed, once per process: `distributed_reads.py PORT PROCESS`. Reads over two processes of one
device each; each process prints a line for its own reads."""

from __future__ import annotations

import sys

import jax
import numpy as np

import qjax.samplers as samplers
from tests.samplers import problems

CASES = (
    ("anneal", "sparse", {"num_sweeps": 5}),
    ("bifurcation", "dense", {"num_steps": 20, "readout_every": 10}),
)
READS = 8


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # as in conftest.py
    port, process = int(sys.argv[1]), int(sys.argv[2])
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
    assert len(jax.devices()) == 2 and len(jax.local_devices()) == 1, jax.devices()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("reads",))
    for name, form, fields in CASES:
        qubo, sampler = problems.qubo(form, n=9), samplers.get(name, **fields)
        alone = np.asarray(sampler(jax.random.key(5), qubo, READS).bits)
        spread = samplers.Sharded(sampler, mesh)(jax.random.key(5), qubo, READS).bits
        (own,) = spread.addressable_shards
        assert own.data.shape == (READS // 2, 9)
        np.testing.assert_array_equal(alone[own.index], own.data)
        print("same bits:", name, "reads", own.index[0].start or 0)


if __name__ == "__main__":
    main()
