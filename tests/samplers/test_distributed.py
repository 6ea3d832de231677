"""Reads spread over two processes by `jax.distributed`: the bits of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_reads_spread_over_two_processes_give_the_same_bits() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = os.path.join(os.path.dirname(__file__), "distributed_reads.py")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(
            [sys.executable, script, port, str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        said = [run.communicate(timeout=240)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    for process, (run, text) in enumerate(zip(runs, said, strict=True)):
        assert run.returncode == 0, text
        for name in ("anneal", "bifurcation"):
            assert f"same bits: {name} reads {4 * process}" in text
