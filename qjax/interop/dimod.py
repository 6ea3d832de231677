"""dimod samplers as qjax samplers; dimod and dwave-samplers are imported on the first call.

DimodSampler(sampler)   any `dimod.Sampler`: simulated annealing, tabu, path integral, tree decomposition, OpenJij, ...
Neal(...)               the simulated annealing of dwave-samplers
AsDimod(sampler)        the other direction: a qjax sampler as a `dimod.Sampler` (qjax.interop.as_dimod)
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from qjax.energy.qubo import Qubo
from qjax.interop.bqm import to_bqm
from qjax.interop.host import HostSampler


class _BqmSampler(HostSampler):
    """Base of the host samplers that call a dimod sampler in this process."""

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any], frozenset[str]]:
        """(dimod sampler, keyword arguments for its `sample`, the names of all that it takes) for a model."""
        raise TypeError(f"{type(self).__name__} has no _solver")

    def _reads(
        self, seed: int, qubo: Qubo, num_reads: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        n, bqm = qubo.num_bits, to_bqm(qubo)
        solver, arguments, known = self._solver(bqm)
        name = type(solver).__name__
        if initial is not None:
            if "initial_states" not in known:
                raise ValueError(f"initial_states: {name} takes none")
            arguments.setdefault("initial_states", (initial.astype(np.int8), list(range(n))))
        if "num_reads" in known and "seed" in known and "seed" not in arguments and _repeats_itself(solver):
            seeds = np.random.default_rng(seed).integers(2**31, size=num_reads)
            answers = [solver.sample(bqm, **{**arguments, "num_reads": 1, "seed": int(s)}) for s in seeds]
            return np.concatenate([checked(answer, n, 1, name) for answer in answers]), {}
        if "num_reads" in known:
            arguments.setdefault("num_reads", num_reads)
        if "seed" in known:
            arguments.setdefault("seed", seed)
        answer = solver.sample(bqm, **arguments)
        timing = answer.info.get("timing", {})
        numbers = {k: v for k, v in timing.items() if isinstance(v, int | float)}
        return checked(answer, n, num_reads, name), {"timing": numbers} if numbers else {}


def checked(answer: Any, n: int, num_reads: int, name: str) -> np.ndarray:
    """Bits (num_reads, n) int8 of a dimod sample set, in the order of the Qubo's bits.

    Aggregated samples are repeated by their number of occurrences. name: of the sampler, for messages.
    Errors: ValueError for variables other than 0 .. n - 1, values other than bits or spins, and an empty sample set.
    """
    if set(answer.variables) != set(range(n)):
        found = sorted(map(str, answer.variables))[:8]
        raise ValueError(f"{name} answered for other variables than 0 .. {n - 1}: {found}")
    binary = answer.change_vartype("BINARY", inplace=False) if answer.vartype.name != "BINARY" else answer
    place = {v: column for column, v in enumerate(binary.variables)}
    rows = np.asarray(binary.record.sample)[:, [place[i] for i in range(n)]]
    counts = np.asarray(binary.record.num_occurrences)
    if not np.isin(rows, (0, 1)).all():
        raise ValueError(f"{name} answered with values that are neither 0 nor 1")
    if rows.shape[0] == 0:
        raise ValueError(f"{name} answered with no sample at all")
    reads = np.repeat(rows, counts, axis=0)
    if reads.shape[0] != num_reads:
        # A solver without num_reads chooses their number itself: its lowest states are taken, repeated if too few.
        order = np.argsort(np.repeat(np.asarray(binary.record.energy), counts), kind="stable")
        reads = reads[np.resize(order, num_reads)]
    return reads.astype(np.int8)


def _known(sampler: Any) -> frozenset[str]:
    """Names of the keyword arguments of a dimod sampler: those in `parameters` and in the signature of `sample`."""
    # OpenJij lists three in `parameters`, and its `sample` takes a dozen.
    spelled = inspect.signature(sampler.sample).parameters.values()
    named = {p.name for p in spelled if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return frozenset(sampler.parameters) | (named - {"bqm"})


def _repeats_itself(sampler: Any) -> bool:
    # OpenJij uses the same random numbers for every read of a seeded call: it gets one call per read, each with a seed.
    return type(sampler).__module__.split(".")[0] == "openjij"


@dataclass(frozen=True)
class DimodSampler(_BqmSampler):
    """Any `dimod.Sampler` as a qjax sampler.

    sampler         the `dimod.Sampler`
    parameters      keyword arguments for its `sample`, as a tuple of (name, value) pairs
    deterministic   True for a sampler without a seed that always gives the same answer, such as an exact solver

    num_reads and seed (below 2^31, from the key) are passed where the sampler takes them, unless they are among the
    parameters. Samplers that take a seed and deterministic ones may be called inside jit and vmap.
    Errors: ValueError for a parameter that the sampler does not take (some samplers ignore those without a warning).
    """

    sampler: Any
    parameters: tuple[tuple[str, Any], ...] = ()
    deterministic: bool = False

    def __post_init__(self) -> None:
        declared = getattr(self.sampler, "parameters", None)
        if declared is None or not callable(getattr(self.sampler, "sample", None)):
            raise ValueError(f"sampler must be a dimod.Sampler, got {type(self.sampler).__name__}")
        known = _known(self.sampler)
        for name, _ in self.parameters:
            if name not in known:
                has = ", ".join(sorted(known))
                raise ValueError(f"parameters: {type(self.sampler).__name__} has no {name!r}; it has {has}")

    @property
    def seeded(self) -> bool:
        return self.deterministic or "seed" in _known(self.sampler)

    @property
    def with_more_time(self) -> str:
        return "once" if self.deterministic else "restart"

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any], frozenset[str]]:
        return self.sampler, dict(self.parameters), _known(self.sampler)


@dataclass(frozen=True)
class Neal(_BqmSampler):
    """The simulated annealing of dwave-samplers (formerly dwave-neal), on one CPU thread.

    Fields: the arguments of `dwave.samplers.SimulatedAnnealingSampler.sample` of the same names.
    Errors: ImportError where dwave-samplers is not installed.
    """

    num_sweeps: int = 1000
    beta_range: tuple[float, float] | None = None
    beta_schedule_type: str = "geometric"
    beta_schedule: tuple[float, ...] | None = None
    num_sweeps_per_beta: int = 1
    randomize_order: bool = False
    proposal_acceptance_criteria: str = "Metropolis"

    @property
    def seeded(self) -> bool:
        return True

    @property
    def with_more_time(self) -> str:
        # A given schedule has a fixed number of sweeps.
        return "restart" if self.beta_schedule_type == "custom" else "longer"

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any], frozenset[str]]:
        from dwave.samplers import SimulatedAnnealingSampler

        arguments = {f.name: getattr(self, f.name) for f in fields(self)}
        vectors = bqm.to_numpy_vectors()
        flat = not np.any(vectors.linear_biases) and not np.any(vectors.quadratic.biases)
        if flat and self.beta_range is None and self.beta_schedule is None:
            # What the solver chooses itself, but with a warning that all energies are equal.
            arguments["beta_range"] = (0.1, 1.0)
        solver = SimulatedAnnealingSampler()
        return solver, arguments, frozenset(solver.parameters)


neal = Neal


def __getattr__(name: str) -> Any:
    if name == "AsDimod":
        from qjax.interop.adapter import AsDimod

        return AsDimod
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
