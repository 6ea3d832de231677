"""Other people's solvers as host samplers, timed the way their users call them and on the same cores.

dwave-sa, dwave-tabu     dwave-samplers: single-threaded, so one process per core, each with its share of the reads
openjij-sa               OpenJij's simulated annealing, likewise
simulated-bifurcation    heated ballistic bifurcation on torch, which uses all cores itself

The model is built in the peer's own form, and processes are started, before any clock starts.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import jax
import numpy as np

from experiments.solvers.peer_workers import SINGLE_THREADED, Model, answer, load
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers import Samples

PACKAGES = {
    "dwave-sa": "dwave.samplers",
    "dwave-tabu": "dwave.samplers",
    "openjij-sa": "openjij",
    "simulated-bifurcation": "simulated_bifurcation",
}
# Its default number of agents; a product of 128 costs little more than one of 16.
READS = {"simulated-bifurcation": 128}
Solve = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Peer:
    """A peer on one problem. solve(num_reads, num_sweeps, seed) -> (bits, energies); a longer rung of the ladder is a
    call with more sweeps."""

    solve: Solve
    num_sweeps: int = 100
    is_host: ClassVar[bool] = True

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 16, initial_states: Any = None) -> Samples:
        if initial_states is not None:
            raise ValueError("initial_states: peers are started from random states")
        seed = int(np.asarray(jax.random.key_data(key))[-1]) >> 1
        bits, energies = self.solve(num_reads, self.num_sweeps, seed)
        # Arrays of the host: energies on a device would be compiled inside the peer's seconds.
        return Samples(bits, energies, {})  # type: ignore[arg-type]


def installed(name: str) -> bool:
    """Whether the package of a peer is there and can be imported (torch cannot without its CUDA libraries)."""
    try:
        import_module(PACKAGES[name])
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def peer(name: str, qubo: Qubo, cores: int, num_sweeps: int) -> Iterator[Peer]:
    """The named peer, ready to answer for a Qubo; its processes end with the context."""
    model = model_of(qubo)
    if name == "simulated-bifurcation":
        yield Peer(_bifurcation(model, cores), num_sweeps)
        return
    assert name in SINGLE_THREADED
    # Spawned: a fork of a process with JAX's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context, initializer=load, initargs=(name, model)) as pool:
        # A task that sleeps keeps its process busy, so that all processes are started before the clock is.
        list(pool.map(time.sleep, [0.3] * cores))

        def solve(num_reads: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
            shares = [len(part) for part in np.array_split(np.arange(num_reads), cores) if len(part)]
            seeds = np.random.default_rng(seed).integers(2**31, size=len(shares))
            jobs = [pool.submit(answer, r, length, int(s)) for r, s in zip(shares, seeds, strict=True)]
            found = [job.result() for job in jobs]
            return np.concatenate([bits for bits, _ in found]), np.concatenate([energies for _, energies in found])

        yield Peer(solve, num_sweeps)


def model_of(qubo: Qubo) -> Model:
    """The energy as vectors in float64. Couplings of any form but implicit ones."""
    if isinstance(qubo.couplings, Sparse):
        rows, cols, weights = qubo.couplings.edges()
    else:
        matrix = np.asarray(qubo.couplings.to_dense(), np.float64)
        rows, cols = np.nonzero(np.triu(matrix, 1))
        weights = matrix[rows, cols]
    scale = float(qubo.scale)
    return Model(scale * np.asarray(qubo.linear, np.float64), rows, cols, scale * weights, scale * float(qubo.offset))


def _bifurcation(model: Model, cores: int) -> Solve:
    import simulated_bifurcation
    import torch

    torch.set_num_threads(cores)
    n = len(model.linear)
    matrix = np.zeros((n, n), np.float32)
    matrix[model.rows, model.cols] = model.weights
    quadratic, linear = torch.from_numpy(matrix), torch.from_numpy(model.linear.astype(np.float32))

    def solve(num_reads: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        torch.manual_seed(seed)
        bits, energies = simulated_bifurcation.minimize(
            quadratic,
            linear,
            model.offset,
            domain="binary",
            agents=num_reads,
            max_steps=length,
            best_only=False,
            mode="ballistic",
            heated=True,
            early_stopping=False,
            verbose=False,
        )
        return bits.numpy().astype(np.int8), energies.numpy().astype(np.float64)

    return solve
