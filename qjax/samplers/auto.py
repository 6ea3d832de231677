"""The sampler for a problem, picked from a table by what is known without looking at its numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qjax.energy.couplings import Gram, Implicit, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.anneal import Anneal
from qjax.samplers.bifurcation import Bifurcation
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.exact import Exact
from qjax.samplers.moves import sweeps


class Choice(NamedTuple):
    """A row of the table: a sampler, and for what."""

    sampler: Sampler
    takes: str


# The first that takes a problem has it; `_row` says so in code. Figures are of 2 CPU cores; rows for accelerators wait
# for measurements: `python -m experiments solvers` is there for them.
CHOICES = (
    Choice(Exact(), "n <= 16 bits"),
    # Cuts after 1 and 5 s (2 cores, 128 reads), beside dwave-samplers' anneal (16 reads): G22 13357, 13358 (13339,
    # 13358); G35 7667, 7674 (7635, 7666); G55 10243, 10286 (10196, 10249); G32 1402, 1408 (1400, 1402); the four Biq
    # Mac files at their best known within 0.5 s. Bifurcation codes, 5-6 s: G22 13298 .. 13356, G35 7626. Where few bits
    # are coupled a sweep costs less than one product, and single flips find more.
    Choice(Anneal(), "sparse couplings, swept by colour classes"),
    # A single flip of implicit couplings costs whole products, and needs a diagonal that may be unknown.
    Choice(Bifurcation(), "implicit couplings"),
    # One problem, 128 reads, n = 64 to 400, random +-1 with and without fields and bqp: both find the best in 0.2 s,
    # bifurcation up to 3 times sooner without fields, anneal up to 6 times with them. With few reads it is the surer:
    # 64 problems x 8 reads for 1 s, share solved at n = 64 and 256 (bifurcation): +-1 1.00, 0.87 (0.88, 0.77), with
    # fields 1.00, 0.99 (0.91, 0.71), bqp 1.00, 1.00 (0.96, 0.83).
    Choice(Anneal(), "dense couplings, n < 400; Gram couplings, n < 100"),
    # Least squares on 256 correlated features of 2 bits, 64 reads x 1000 steps, median energy: generalized (A = 0.4 to
    # 0.6) 0.10 to 0.11, ballistic 0.096, discrete 1.6; anneal of 300 sweeps 0.093. 128 features of 4 bits: 0.043,
    # 0.042, 0.60; anneal 0.031. Of 64 problems x 8 reads over one such matrix of n / 3 factors, for 1 s: n = 256 0.95
    # solved (anneal 0.05), n = 64 0.19 (0.26); one problem of n = 128 to 400, 0.5 s: gap 0.00 to 0.01 % (0.08 to 0.18).
    Choice(Bifurcation(), "Gram couplings"),
    # Random +-1 complete graphs, best energy after 1, 2, 5 s (2 cores, 128 reads). n = 2000: generalized (A = 0.4)
    # -67852, -67882, -67902; discrete -67128, -67456, -67792; anneal -67116, -67116, -67726. n = 500: both -8482 within
    # 0.5 s, anneal in 2 s. On a GPU the more so: a step is a matmul, a sweep n steps one after another.
    Choice(Bifurcation(), "dense couplings"),
)
_EXACT, _SPARSE, _IMPLICIT, _SMALL, _GRAM, _DENSE = range(6)
_MOST_EXACT = 16
_FEW_BITS, _FEW_GRAM_BITS = 400, 100


@dataclass(frozen=True)
class Auto(Sampler):
    """`CHOICES[info["choice"]].sampler` with num_sweeps sweeps (or steps), chosen by size, form and density of the
    couplings alone: all problems of a batch, all calls of one shape, and every device of a mesh get the same.

    info: choice (*batch,), the row of the table; and what the chosen sampler says.
    """

    num_sweeps: int = 1000

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)

    def algorithm_for(self, qubo: Qubo, num_reads: int) -> Sampler:
        """The sampler that `num_reads` reads of a Qubo get."""
        sampler: Any = CHOICES[_row(qubo)].sampler
        length = next((name for name in ("num_sweeps", "num_steps") if hasattr(sampler, name)), None)
        return sampler if length is None else replace(sampler, **{length: self.num_sweeps})

    def _algorithm(self, task: Task) -> Sampler:
        return self.algorithm_for(task.qubo, task.num_reads)

    def length(self, task: Task) -> int:
        return self._algorithm(task).length(task)

    def prepare(self, task: Task) -> Any:
        return self._algorithm(task).prepare(task)

    def init(self, task: Task, prepared: Any) -> Any:
        return self._algorithm(task).init(task, prepared)

    def step(self, task: Task, prepared: Any, t: jax.Array, state: Any) -> Any:
        return self._algorithm(task).step(task, prepared, t, state)

    def finish(self, task: Task, prepared: Any, state: Any) -> Outcome:
        outcome = self._algorithm(task).finish(task, prepared, state)
        choice = jnp.full(task.num_problems, _row(task.qubo), jnp.int32)
        return outcome._replace(problem_info={**outcome.problem_info, "choice": choice})


def _row(qubo: Qubo) -> int:
    couplings, n = qubo.couplings, qubo.num_bits
    if n <= _MOST_EXACT:
        return _EXACT
    if isinstance(couplings, Sparse) and sweeps.by_classes(couplings):
        return _SPARSE
    if isinstance(couplings, Implicit):
        return _IMPLICIT
    if n < (_FEW_GRAM_BITS if isinstance(couplings, Gram) else _FEW_BITS):
        return _SMALL
    return _GRAM if isinstance(couplings, Gram) else _DENSE
