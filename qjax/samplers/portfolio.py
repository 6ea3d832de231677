"""A race of samplers on reads set apart, before a call: who is to have the reads.

Every entrant runs a fixed number of steps on a few reads, whose key no read of the call has, and gets a score: the mean
energy of its reads where it soon comes to what it ends with, else the lowest, since its schedule is far too short here
and a longer one gains it more (docs/samplers.md has figures). The lowest score wins, of equal ones the first in the
order given. Steps, key and Qubo decide, never a clock, so that a call gives the same bits whenever it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from qjax.energy.qubo import Qubo
from qjax.samplers.contract import Sampler
from qjax.samplers.lengths import of_length

# fold_in(key, r) is the key of read r, and within's chunk k has fold_in(key, k).
_PILOT = 2**32 - 1
_READS, _SHARE = 16, 4


@dataclass(frozen=True)
class Entrant:
    """A sampler of a call's full length.

    pilot: the steps of a whole pilot, about as much work for all entrants.
    quick: whether a pilot shows about what it comes to: judged by the mean, else by the lowest energy.
    work: of one step, in a unit that all entrants share: what turns are dealt by (qjax.samplers.turns).
    """

    name: str
    sampler: Sampler
    pilot: int = 1
    quick: bool = False
    work: float = 1.0

    def shortened(self, part: float) -> Sampler:
        """The sampler of this part of a whole pilot."""
        return of_length(self.sampler, max(round(part * self.pilot), 1))


class Race(NamedTuple):
    """The entrants, the best first, and the lowest energy of each in the pilot."""

    entrants: tuple[Entrant, ...]
    tried: dict[str, np.float64]


def race(
    entrants: tuple[Entrant, ...],
    key: jax.Array,
    qubo: Qubo,
    num_reads: int,
    initial: jax.Array | None,
    part: float = 1.0,
) -> Race:
    """The entrants by this part of their pilots; a single one needs none. qubo: one problem, on this host.

    A pilot has a quarter of the call's reads, at most 16, from the first of the states `initial` (num_reads, n)
    """
    if len(entrants) == 1:
        return Race(entrants, {})
    reads = max(min(num_reads // _SHARE, _READS), 1)
    states = None if initial is None else initial[:reads]
    apart = jax.random.fold_in(key, _PILOT)
    found = {e.name: np.asarray(e.shortened(part)(apart, qubo, reads, states).energies, np.float64) for e in entrants}
    lowest = {name: np.float64(np.min(energies)) for name, energies in found.items()}
    scores = {e.name: float(found[e.name].mean()) if e.quick else float(lowest[e.name]) for e in entrants}
    return Race(tuple(sorted(entrants, key=lambda entrant: scores[entrant.name])), lowest)


def can_race(key: jax.Array, qubo: Qubo, initial: jax.Array | None) -> bool:
    """Whether a call is of one problem whose numbers can be looked at: neither traced nor spread over hosts."""
    # Inside a trace, whatever is computed from constants is traced as well.
    leaves = jax.tree.leaves((jax.random.fold_in(key, _PILOT), qubo, initial))
    return not qubo.batch_shape and not any(
        isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable)
        for leaf in leaves
    )
