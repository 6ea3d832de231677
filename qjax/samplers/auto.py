"""The sampler for a problem, taken from a table by size, form and density of the couplings: docs/samplers.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from qjax.energy.blocks import KINDS, Blocks
from qjax.energy.couplings import Gram, Implicit, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.anneal import Anneal
from qjax.samplers.bifurcation import Bifurcation
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.exact import Exact
from qjax.samplers.moves import sweeps


class Choice(NamedTuple):
    """A row of the table: a sampler, and the problems that it is for."""

    sampler: Sampler
    takes: str


# The first row that takes a problem has it; `_row` says so in code. What each row was measured on: docs/samplers.md.
CHOICES = (
    Choice(Exact(), "n <= 16 bits"),
    # Where few bits are coupled a sweep costs less than one product, and single flips find more.
    Choice(Anneal(), "sparse couplings, swept by colour classes"),
    # A single flip of implicit couplings costs whole products, and needs a diagonal that may be unknown.
    Choice(Bifurcation(), "implicit couplings"),
    # With few reads annealing solves more of the small problems than bifurcation.
    Choice(Anneal(), "dense couplings, n < 400; Gram couplings, n < 100"),
    # Least squares on correlated features: in equal time it solves most of those that annealing does not.
    Choice(Bifurcation(), "Gram couplings"),
    # A step is one matmul, a sweep n flips one after another.
    Choice(Bifurcation(), "dense couplings"),
    # Of those that keep blocks by their moves.
    Choice(Anneal(), "blocks that exclude states, before all other rows"),
)
_EXACT, _SPARSE, _IMPLICIT, _SMALL, _GRAM, _DENSE, _BLOCKS = range(7)
_MOST_EXACT = 16
_FEW_BITS, _FEW_GRAM_BITS = 400, 100


@dataclass(frozen=True)
class Auto(Sampler):
    """The first row of `CHOICES` that takes the couplings, with num_sweeps sweeps (or steps):

        n <= 16 exact | sparse anneal | implicit bifurcation | small dense or Gram anneal | Gram, dense bifurcation

    Blocks that exclude states: anneal, which moves them.

    Size, form and density of the couplings decide alone, not their numbers: all problems of a batch, all calls of one
    shape, and all devices of a mesh get the same sampler. Why these rows, and where they are wrong: docs/samplers.md.
    num_sweeps: num_sweeps or num_steps of the chosen sampler, whose other hyperparameters are its defaults.
    info: choice (*batch,), the number of the row; and the info of the chosen sampler.
    Errors: those of the chosen sampler.
    """

    num_sweeps: int = 1000

    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)

    def algorithm_for(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> Sampler:
        """The sampler that `num_reads` reads of a Qubo get."""
        sampler: Any = CHOICES[_row(qubo, blocks)].sampler
        length = next((name for name in ("num_sweeps", "num_steps") if hasattr(sampler, name)), None)
        return sampler if length is None else replace(sampler, **{length: self.num_sweeps})

    def _algorithm(self, task: Task) -> Sampler:
        return self.algorithm_for(task.qubo, task.num_reads, task.blocks)

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
        choice = jnp.full(task.num_problems, _row(task.qubo, task.blocks), jnp.int32)
        return outcome._replace(problem_info={**outcome.problem_info, "choice": choice})


def _row(qubo: Qubo, blocks: Blocks | None) -> int:
    couplings, n = qubo.couplings, qubo.num_bits
    if blocks is not None and blocks.binding.families:
        return _BLOCKS
    if n <= _MOST_EXACT:
        return _EXACT
    if isinstance(couplings, Sparse) and sweeps.by_classes(couplings):
        return _SPARSE
    if isinstance(couplings, Implicit):
        return _IMPLICIT
    if n < (_FEW_GRAM_BITS if isinstance(couplings, Gram) else _FEW_BITS):
        return _SMALL
    return _GRAM if isinstance(couplings, Gram) else _DENSE
