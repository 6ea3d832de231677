"""Any qjax sampler as a `dimod.Sampler`, for D-Wave's Ocean composites and tools. Importing this module needs dimod."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import Any, NamedTuple

import dimod
import jax
import numpy as np

from qjax.energy import finder
from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense
from qjax.energy.qubo import Qubo
from qjax.energy.terms import Terms
from qjax.interop.bqm import info_of, sampleset_of, terms_of, vectors_of
from qjax.interop.constrained import from_cqm
from qjax.interop.discrete import from_dqm
from qjax.samplers.samples import Samples


class AsDimod(dimod.Sampler):  # type: ignore[misc, unused-ignore]
    """`sample(bqm, num_reads=64, seed=None, initial_states=None, find_blocks=True, **hyperparameters)` by a sampler.

    bqm               a `dimod.BinaryQuadraticModel`, spin or binary
    seed              an integer below 2^31; None draws one. `info["seed"]` is the seed used
    initial_states    anything that `dimod.as_samples` reads: one state, or one per read; spins or bits
    find_blocks       whether groups whose number of ones a penalty fixes are looked for (qjax.energy.finder), so that
                      samplers that can (anneal, temper, auto) move them whole beside single flips; True by default.
                      `info["found"]` has their number by kind
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
        self._sampler, self._fields = sampler, frozenset(f.name for f in fields(sampler))
        self.parameters = {name: [] for name in (*_OF_THE_CALL, *(f.name for f in fields(sampler)))}
        self.properties = {"sampler": repr(sampler), "vartypes": ("SPIN", "BINARY")}

    def sample(self, bqm: Any, **parameters: Any) -> Any:
        start = time.perf_counter_ns()
        call = self._call(parameters)
        states = None if call.initial is None else _states(call.initial, bqm.variables)
        terms = terms_of(bqm)
        qubo = jax.block_until_ready(terms.qubo())
        found = _found(terms, qubo) if call.find_blocks else None
        moves = {} if found is None else {"blocks": found}
        samples, built, sampled = _sampled(call, qubo, states, moves)
        answer = sampleset_of(bqm, list(bqm.variables), samples)
        if found is not None:
            answer.info["found"] = {family.kind: len(family.groups) for family in found.families}
        return _timed(answer, call.seed, (start, built, sampled))

    def sample_dqm(self, dqm: Any, **parameters: Any) -> Any:
        """The same for a `dimod.DiscreteQuadraticModel`, one bit a case and one-hot blocks; no initial_states.

        Returns a discrete `dimod.SampleSet`: the number of the case of each variable, with the model's own energies.
        """
        start = time.perf_counter_ns()
        call = self._call(parameters)
        if call.initial is not None:
            raise ValueError("initial_states are taken for binary and constrained models, not for discrete ones")
        model = from_dqm(dqm)
        samples, built, sampled = _sampled(call, model.qubo, None, {"blocks": model.blocks})
        cases, vectors, info = (model.decode(samples.bits), list(dqm.variables)), vectors_of(samples), info_of(samples)
        energies = dqm.energies(cases) if dqm.num_variables() else np.full(call.num_reads, float(dqm.offset))
        answer = dimod.SampleSet.from_samples(cases, "DISCRETE", energies, info=info, **vectors)
        return _timed(answer, call.seed, (start, built, sampled))

    def sample_cqm(self, cqm: Any, **parameters: Any) -> Any:
        """The same for a `dimod.ConstrainedQuadraticModel` of binary and spin variables whose constraints are discrete
        or linear equalities: kept by blocks where they share no variable or form an assignment, else by penalties.

        Returns a `dimod.SampleSet` with the objective's energies, is_feasible and is_satisfied as dimod says them;
        `info["penalised"]` lists the constraints that penalties keep. Errors: those of
        `qjax.interop.constrained.from_cqm`, which name the variable or the constraint.
        """
        start = time.perf_counter_ns()
        call = self._call(parameters)
        states = None if call.initial is None else _states(call.initial, cqm.variables)
        model = from_cqm(cqm)
        samples, built, sampled = _sampled(call, model.qubo, states, {"blocks": model.blocks})
        values, vectors, info = model.decode(samples.bits), vectors_of(samples), info_of(samples)
        info["penalised"] = list(model.penalised)
        answer = dimod.SampleSet.from_samples_cqm((values, list(cqm.variables)), cqm, info=info, **vectors)
        return _timed(answer, call.seed, (start, built, sampled))

    def _call(self, parameters: dict[str, Any]) -> _Call:
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            raise ValueError(f"unknown parameters {', '.join(unknown)}; there are {', '.join(self.parameters)}")
        own = {name: value for name, value in parameters.items() if name in self._fields}
        seed = parameters.get("seed")
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        initial = parameters.get("initial_states")
        sampler = replace(self._sampler, **own)
        # An own number of ones is kept by other moves.
        adds = getattr(sampler, "adds_moves", False) and getattr(sampler, "fixed_cardinality", None) is None
        find = bool(parameters.get("find_blocks", getattr(sampler, "find_blocks", True))) and adds
        return _Call(sampler, parameters.get("num_reads", 64), int(seed), initial, find)


_OF_THE_CALL = ("num_reads", "seed", "initial_states", "find_blocks")


class _Call(NamedTuple):
    sampler: Any
    num_reads: int
    seed: int
    initial: Any
    find_blocks: bool


def _sampled(call: _Call, qubo: Qubo, states: Any, moves: dict[str, Any]) -> tuple[Samples, int, int]:
    """(samples, when the Qubo stood, when they were drawn), in nanoseconds of `perf_counter_ns`. moves: the blocks."""
    jax.block_until_ready(qubo)
    built = time.perf_counter_ns()
    key = jax.random.key(call.seed)
    samples = jax.block_until_ready(call.sampler(key, qubo, call.num_reads, states, **moves))
    return samples, built, time.perf_counter_ns()


def _found(terms: Terms, qubo: Qubo) -> Blocks | None:
    """Groups that penalties fix, from the terms in float64; no blocks where there are none, None for large problems."""
    if qubo.num_bits > finder.MOST_BITS:
        return None
    return finder.found_in(terms, isinstance(qubo.couplings, Dense)) or Blocks()


def _timed(answer: Any, seed: int, times: tuple[int, int, int]) -> Any:
    start, built, sampled = times
    answer.info["seed"] = seed
    answer.info["timing"] = {
        "preprocessing_ns": built - start,
        "sampling_ns": sampled - built,
        "postprocessing_ns": time.perf_counter_ns() - sampled,
    }
    return answer


def _states(initial: Any, variables: Any) -> np.ndarray:
    """Bits (states, n) in the model's order of variables."""
    values, names = dimod.as_samples(initial)
    place = {name: column for column, name in enumerate(names)}
    missing = [v for v in variables if v not in place]
    if missing:
        raise ValueError(f"initial_states give no value for {missing[:8]}")
    given = np.asarray(values)[:, [place[v] for v in variables]]
    if not np.isin(given, (-1, 0, 1)).all():
        raise ValueError("initial_states must hold spins (-1, 1) or bits (0, 1) only")
    return (given > 0).astype(np.int8)
