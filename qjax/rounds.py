"""What the rounds of `qjax.hybrid` take and give: the problem that is annealed, what came of a round, of them all."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import Encoding
from qjax.formulate.quadratic import Quadratic
from qjax.ledger import Ledger


class Problem(NamedTuple):
    """What a round anneals.

    quadratic  q, the model of the loss
    encoding   p(x) = p0 + B x
    qubo       E(x) = q(p(x)), of batch (C,) where q separates into C channels
    penalised  qubo plus the penalties for the encoding's constraints, None where it has none
    blocks     the encoding's, of one problem of a batch; None where problems share a group
    """

    quadratic: Quadratic
    encoding: Encoding
    qubo: Qubo
    penalised: Qubo | None
    blocks: Blocks | None

    @property
    def sampled_qubo(self) -> Qubo:
        """The Qubo that a sampler is given that does not move blocks."""
        return self.qubo if self.penalised is None else self.penalised


class Round(NamedTuple):
    """The result of one round, with k = num_candidates candidates (all reads, if they are fewer).

    params         the best candidate, or, where it was not accepted, the parameters that the round began with; None in
                   `Trained.rounds`, so that memory does not grow by a model a round
    loss           () their true loss
    loss_before    () the true loss of the parameters that the round began with
    accepted       () whether the best candidate, that of lowest true loss, was accepted
    bits           (k, n) int8: the candidates by energy, constraints repaired, states that repeat an earlier one last
    energies       (k,) q of the candidates, without penalties
    losses         (k,) their true losses, infinite where they are not finite
    fidelity       () how well q predicts the order of the candidates: Spearman's rank correlation of energies and
                   losses, in [-1, 1]; 0 for one candidate
    ratio          () how well q predicts the gain of the best candidate: (loss_before - its loss) / (q_before - its q)
    feasible       () the fraction of all reads that satisfied every constraint before repair
    energies_read  (reads,) energies of all reads as sampled: with penalties if it was given them, summed over a batch
    info           {name: ()} what the sampler says of its call in single numbers, as of `Samples.info`
    seconds        {phase: s} of formulate, anneal and decode, as `hybrid` books them; {} from `outer_round`
    """

    params: Any
    loss: jax.Array
    loss_before: jax.Array
    accepted: jax.Array
    bits: jax.Array
    energies: jax.Array
    losses: jax.Array
    fidelity: jax.Array
    ratio: jax.Array
    feasible: jax.Array
    energies_read: jax.Array
    info: dict[str, Any]
    seconds: dict[str, float]

    @property
    def improved(self) -> jax.Array:
        """(): whether the round lowered the true loss. Every finite loss counts as lower than NaN."""
        return self.accepted & jnp.isfinite(self.loss) & ~(self.loss >= self.loss_before)

    @property
    def finite(self) -> jax.Array:
        """(): whether all energies are finite. Where a model holds NaN, `hybrid` raises; a traced round cannot."""
        return jnp.isfinite(self.energies_read).all() & jnp.isfinite(self.energies).all()

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds of the round: all of the above but params and bits, and `improved`, as numbers, true or
        false, and lists of them; null for what is not finite. Floats are exact. It waits for the arrays."""
        kept = {name: value for name, value in self._asdict().items() if name not in ("params", "bits")}
        return {name: _plain(value) for name, value in (kept | {"improved": self.improved}).items()}


class Trained(NamedTuple):
    """The result of `hybrid`.

    params    after the rounds and the descent
    state     the model's state with them, None where it has none
    rounds    one `Round` for each, without its params
    radii     the radius of each round
    descents  what `descend` returned, each time; all but the last with None for params, state and optimizer
    ledger    the seconds by phase
    """

    params: Any
    state: Any
    rounds: tuple[Round, ...]
    radii: tuple[float, ...]
    descents: tuple[Any, ...]
    ledger: Ledger


def scalars(info: dict[str, Any]) -> dict[str, Any]:
    """The single numbers of a sampler's info, traced ones too: no text, no tables, nothing by read, bit or problem."""
    numbers = (bool, int, float, np.generic, np.ndarray, jax.Array)
    return {name: value for name, value in info.items() if isinstance(value, numbers) and np.ndim(value) == 0}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | int | float):
        return value if math.isfinite(value) else None
    return _plain(np.asarray(value).tolist())
