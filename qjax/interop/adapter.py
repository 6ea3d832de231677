"""Any qjax sampler as a `dimod.Sampler`, for D-Wave's Ocean composites and tools. Importing this module needs dimod."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any

import dimod
import jax
import numpy as np

from qjax.interop.bqm import from_bqm, sampleset_of


class AsDimod(dimod.Sampler):  # type: ignore[misc, unused-ignore]
    """`sample(bqm, num_reads=64, seed=None, initial_states=None, **hyperparameters)` for a qjax sampler.

    bqm               a `dimod.BinaryQuadraticModel`, spin or binary
    seed              an integer below 2^31; None draws one. `info["seed"]` is the seed used
    initial_states    anything that `dimod.as_samples` reads: one state, or one per read; spins or bits
    hyperparameters   fields of the sampler, replaced for this call

    Returns a `dimod.SampleSet` with the energies of the model itself, in float64, the sampler's info of single reads as
    data vectors, and its other info, such as beta_range, in `info`. `info["timing"]` has preprocessing_ns, sampling_ns
    (which includes compiling, in the first call of a shape) and postprocessing_ns.
    Errors: ValueError for an unknown parameter, or for initial_states that lack a variable.
    """

    # dimod declares both as abstract properties; every instance sets its own.
    parameters: dict[str, list[str]] = {}  # noqa: RUF012
    properties: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        known = ("num_reads", "seed", "initial_states", *(f.name for f in fields(sampler)))
        self.parameters = {name: [] for name in known}
        self.properties = {"sampler": repr(sampler), "vartypes": ("SPIN", "BINARY")}

    def sample(self, bqm: Any, **parameters: Any) -> Any:
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise ValueError(f"unknown parameters {', '.join(unknown)}; there are {', '.join(self.parameters)}")
        num_reads = parameters.pop("num_reads", 64)
        seed, initial = parameters.pop("seed", None), parameters.pop("initial_states", None)
        start = time.perf_counter_ns()
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        states = None if initial is None else _states(initial, bqm)
        sampler = replace(self._sampler, **parameters)
        qubo = jax.block_until_ready(from_bqm(bqm))
        built = time.perf_counter_ns()
        samples = jax.block_until_ready(sampler(jax.random.key(seed), qubo, num_reads, states))
        sampled = time.perf_counter_ns()
        answer = sampleset_of(bqm, list(bqm.variables), samples)
        answer.info["seed"] = int(seed)
        answer.info["timing"] = {
            "preprocessing_ns": built - start,
            "sampling_ns": sampled - built,
            "postprocessing_ns": time.perf_counter_ns() - sampled,
        }
        return answer


def _states(initial: Any, bqm: Any) -> np.ndarray:
    """Bits (states, n) in the model's order of variables."""
    values, names = dimod.as_samples(initial)
    place = {name: column for column, name in enumerate(names)}
    missing = [v for v in bqm.variables if v not in place]
    if missing:
        raise ValueError(f"initial_states give no value for {missing[:8]}")
    given = np.asarray(values)[:, [place[v] for v in bqm.variables]]
    if not np.isin(given, (-1, 0, 1)).all():
        raise ValueError("initial_states must hold spins (-1, 1) or bits (0, 1) only")
    return (given > 0).astype(np.int8)
