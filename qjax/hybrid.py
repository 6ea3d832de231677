"""The method: formulate a QUBO near the present parameters, anneal it, pick by the true loss, descend.

    formulate   quadratic, encoding = formulate(params, radius);  qubo = pull_back(quadratic, encoding) + penalties
    anneal      samples = sampler(key, qubo, num_reads)
    pick        the candidate p(x) of lowest TRUE loss among the reads of lowest energy
    descend     descend(key, params): a jitted optax loop, see qjax.refine

One outer round is a pure function of (key, params, radius): `outer_round`. The driver `hybrid` repeats the same three
steps with seconds: it measures how far the quadratic can be trusted, sets the radius of the next round by that, and
books every step.

A quadratic that separates into C channels gives one Qubo with batch (C,): C problems of n / C bits, annealed at once.
Everything here speaks of states of the whole encoding, n bits: `initial_states` splits proposals into the problems, and
samples are put together, the k-th best read of each problem with the k-th best of the others (`Samples.join`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from qjax import programs
from qjax.energy import penalties
from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import Encoding
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import Quadratic
from qjax.ledger import Ledger
from qjax.samplers.samples import Samples

Formulate: TypeAlias = Callable[[Any, float], tuple[Quadratic, Encoding]]
Loss: TypeAlias = Callable[[Any], jax.Array]
SamplerCall: TypeAlias = Callable[..., Samples]
Propose: TypeAlias = Callable[[jax.Array, "Problem", int], jax.Array]

# The proposals' key: read r of a sampler draws from fold_in(key, r), and no run has so many reads.
_PROPOSAL = 2**32 - 1


class Problem(NamedTuple):
    """What is annealed: qubo is E(x) = q(p(x)), penalised that plus what constraints add (None without constraints)."""

    quadratic: Quadratic
    encoding: Encoding
    qubo: Qubo
    penalised: Qubo | None

    @property
    def sampled_qubo(self) -> Qubo:
        """What the sampler sees."""
        return self.qubo if self.penalised is None else self.penalised


class Round(NamedTuple):
    """One outer round.

    params     the picked candidate, or the parameters the round began with where none was better
    loss       its true loss; loss_before that of the beginning
    accepted   whether a candidate was taken
    bits       (k, n) candidates: repaired, by energy, repeated states last
    energies   (k,) q at the candidates, without penalties; losses (k,) their true losses, infinite where not finite
    fidelity   Spearman's rank correlation of energies and losses over the candidates, in [-1, 1]; 0 for one candidate
    ratio      actual over predicted reduction of the loss, by the picked candidate
    feasible   fraction of all reads that satisfied every constraint before repair
    energies_read  (reads,) energies of all reads as sampled (penalties included, problems of a batch summed)
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

    @property
    def improved(self) -> jax.Array:
        """Whether the round lowered the true loss; from a loss that is NaN, any finite one is lower."""
        return self.accepted & jnp.isfinite(self.loss) & ~(self.loss >= self.loss_before)


class Trained(NamedTuple):
    """params after everything, the rounds, their radii, whatever `descend` returned (None without), the ledger."""

    params: Any
    rounds: tuple[Round, ...]
    radii: tuple[float, ...]
    descent: Any
    ledger: Ledger


def outer_round(
    key: jax.Array,
    loss: Loss,
    params: Any,
    formulate: Formulate,
    sampler: SamplerCall,
    radius: float = 1.0,
    num_reads: int = 64,
    num_candidates: int = 16,
    accept: Literal["better", "always"] = "better",
    propose: Propose | None = None,
) -> Round:
    """Formulate, anneal, pick: a pure function, traceable wherever the sampler is."""
    problem = formulated(formulate, params, radius)
    start = initial_states(key, problem, num_reads, propose)
    samples = _Anneal(sampler, num_reads)(key, problem.sampled_qubo, start)
    return picked(loss, params, problem, samples, num_candidates, accept)


def hybrid(
    key: jax.Array,
    loss: Loss,
    params: Any,
    formulate: Formulate,
    sampler: SamplerCall,
    *,
    num_rounds: int = 1,
    num_reads: int = 64,
    num_candidates: int = 16,
    radius: float = 1.0,
    accept: Literal["better", "always"] = "better",
    propose: Propose | None = None,
    descend: Callable[[jax.Array, Any], Any] | None = None,
    ledger: Ledger | None = None,
) -> Trained:
    """Train params: `num_rounds` outer rounds, then `descend`.

    loss(params) -> scalar, the true loss that candidates are picked by (jit it; on training or validation data);
    formulate(params, radius) -> (Quadratic, Encoding); sampler: any qjax sampler, a D-Wave one too;
    propose(key, problem, num_reads) -> bits (reads, n) the sampler starts from (warm starts, sequential rounding);
    accept: "better" keeps the present parameters where no candidate beats them, "always" takes the best candidate (for
    weights that must be discrete); descend(key, params) returns something with `.params`, such as `Refined`.
    The ledger charges the annealer's compilation once a run, also where an earlier run in the process has waited for it
    (see `programs`): its total can then exceed this call's wall-clock, and `ledger.balance` of that would raise. The
    true losses of the candidates are part of "decode".
    Errors: ValueError for numbers of rounds, reads or candidates below one, and what the parts reject.
    """
    for name, value in (("num_rounds", num_rounds), ("num_reads", num_reads), ("num_candidates", num_candidates)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    ledger = Ledger() if ledger is None else ledger
    anneal = _Anneal(sampler, num_reads)
    rounds: list[Round] = []
    radii: list[float] = []
    compiled: dict[Callable[..., Samples], float] = {}
    for index in range(num_rounds):
        # The same as `outer_round`, with seconds.
        round_key = jax.random.fold_in(key, index)
        problem, ledger = ledger.run("formulate", formulated, formulate, params, radius)
        start, ledger = ledger.run("formulate", initial_states, round_key, problem, num_reads, propose)
        program, seconds = anneal.compiled(round_key, problem.sampled_qubo, start)
        samples, ledger = ledger.sample(program, round_key, problem.sampled_qubo, start)
        outcome, ledger = ledger.run("decode", picked, loss, params, problem, samples, num_candidates, accept)
        rounds.append(outcome)
        radii.append(radius)
        if seconds:
            compiled[program] = seconds
        params = outcome.params
        radius = next_radius(radius, bool(outcome.improved), float(outcome.ratio))
    if compiled:
        ledger = ledger.add("compile", sum(compiled.values()))
    if descend is None:
        return Trained(params, tuple(rounds), tuple(radii), None, ledger)
    descent, ledger = ledger.run("refine", descend, jax.random.fold_in(key, num_rounds), params)
    return Trained(descent.params, tuple(rounds), tuple(radii), descent, ledger)


def formulated(formulate: Formulate, params: Any, radius: float) -> Problem:
    """Formulate: the quadratic, the encoding and their Qubos near params."""
    quadratic, encoding = formulate(params, radius)
    qubo = pull_back(quadratic, encoding)
    constraints = encoding.constraints
    penalised = qubo + penalties.constraints(qubo, constraints) if constraints else None
    return Problem(quadratic, encoding, qubo, penalised)


def initial_states(key: jax.Array, problem: Problem, num_reads: int, propose: Propose | None) -> jax.Array | None:
    """Proposed states (reads, n) of the encoding in the shape the Qubo's batch has them, (*batch, reads, bits)."""
    if propose is None:
        return None
    states = propose(jax.random.fold_in(key, _PROPOSAL), problem, num_reads)
    batch = problem.qubo.batch_shape
    return jnp.moveaxis(states.reshape((num_reads, *batch, problem.qubo.num_bits)), 0, -2)


@dataclass(frozen=True)
class _Anneal:
    """Anneal: the sampler with its number of reads, a function of arrays alone. Equal ones share a compiled program."""

    sampler: SamplerCall
    num_reads: int

    def __call__(self, key: jax.Array, qubo: Qubo, start: jax.Array | None) -> Samples:
        return self.sampler(key, qubo, num_reads=self.num_reads, initial_states=start)

    def compiled(self, *args: Any) -> tuple[Callable[..., Samples], float]:
        """(program, seconds its compilation took) for arguments like these; a host sampler is its own, 0 seconds."""
        if getattr(self.sampler, "is_host", False):
            return self, 0.0
        return programs.compiled(self, *args)


def picked(
    loss: Loss,
    params: Any,
    problem: Problem,
    samples: Samples,
    num_candidates: int,
    accept: Literal["better", "always"] = "better",
) -> Round:
    """Pick: the candidate of lowest true loss among `num_candidates` of lowest energy, and how far it bears the model
    out."""
    joined = samples.join()
    bits, energies = candidates(problem, joined, num_candidates)
    # Unrolled, not scanned: XLA runs convolutions inside a loop on CPU 40 times slower.
    losses = jnp.stack([loss(problem.encoding.decode(state)) for state in bits])
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    best = jnp.argmin(losses)
    before = loss(params)
    # A loss that is NaN compares false with everything: each finite candidate is better than it.
    taken = losses[best] < jnp.where(jnp.isnan(before), jnp.inf, before)
    if accept == "always":
        taken = jnp.ones_like(taken)
    candidate = problem.encoding.decode(bits[best])
    predicted = problem.quadratic(params) - energies[best]
    return Round(
        params=jax.tree.map(lambda new, old: jnp.where(taken, new, old), candidate, params),
        loss=jnp.where(taken, losses[best], before),
        loss_before=before,
        accepted=taken,
        bits=bits,
        energies=energies,
        losses=losses,
        fidelity=rank_correlation(energies, losses),
        ratio=(before - losses[best]) / jnp.where(predicted == 0, jnp.ones_like(predicted), predicted),
        feasible=problem.encoding.feasible(joined.bits).astype(joined.energies.dtype).mean(),
        energies_read=joined.energies,
    )


def candidates(problem: Problem, joined: Samples, count: int) -> tuple[jax.Array, jax.Array]:
    """(bits (k, n), energies (k,)) of the first `count` states by energy, repaired where there are constraints.

    joined: reads by energy. States that repeat an earlier one come last: a loss is not worth evaluating twice.
    """
    bits, energies = joined.bits, joined.energies
    if problem.encoding.constraints:
        bits = problem.encoding.repair(bits, problem.qubo.fields(bits))
        energies = problem.qubo.energies(bits)
        order = jnp.argsort(energies)
        bits, energies = bits[order], energies[order]
    order = jnp.argsort(_repeats(bits), stable=True)[:count]
    return bits[order], energies[order]


def _repeats(bits: jax.Array) -> jax.Array:
    """Whether a row of bits (reads, n) equals one above it, (reads,), by 64 bits of hash: exact but for collisions."""
    weights = jax.random.bits(jax.random.key(0), (bits.shape[-1], 2), jnp.uint32)
    hashes = jnp.matmul(bits.astype(jnp.uint32), weights)
    # A stable sort puts equal rows side by side, the first of them in front.
    order = jnp.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    return jnp.zeros(bits.shape[0], bool).at[order[1:]].set((ordered[1:] == ordered[:-1]).all(-1))


def next_radius(radius: float, improved: bool, ratio: float) -> float:
    """A trust region: a quarter where the loss did not fall, half where less than half the promise came, else all."""
    if not improved:
        return 0.25 * radius
    return radius if ratio >= 0.5 else 0.5 * radius


def rank_correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Spearman's rho of two vectors, ties by average rank; 0 where one of them is constant."""

    def ranks(values: jax.Array) -> jax.Array:
        below = (values[None, :] < values[:, None]).sum(1).astype(jnp.zeros(0).dtype)
        upto = (values[None, :] <= values[:, None]).sum(1).astype(below.dtype)
        rank = 0.5 * (below + upto)
        return rank - rank.mean()

    x, y = ranks(a), ranks(b)
    size = jnp.sqrt((x**2).sum() * (y**2).sum())
    return jnp.where(size > 0, (x * y).sum() / jnp.where(size > 0, size, jnp.ones_like(size)), jnp.zeros_like(size))
