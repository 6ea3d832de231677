"""The method: rounds of formulate, anneal and pick, which choose parameters by a QUBO; then gradient descent.

    in every round
        formulate   quadratic, encoding = formulate(params, radius)   q(p) near the loss; p(x) = p0 + B x for n bits x
                    qubo = pull_back(quadratic, encoding)             E(x) = q(p(x)), constraints by blocks or penalties
        anneal      samples = sampler(key, qubo, num_reads)           num_reads states x of low energy
        pick        candidates = p(x) of the num_candidates reads of lowest energy
                    params = the candidate of lowest TRUE loss        kept as they are where none is better
        radius      shrinks where the loss fell by less than half of what q predicted, or not at all
    after them, or after every one
        descend     params = descend(key, params).params              a jitted optax loop, see qjax.refine

`outer_round` is one round, as a pure function of (key, params, radius). `hybrid` is the driver: it runs the rounds and
the descent, adapts the radius, and books the seconds of every step.

Where the model has a state (batch statistics, say), loss, formulate and descend take it as their last argument. A round
leaves it as it is; a descent returns a new one.

Where the quadratic separates into C channels, there is one Qubo with batch (C,): C problems of n / C bits, annealed in
one call. Proposals and candidates are always states of the whole encoding, n bits: `initial_states` splits them for the
sampler, and `Samples.join` joins the samples, the k-th best read of each problem with the k-th best of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from qjax import losses, programs
from qjax.energy import penalties
from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import Encoding
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import Quadratic
from qjax.ledger import Ledger
from qjax.losses import Loss
from qjax.rounds import Problem, Round, Trained, scalars
from qjax.samplers.samples import Samples

Formulate: TypeAlias = Callable[..., tuple[Quadratic, Encoding]]  # formulate(params, radius[, state])
SamplerCall: TypeAlias = Callable[..., Samples]  # sampler(key, qubo, num_reads=, initial_states=[, blocks=])
Propose: TypeAlias = Callable[[jax.Array, Problem, int], jax.Array]  # propose(key, problem, num_reads)

# Proposals draw from fold_in(key, _PROPOSAL). Read r draws from fold_in(key, r), and no run has that many reads.
_PROPOSAL = 2**32 - 1


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
    state: Any = None,
) -> Round:
    """One round, a pure function that can be jitted wherever sampler and loss can. Arguments: as of `hybrid`.

    It calls the loss as it is, num_candidates + 1 times: outside of jit, give it a jitted one.
    """
    problem = formulated(_with_state(formulate, state), params, radius)
    initial = initial_states(key, problem, num_reads, propose)
    anneal = Sample(sampler, num_reads)
    samples = anneal(key, *anneal.given(problem, initial))
    return picked(_with_state(loss, state), params, problem, samples, num_candidates, accept)


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
    descend: Callable[..., Any] | None = None,
    descend_every_round: bool = False,
    state: Any = None,
    ledger: Ledger | None = None,
    compile_loss: bool = True,
) -> Trained:
    """Train params: `num_rounds` rounds, each as `outer_round`, then `descend`. The top of this file says how.

    key             jax.random.key; round i draws from fold_in(key, i)
    loss            loss(params) -> scalar: the true loss, on training or validation data, compiled once for all rounds
    params          the pytree to start from
    formulate       formulate(params, radius) -> (Quadratic, Encoding): a model of the loss near params, and the
                    parameters that the bits can choose
    sampler         any sampler of qjax, D-Wave's included
    num_reads       reads per round
    num_candidates  how many reads, those of lowest energy, are decoded to pick from by their true loss
    radius          the first round's. What it means is up to `formulate`: as a rule, the encoding's steps grow with it
    accept          "better" keeps the current parameters where no candidate has a lower loss; "always" takes the best
                    candidate anyway (for weights that must be discrete)
    propose         propose(key, problem, num_reads) -> states (num_reads, n) that the sampler starts from (warm starts,
                    sequential rounding). None: the sampler's own
    descend         descend(key, params) -> anything with `.params`, such as `Refined`. None: no descent. The k-th call
                    (k = 0, 1, ...) has the key fold_in(key, num_rounds + k)
    descend_every_round  whether to descend after every round, so that the next one formulates with what came of it, or
                    only after the last
    state           the model's state. Then it is loss(params, state), formulate(params, radius, state) and
                    descend(key, params, state), which returns something with `.params` and `.state`
    ledger          to book the seconds on. None: a new one
    compile_loss    False: the loss is called as it is, for one that works on the host (NumPy, a simulator, a service)

    The ledger books the compilation of annealer and loss once per run, even where an earlier run of this process has
    already compiled them (see qjax.programs), so that runs can be compared. Its total can then exceed this call's
    wall-clock, and `ledger.balance` raises. The true losses of the candidates are booked as "decode".
    Errors: ValueError for numbers of rounds, reads or candidates below one, a loss that is no scalar or cannot be
    compiled, and what the parts raise.
    """
    for name, value in (("num_rounds", num_rounds), ("num_reads", num_reads), ("num_candidates", num_candidates)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    ledger = Ledger() if ledger is None else ledger
    anneal = Sample(sampler, num_reads)
    rounds: list[Round] = []
    radii: list[float] = []
    descents: list[Any] = []
    compile_seconds: dict[Any, float] = {}  # by program: rounds of the same shapes share one
    for index in range(num_rounds):
        # The steps of `outer_round`, each booked.
        round_key, booked = jax.random.fold_in(key, index), Ledger()
        problem, booked = booked.run("formulate", formulated, _with_state(formulate, state), params, radius)
        initial, booked = booked.run("formulate", initial_states, round_key, problem, num_reads, propose)
        given = (round_key, *anneal.given(problem, initial))
        program, seconds = anneal.compiled(*given)
        samples, booked = booked.sample(program, *given)
        if compile_loss and index == 0:
            candidate = problem.encoding.decode(jnp.zeros(problem.encoding.num_bits, jnp.int8))
            rest = () if state is None else (state,)
            loss, judge_seconds = losses.compiled(loss, (candidate, *rest), (params, *rest))
            compile_seconds |= judge_seconds
        outcome, booked = booked.run(
            "decode", picked, _with_state(loss, state), params, problem, samples, num_candidates, accept
        )
        ledger = ledger + booked
        rounds.append(outcome._replace(params=None, seconds=booked.phases))
        radii.append(radius)
        if seconds:
            compile_seconds[program] = seconds
        params = outcome.params
        radius = next_radius(radius, bool(outcome.improved), float(outcome.ratio))
        if descend is not None and (descend_every_round or index == num_rounds - 1):
            descent_key = jax.random.fold_in(key, num_rounds + len(descents))
            descent, ledger = ledger.run("refine", _with_state(descend, state), descent_key, params)
            params, state = descent.params, state if state is None else descent.state
            descents.append(descent if index == num_rounds - 1 else _without_trees(descent))
    if compile_seconds:
        ledger = ledger.add("compile", sum(compile_seconds.values()))
    return Trained(params, state, tuple(rounds), tuple(radii), tuple(descents), ledger)


def _without_trees(descent: Any) -> Any:
    """A copy of what `descend` returned, with None for what has the size of the model."""
    trees = ("params", "state", "optimizer")
    if isinstance(descent, tuple):
        named: Any = descent
        return named._replace(**{name: None for name in trees if name in named._fields})
    light = copy(descent)
    vars(light).update({name: None for name in trees if name in vars(light)})
    return light


def _with_state(function: Callable[..., Any], state: Any) -> Callable[..., Any]:
    """The function with the model's state as its last argument, where there is one."""
    return function if state is None else lambda *args: function(*args, state)


def formulated(formulate: Formulate, params: Any, radius: float) -> Problem:
    """Formulate: the quadratic and the encoding near params, their Qubo, and the penalties for constraints."""
    quadratic, encoding = formulate(params, radius)
    qubo = pull_back(quadratic, encoding)
    constraints = encoding.constraints
    penalised = qubo + penalties.constraints(qubo, constraints) if constraints else None
    return Problem(quadratic, encoding, qubo, penalised, encoding.blocks.first_of(encoding.num_bits, qubo.num_bits))


def initial_states(key: jax.Array, problem: Problem, num_reads: int, propose: Propose | None) -> jax.Array | None:
    """Anneal: the states (num_reads, n) that `propose` returns, split as the sampler takes them.

    Where the Qubo has batch (C,): (C, num_reads, n / C). None where propose is None.
    """
    if propose is None:
        return None
    states = propose(jax.random.fold_in(key, _PROPOSAL), problem, num_reads)
    batch = problem.qubo.batch_shape
    return jnp.moveaxis(states.reshape((num_reads, *batch, problem.qubo.num_bits)), 0, -2)


@dataclass(frozen=True)
class Sample:
    """Anneal: the sampler with its number of reads, as a function of arrays alone. Equal ones share a program."""

    sampler: SamplerCall
    num_reads: int

    def __call__(self, key: jax.Array, qubo: Qubo, initial: Any = None, blocks: Blocks | None = None) -> Samples:
        also = {} if blocks is None else {"blocks": blocks}
        return self.sampler(key, qubo, num_reads=self.num_reads, initial_states=initial, **also)

    def given(self, problem: Problem, initial: jax.Array | None) -> tuple[Qubo, jax.Array | None, Blocks | None]:
        """(qubo, initial states, blocks): without penalties where the sampler moves all of the blocks."""
        moved = problem.blocks is not None and problem.blocks.moved_by(getattr(self.sampler, "blocks", ()))
        return (problem.qubo, initial, problem.blocks) if moved else (problem.sampled_qubo, initial, None)

    def compiled(self, *args: Any) -> tuple[Callable[..., Samples], float]:
        """(program, seconds its compilation took) for arguments of these shapes; a host sampler is not compiled."""
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
    """Pick: the candidate of lowest true loss among the num_candidates of lowest energy, and how well q predicted it.

    params: those that the round began with. samples: of problem.sampled_qubo.
    """
    joined = samples.join()
    bits, energies = candidates(problem, joined, num_candidates)
    # Unrolled, not scanned: XLA runs convolutions inside a loop on CPU 40 times slower.
    values = [jnp.asarray(loss(tree)) for tree in (*map(problem.encoding.decode, bits), params)]
    if any(value.shape != () for value in values):
        raise ValueError(f"loss must return a scalar, got shape {values[0].shape}")
    *of_candidates, loss_before = (value.astype(energies.dtype) for value in values)
    found = jnp.stack(of_candidates)
    found = jnp.where(jnp.isfinite(found), found, jnp.inf)
    best = jnp.argmin(found)
    # NaN counts as infinite here, so that every finite candidate is better: comparisons with NaN are false.
    accepted = found[best] < jnp.where(jnp.isnan(loss_before), jnp.inf, loss_before)
    if accept == "always":
        accepted = jnp.ones_like(accepted)
    candidate = problem.encoding.decode(bits[best])
    predicted = problem.quadratic(params) - energies[best]
    return Round(
        params=jax.tree.map(lambda new, old: jnp.where(accepted, new, old), candidate, params),
        loss=jnp.where(accepted, found[best], loss_before),
        loss_before=loss_before,
        accepted=accepted,
        bits=bits,
        energies=energies,
        losses=found,
        fidelity=rank_correlation(energies, found),
        ratio=(loss_before - found[best]) / jnp.where(predicted == 0, jnp.ones_like(predicted), predicted),
        feasible=problem.encoding.feasible(joined.bits).astype(joined.energies.dtype).mean(),
        energies_read=joined.energies,
        info=scalars(samples.info),
        seconds={},
    )


def candidates(problem: Problem, joined: Samples, count: int) -> tuple[jax.Array, jax.Array]:
    """Pick: (bits (k, n) int8, energies q (k,)) of the k = count states of lowest energy, constraints repaired.

    joined: reads of the whole encoding, lowest energy first (`Samples.join`). States that repeat an earlier one come
    last, whatever their energy, since their loss is known already.
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
    """(reads,) bool: whether a row of bits (reads, n) equals one above it. Equal 64-bit hashes count as equal rows."""
    weights = jax.random.bits(jax.random.key(0), (bits.shape[-1], 2), jnp.uint32)
    hashes = jnp.matmul(bits.astype(jnp.uint32), weights)
    # A stable sort puts equal rows side by side, the first of them in front.
    order = jnp.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    return jnp.zeros(bits.shape[0], bool).at[order[1:]].set((ordered[1:] == ordered[:-1]).all(-1))


def next_radius(radius: float, improved: bool, ratio: float) -> float:
    """The radius of the next round, as in trust-region methods.

    radius / 4 where the loss did not fall, radius / 2 where it fell by less than half of what q predicted (ratio below
    0.5), else radius.
    """
    if not improved:
        return 0.25 * radius
    return radius if ratio >= 0.5 else 0.5 * radius


def rank_correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Spearman's rank correlation of a and b, both (k,), in [-1, 1]. Ties have their average rank; 0 for a constant."""

    def ranks(values: jax.Array) -> jax.Array:
        below = (values[None, :] < values[:, None]).sum(1).astype(jnp.zeros(0).dtype)
        upto = (values[None, :] <= values[:, None]).sum(1).astype(below.dtype)
        rank = 0.5 * (below + upto)
        return rank - rank.mean()

    x, y = ranks(a), ranks(b)
    norm = jnp.sqrt((x**2).sum() * (y**2).sum())
    return jnp.where(norm > 0, (x * y).sum() / jnp.where(norm > 0, norm, jnp.ones_like(norm)), jnp.zeros_like(norm))
