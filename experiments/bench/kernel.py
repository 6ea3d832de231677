"""What the kernel of the flips inside a block gains on an NVIDIA GPU: whole calls of `anneal` with it and without."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.implicit import seconds
from qjax import samplers
from qjax.energy.couplings import Dense, Gram
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import block_kernel

if TYPE_CHECKING:
    from experiments.bench.samplers import BenchSamplers


class Gain(NamedTuple):
    """ratio: seconds of the loop over those of the kernel; rates: flips tried in a second (loop, kernel); same: the
    share of bits that came out equal."""

    name: str
    ratio: float
    rates: tuple[float, float]
    same: float


def gains(config: BenchSamplers) -> list[Gain]:
    """For dense and Gram couplings of every size, few and many reads; [] where no GPU has the kernel."""
    if not block_kernel.fits(jax.local_devices()[0]):
        return []
    return [
        _gain(config, form, n, reads)
        for form in ("dense", "gram")
        for n in config.kernel_bits
        for reads in config.kernel_reads
    ]


def _gain(config: BenchSamplers, form: str, n: int, reads: int) -> Gain:
    qubo, sampler = _problem(config, form, n), samplers.Anneal(config.kernel_sweeps, (0.05, 2.0))

    def call(setting: str) -> Any:
        with block_kernel.setting(setting):
            return sampler(jax.random.key(config.seed), qubo, reads).bits

    same = float(jnp.mean(call("0") == call("1")))
    taken = [(seconds(lambda: call("0")), seconds(lambda: call("1"))) for _ in range(config.repeats)]
    tried = n * reads * config.kernel_sweeps
    rates = tuple(tried / statistics.median(pair[side] for pair in taken) for side in (0, 1))
    ratio = statistics.median(loop / kernel for loop, kernel in taken)
    return Gain(f"{form}, {n} bits, {reads} reads", ratio, (rates[0], rates[1]), same)


def _problem(config: BenchSamplers, form: str, n: int) -> Qubo:
    rng = np.random.default_rng(config.seed)
    linear = jnp.asarray(rng.standard_normal(n), jnp.float32)
    if form == "gram":
        factor = rng.standard_normal((n // 4, n)) / np.sqrt(n)
        return Qubo.from_terms(linear, Gram(jnp.asarray(factor, jnp.float32)))
    matrix = np.triu(rng.standard_normal((n, n)) / np.sqrt(n), 1)
    return Qubo.from_terms(linear, Dense(jnp.asarray(matrix + matrix.T, jnp.float32)))
