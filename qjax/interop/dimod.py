"""The host seam to dimod, both ways; dimod and dwave-samplers are imported when first needed.

DimodSampler(sampler)   any `dimod.Sampler` as a qjax sampler
neal(...)               the simulated annealing of dwave-samplers, so wrapped
AsDimod(sampler)        any qjax sampler as a `dimod.Sampler` (qjax.interop.as_dimod)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from qjax.interop.bqm import to_bqm
from qjax.labels import Labels
from qjax.qubo import Qubo
from qjax.samplers.contract import check_call
from qjax.samplers.samples import Samples


class _HostSampler:
    """The call of a host sampler: one problem after another, device -> host -> Samples."""

    couplings: ClassVar[tuple[str, ...]] = ("dense", "sparse", "gram", "implicit")
    batches: ClassVar[bool] = True
    thermal: ClassVar[bool] = False
    is_host: ClassVar[bool] = True

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any]]:
        """(dimod sampler, its keyword arguments) for a model."""
        raise TypeError(f"{type(self).__name__} does not say its dimod sampler")

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        """Samples as the contract has them; energies are recomputed from the Qubo.

        Errors: ValueError for bad arguments, for a call under jit, vmap or grad, and for answers that do not fit the
        problem.
        """
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, qubo, initial_states))):
            name = type(self).__name__
            raise ValueError(f"{name} runs on the host and cannot be traced: call it outside jit, vmap and grad")
        key, num_reads, initial = check_call(key, qubo, num_reads, initial_states)
        batch, n = qubo.batch_shape, qubo.num_bits
        states = np.zeros((*batch, num_reads, n), np.int8)
        for p, place in enumerate(np.ndindex(*batch)):
            one = replace(qubo, offset=qubo.offset[place], linear=qubo.linear[place], scale=qubo.scale[place])
            start = None if initial is None else np.asarray(initial[place])
            # Labels are left behind: the seam speaks of bits 0 .. n - 1.
            states[place] = self._bits(
                jax.random.fold_in(key, p), replace(one, labels=Labels.range(n)), num_reads, start
            )
        bits = jnp.asarray(states)
        return Samples(bits, qubo.energies(bits), {})

    def _bits(self, key: jax.Array, qubo: Qubo, num_reads: int, initial: np.ndarray | None) -> np.ndarray:
        n = qubo.num_bits
        if n == 0:
            return np.zeros((num_reads, 0), np.int8)
        bqm = to_bqm(qubo)
        solver, arguments = self._solver(bqm)
        known = solver.parameters
        if "num_reads" in known:
            arguments.setdefault("num_reads", num_reads)
        if "seed" in known:
            # The solvers take seeds below 2^31.
            arguments.setdefault("seed", int(jax.random.bits(key, (), jnp.uint32) >> 1))
        if initial is not None:
            if "initial_states" not in known:
                raise ValueError(f"initial_states: {type(solver).__name__} takes none")
            arguments.setdefault("initial_states", (initial.astype(np.int8), list(range(n))))
        return _checked(solver.sample(bqm, **arguments), n, num_reads, type(solver).__name__)


def _checked(answer: Any, n: int, num_reads: int, name: str) -> np.ndarray:
    """Bits (num_reads, n) of a dimod sample set, in the order of the Qubo.

    Errors: ValueError for other variables than 0 .. n - 1, values that are no bits, no sample at all.
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
        # A solver without num_reads decides itself: keep its lowest states, repeat them where there are too few.
        order = np.argsort(np.repeat(np.asarray(binary.record.energy), counts), kind="stable")
        reads = reads[np.resize(order, num_reads)]
    return reads.astype(np.int8)


@dataclass(frozen=True)
class DimodSampler(_HostSampler):
    """Any `dimod.Sampler` as a qjax sampler. parameters: keyword arguments of its `sample`, a tuple of (name, value)
    pairs.

    `num_reads` is passed where the sampler knows it, `seed` (derived from the key, < 2^31) likewise, unless given
    here. Reads that it aggregates are counted out again. Errors: ValueError for a parameter that the sampler does
    not know (some ignore those in silence).
    """

    sampler: Any
    parameters: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        known = getattr(self.sampler, "parameters", None)
        if known is None or not callable(getattr(self.sampler, "sample", None)):
            raise ValueError(f"sampler must be a dimod.Sampler, got {type(self.sampler).__name__}")
        for name, _ in self.parameters:
            if name not in known:
                has = ", ".join(sorted(known))
                raise ValueError(f"parameters: {type(self.sampler).__name__} has no {name!r}; it has {has}")

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any]]:
        return self.sampler, dict(self.parameters)


@dataclass(frozen=True)
class Neal(_HostSampler):
    """Simulated annealing of dwave-samplers (once dwave-neal), on one CPU thread. Fields as in its `sample`.

    Errors: ImportError where dwave-samplers is not installed.
    """

    num_sweeps: int = 1000
    beta_range: tuple[float, float] | None = None
    beta_schedule_type: str = "geometric"
    beta_schedule: tuple[float, ...] | None = None
    num_sweeps_per_beta: int = 1
    randomize_order: bool = False
    proposal_acceptance_criteria: str = "Metropolis"

    def _solver(self, bqm: Any) -> tuple[Any, dict[str, Any]]:
        from dwave.samplers import SimulatedAnnealingSampler

        arguments = {f.name: getattr(self, f.name) for f in fields(self)}
        flat = not np.any(bqm.to_numpy_vectors().linear_biases) and not any(bqm.quadratic.values())
        if flat and self.beta_range is None and self.beta_schedule is None:
            # Left to itself the solver warns that all energies are equal, then takes this range.
            arguments["beta_range"] = (0.1, 1.0)
        return SimulatedAnnealingSampler(), arguments


neal = Neal


def __getattr__(name: str) -> Any:
    if name == "AsDimod":
        from qjax.interop.as_dimod import AsDimod

        return AsDimod
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
