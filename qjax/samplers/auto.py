"""The sampler for a problem, taken from a table by size, form and density of the couplings: docs/samplers.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy import finder
from qjax.energy.blocks import KINDS, Blocks
from qjax.energy.couplings import Gram, Implicit, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.anneal import Anneal
from qjax.samplers.bifurcation import Bifurcation
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.exact import Exact
from qjax.samplers.lengths import of_length
from qjax.samplers.moves import sweeps
from qjax.samplers.portfolio import Entrant, can_race, race


class Choice(NamedTuple):
    """A row of the table: a sampler, and the problems that it is for."""

    sampler: Sampler
    takes: str


# The first row that takes a problem has it; `row_of` says so in code. What each row was measured on: docs/samplers.md.
CHOICES = (
    Choice(Exact(), "n <= 16 bits"),
    # Where few bits are coupled a sweep costs less than one product, and single flips find more.
    Choice(Anneal(), "sparse couplings, swept by colour classes"),
    # A single flip of implicit couplings costs whole products, and needs a diagonal that may be unknown.
    Choice(Bifurcation(), "implicit couplings"),
    # With few reads annealing solves more of the small problems than bifurcation.
    Choice(Anneal(), "dense couplings, n < 1000; Gram couplings, n < 100"),
    # Least squares on correlated features: in equal time it solves most of those that annealing does not.
    Choice(Bifurcation(), "Gram couplings"),
    # A step is one matmul, a sweep n flips one after another.
    Choice(Bifurcation(), "dense couplings"),
    # Of those that keep blocks by their moves.
    Choice(Anneal(), "blocks that exclude states, before all other rows"),
)
_EXACT, _SPARSE, _IMPLICIT, _SMALL, _GRAM, _DENSE, _BLOCKS = range(7)
_MOST_EXACT = 16
_FEW_BITS, _FEW_GRAM_BITS = 1000, 100
_MOST_ALIKE = 400
# What a pilot chooses from on larger dense and Gram couplings: a step of bifurcation costs a third of a sweep.
_QUICK = Entrant("bifurcation", Bifurcation(), 100, True, 1 / 3)
_SLOW = Entrant("anneal", Anneal(), 25)
# A call of that many sweeps or more has a whole pilot, others a part of it.
_WHOLE_PILOT = 1500


@dataclass(frozen=True)
class Auto(Sampler):
    """The first row of `CHOICES` that takes the couplings, with num_sweeps sweeps (or steps):

        n <= 16 exact | sparse anneal | implicit bifurcation | small dense or Gram anneal | Gram, dense bifurcation

    Blocks that exclude states: anneal, which moves them.

    In a trace, and for a batch, size, form and density of the couplings decide alone, not their numbers: all problems
    of a batch and all calls of one shape get the same sampler. Why these rows: docs/samplers.md.
    A call of one problem outside any trace looks first: for dense couplings from n = 400 on and Gram couplings from 100
    on, anneal and bifurcation run a short pilot on reads of their own (qjax.samplers.portfolio), and the better one
    makes the call. The choice depends on key, Qubo, initial_states, num_sweeps and num_reads, never on seconds.
    `within` also goes on from one to the other.
    find_blocks: groups whose number of ones a penalty fixes (qjax.energy.finder) are looked for in a single Qubo of 17
        to 2048 bits that is not traced; where there are some, anneal has moves of whole groups beside its flips.
    num_sweeps: num_sweeps or num_steps of the chosen sampler, whose other hyperparameters are its defaults.
    info: choice (*batch,), the number of the row; after a pilot tried and given, tables by the names of the entrants:
    the lowest energy in the pilot, and the sweeps (or steps) that each was given; and the info of the chosen sampler.
    Errors: those of the chosen sampler.
    """

    num_sweeps: int = 1000
    find_blocks: bool = True

    blocks: ClassVar[tuple[str, ...]] = KINDS
    adds_moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)

    def found(self, qubo: Qubo) -> Blocks | None:
        if not self.find_blocks or not _MOST_EXACT < qubo.num_bits <= finder.MOST_BITS:
            return None
        return finder.find_blocks(qubo) or Blocks()

    def algorithm_for(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> Sampler:
        """The sampler that `num_reads` reads of a Qubo get."""
        return of_length(CHOICES[row_of(qubo, blocks)].sampler, self.num_sweeps)

    def entrants(self, qubo: Qubo, blocks: Blocks | None = None) -> tuple[Entrant, ...]:
        """Who may make a call for a Qubo: the table's choice first."""
        row = row_of(qubo, blocks)
        if row not in (_DENSE, _GRAM) and not (row == _SMALL and qubo.num_bits >= _MOST_ALIKE):
            chosen = self.algorithm_for(qubo, 1, blocks)
            return (Entrant(type(chosen).__name__.lower(), chosen),)
        order = (_SLOW, _QUICK) if row == _SMALL else (_QUICK, _SLOW)
        return tuple(replace(entrant, sampler=of_length(entrant.sampler, self.num_sweeps)) for entrant in order)

    def choose(
        self, key: jax.Array, qubo: Qubo, num_reads: int, initial: jax.Array | None, blocks: Blocks | None
    ) -> tuple[Sampler, dict[str, Any]]:
        entrants = self.entrants(qubo, blocks)
        if len(entrants) == 1 or not can_race(key, qubo, initial):
            return self, {}
        raced = race(entrants, key, qubo, num_reads, initial, min(self.num_sweeps / _WHOLE_PILOT, 1.0))
        first = raced.entrants[0]
        given = {e.name: np.float64(self.num_sweeps if e.name == first.name else 0) for e in entrants}
        return first.sampler, {"choice": jnp.int32(row_of(qubo, blocks)), "tried": raced.tried, "given": given}

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
        choice = jnp.full(task.num_problems, row_of(task.qubo, task.blocks), jnp.int32)
        return outcome._replace(problem_info={**outcome.problem_info, "choice": choice})


def row_of(qubo: Qubo, blocks: Blocks | None = None) -> int:
    couplings, n = qubo.couplings, qubo.num_bits
    # Groups that were only found keep no state out.
    if n <= _MOST_EXACT and (blocks is None or isinstance(blocks, finder.Found)):
        return _EXACT
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
