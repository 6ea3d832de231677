"""The sampler contract: what a sampler is, what it returns, and the one driver that runs them all.

A JAX sampler is a frozen dataclass of static hyperparameters. Its call is pure, jittable, and vmappable over keys:

    samples = sampler(key, qubo, num_reads=64, initial_states=None, blocks=None)

Every file of an algorithm has the same five parts, in this order:

    1 hyperparameters                fields of the dataclass, checked in `__post_init__` (ValueError naming the field)
    2 prepare(task) -> prepared      what stays the same during the call: couplings in the layout of the moves,
                                     schedules; problems that do not fit raise ValueError here
    3 init(task, prepared) -> state  the first states: `task.first_states()`, the given ones or random bits
    4 step(task, prepared, t, state) -> state    step t = 0 .. length(task) - 1: a sweep, or a group of time steps;
                                                 the state keeps its structure, shapes and dtypes
    5 finish(task, prepared, state) -> Outcome   candidate states and diagnostics

Columns. The driver flattens the batch to P problems and gives each R reads: C = P R columns, problem p and read r in
column c = p R + r. States are (n, C), columns as the minor axis, so that one step is one matmul or row gathers for all
reads of all problems. Values per problem (P,) are widened to the columns by `task.per_column`.

Random numbers. Column (p, r) has the seeds of fold_in(key, r) and p, so a read depends neither on the number of reads
nor on how reads are spread over devices. Draw by qjax.samplers.moves.streams from `task.seeds`, with a step number and
sites that nothing else uses.

More time (qjax.samplers.within). `with_more_time` says how an algorithm spends it. Under "longer" the driver makes each
step t `task.repeats` times in a row, with other seeds each time: then a number that differs between all steps of the
run is `task.steps_before(t)`, not t, and the place in a ramp of smaller steps is `task.substeps`.

Blocks (qjax.energy.blocks) say which states groups of bits may take together. A sampler names in `blocks` the kinds
that it keeps by its moves, and finds those of the call in `task.blocks`; for all others its `task.qubo` has the
automatic penalties (qjax.samplers.constraints).

From each column's candidates the driver takes the one of lowest energy (with penalties, those inside the blocks first),
and computes that energy from the Qubo, without penalties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import Blocks
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.constraints import Constraints
from qjax.samplers.moves import allowed, streams
from qjax.samplers.samples import Samples


class Outcome(NamedTuple):
    """What an algorithm hands back: candidate bits, each (n, C); diagnostics of reads (C, ...) and of problems
    (P, ...), which are `Samples.info` under these names; the former move with their reads."""

    candidates: tuple[jax.Array, ...]
    read_info: dict[str, jax.Array]
    problem_info: dict[str, jax.Array]


@dataclass(frozen=True)
class Task:
    """One call, flattened to C = P R columns: what an algorithm is given.

    qubo        with batch (P,)
    reads       (R,) numbers of the reads run here: all of the call's, or one device's share
    seeds       (2, C) words of the columns, for qjax.samplers.moves.streams
    initial     (n, C) bits to start from, or None
    num_reads   of the whole call, on all devices
    repeats     how many times each step is made (see `Sampler.repeated`); None: once
    repetition  how many times the current step was made before, 0 .. repeats - 1; None outside repeated steps
    blocks      those that the sampler keeps by its moves, None where there are none
    """

    qubo: Qubo
    reads: jax.Array
    seeds: jax.Array
    initial: jax.Array | None
    num_reads: int
    repeats: jax.Array | None = None
    repetition: jax.Array | None = None
    blocks: Blocks | None = None

    @property
    def num_bits(self) -> int:
        return self.qubo.num_bits

    @property
    def num_problems(self) -> int:
        return self.qubo.batch_shape[0]

    @property
    def num_columns(self) -> int:
        return int(self.seeds.shape[-1])

    @property
    def linear(self) -> jax.Array:
        """The linear terms by problem, (n, P)."""
        return self.qubo.linear.T

    def steps_before(self, t: jax.Array) -> jax.Array:
        """The number of steps made before this one, repetitions counted: a number that no other step has."""
        return t if self.repeats is None or self.repetition is None else t * self.repeats + self.repetition

    def substeps(self, t: jax.Array, every: int, total: int) -> tuple[jax.Array, int | jax.Array, int | jax.Array]:
        """(before, count, whole): the place of step t in a ramp of `total` smaller steps, taken `every` at a time.

        before: smaller steps made before this one; count: those that it makes, the last step what is left of them;
        whole: those of the entire run. Repeated steps stretch the ramp: whole = total * repeats.
        """
        first = t * every
        count = every if total % every == 0 else jnp.minimum(every, total - first)
        if self.repeats is None or self.repetition is None:
            return first, count, total
        return first * self.repeats + self.repetition * count, count, total * self.repeats

    def per_column(self, values: jax.Array) -> jax.Array:
        """Values per problem (..., P), widened to the columns (..., C)."""
        wide = jnp.broadcast_to(values[..., None], (*values.shape, self.reads.shape[0]))
        return wide.reshape((*values.shape[:-1], self.num_columns))

    def first_states(self) -> jax.Array:
        """(n, C) bits to start from: `initial`, else random ones; groups of the blocks are in one of their states."""
        return allowed.states(self.blocks, self.initial, self.seeds, 0, self.num_bits)

    def replicated(self, count: int) -> Task:
        """The same call with `count` replicas of each column c, in columns c count .. c count + count - 1, each with
        seeds of its own derived from the column's."""
        return replace(
            self,
            reads=jnp.repeat(self.reads, count),
            seeds=streams.split(self.seeds, jnp.arange(count)),
            initial=None if self.initial is None else jnp.repeat(self.initial, count, axis=1),
        )


@dataclass(frozen=True)
class Sampler:
    """Base of the JAX samplers. Class variables say what an algorithm can do (`qjax.samplers.table`):

    couplings       forms of couplings that it takes; batches: whether one call takes many problems over shared ones
    thermal         whether `return_states="last"` follows exp(-beta E) at a fixed beta
    is_host         whether it runs on the host, outside jit
    with_more_time  "longer": each step is made several times, for schedules that are a function of the step and random
                    numbers from `task.seeds` alone; "continue": goes on from the states reached; "restart": begins
                    again with another key; "once": more time adds nothing
    blocks          kinds of blocks (qjax.energy.blocks.KINDS) that it keeps by its moves, without penalties
    adds_moves      whether it moves groups that were found in a plain Qubo (qjax.energy.finder), beside single flips
    """

    couplings: ClassVar[tuple[str, ...]] = ("dense", "sparse", "gram", "implicit")
    batches: ClassVar[bool] = True
    thermal: ClassVar[bool] = False
    is_host: ClassVar[bool] = False
    with_more_time: ClassVar[str] = "restart"
    blocks: ClassVar[tuple[str, ...]] = ()
    adds_moves: ClassVar[bool] = False

    def __call__(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int = 64,
        initial_states: Any = None,
        blocks: Blocks | None = None,
    ) -> Samples:
        """Samples of low energy: bits int8 (*batch, num_reads, n), energies (*batch, num_reads).

        key: one JAX random key, typed or of the old style. qubo: float32 or float64, any batch shape.
        num_reads: independent runs per problem, a static integer. initial_states: where they start, 0/1, any shape
        that broadcasts to (*batch, num_reads, n); None: the algorithm's own start, random states as a rule.
        blocks: the states that groups of bits may take, the same for all problems of a batch; then info has feasible
        (*batch, num_reads), whether a read kept all of them. Energies are always those of the Qubo, without penalties.
        Errors: ValueError naming the argument for a wrong type, shape or number of reads, for initial states other
        than 0 and 1 (of a traced array those above 0 count as 1), blocks that do not fit the Qubo, and initial states
        outside them (of a traced array such groups start at random).
        """
        check_blocks(key, qubo, num_reads, initial_states, blocks)
        return self.repeated(key, qubo, num_reads, initial_states, None, blocks)

    def repeated(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int,
        initial_states: Any,
        repeats: Any,
        blocks: Blocks | None = None,
    ) -> Samples:
        """The same call with each step made `repeats` times in a row, with other random numbers each time.

        repeats may be traced: schedules of all lengths are one compiled program. 0 makes no step at all. Algorithms
        that are not "longer" make each step once, whatever repeats >= 1 is.
        """
        return call(self, lambda chosen: chosen, key, qubo, num_reads, initial_states, repeats, blocks)

    def choose(
        self, key: jax.Array, qubo: Qubo, num_reads: int, initial: jax.Array | None, blocks: Blocks | None
    ) -> tuple[Sampler, dict[str, Any]]:
        """(the sampler that makes this call, info of the call): itself, unless it looks before it chooses (`auto`)."""
        return self, {}

    def algorithm_for(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> Sampler:
        """The sampler that does the work for this Qubo: itself, unless it is one that chooses (`auto`)."""
        return self

    def found(self, qubo: Qubo) -> Blocks | None:
        """Groups that a call without blocks looks for in its Qubo, None where it does not look."""
        return None

    def run_of(self, num_reads: int, batch_ndim: int) -> Any:
        """`run_reads` for this sampler, of a call with a batch of batch_ndim axes."""
        return partial(run_reads, self, num_reads)

    def length(self, task: Task) -> int:
        """The number of steps of the call, a static integer (before `repeats`)."""
        raise TypeError(f"{type(self).__name__} does not say its number of steps")

    def prepare(self, task: Task) -> Any:
        raise TypeError(f"{type(self).__name__} has no prepare")

    def init(self, task: Task, prepared: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no init")

    def step(self, task: Task, prepared: Any, t: jax.Array, state: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no step")

    def finish(self, task: Task, prepared: Any, state: Any) -> Outcome:
        raise TypeError(f"{type(self).__name__} has no finish")

    def done(self, state: Any) -> jax.Array | None:
        """A scalar bool that ends the loop early where it is true; None (the default): a loop of fixed length."""
        return None


def call(
    sampler: Sampler,
    spread: Callable[[Sampler], Any],
    key: jax.Array,
    qubo: Qubo,
    num_reads: int,
    initial_states: Any,
    repeats: Any,
    blocks: Blocks | None,
) -> Samples:
    """`Sampler.repeated`, made by spread(the sampler chosen)."""
    key, num_reads, initial_states = check_call(key, qubo, num_reads, initial_states)
    # Labels are static: dropped here, so that renaming a bit does not compile again.
    bare = replace(qubo, labels=Labels.range(qubo.num_bits))
    held = sampler.found(bare) if blocks is None else blocks
    chosen, looked = sampler.choose(key, bare, num_reads, initial_states, held)
    constraints = Constraints.of(chosen, bare, held)
    drive: Any = _run_call if sampler.is_host else run_call
    samples: Samples = drive(spread(chosen), key, bare, num_reads, initial_states, repeats, constraints)
    return replace(samples, info=samples.info | looked)


def run_reads(
    sampler: Sampler,
    num_reads: int,
    key: jax.Array,
    qubo: Qubo,
    reads: jax.Array,
    initial: jax.Array | None,
    repeats: jax.Array | None,
    constraints: Constraints | None,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Reads number `reads` (R,) of a call: bits (*batch, R, n), energies (*batch, R), info by read and by problem."""
    batch, n = qubo.batch_shape, qubo.num_bits
    shape = (*batch, reads.shape[0], n)
    if n == 0:
        bits = jnp.zeros(shape, jnp.int8)
        return bits, qubo.energies(bits), {}, {}
    worked = qubo if constraints is None or constraints.penalised is None else constraints.penalised
    flat = replace(
        worked, offset=worked.offset.reshape(-1), linear=worked.linear.reshape((-1, n)), scale=worked.scale.reshape(-1)
    )
    seeds = streams.seeds(key, reads, flat.batch_shape[0])
    columns = None if initial is None else initial.reshape((-1, n)).T
    moved = None if constraints is None else constraints.moved
    task = Task(flat, reads, seeds, columns, num_reads, repeats, blocks=moved)
    prepared = sampler.prepare(task)
    outcome = sampler.finish(task, prepared, _loop(sampler, task, prepared, sampler.init(task, prepared)))
    bits, energies = _best_candidate(qubo, outcome.candidates, shape, constraints)
    by_read = {k: v.reshape((*batch, reads.shape[0], *v.shape[1:])) for k, v in outcome.read_info.items()}
    by_problem = {k: v.reshape((*batch, *v.shape[1:])) for k, v in outcome.problem_info.items()}
    return bits, energies, by_read, by_problem


def _best_candidate(
    qubo: Qubo, candidates: tuple[jax.Array, ...], shape: tuple[int, ...], constraints: Constraints | None
) -> tuple[jax.Array, jax.Array]:
    """Of each column's candidates (n, C) the one of lowest energy, the first among equals: bits (*batch, R, n), and
    energies (*batch, R)."""
    *batch, reads, n = shape
    states = jnp.stack([(c > 0).astype(jnp.int8).T.reshape(shape) for c in candidates], axis=-3)
    # One call for all candidates: the energies of sparse couplings take seconds to compile.
    energies = qubo.energies(states.reshape((*batch, -1, n))).reshape((*batch, len(candidates), reads))
    ranks = energies if constraints is None else constraints.ranks(states, energies, axis=-2)
    chosen = jnp.argmin(ranks, axis=-2, keepdims=True)
    bits = jnp.take_along_axis(states, chosen[..., None], axis=-3)[..., 0, :, :]
    return bits, jnp.take_along_axis(energies, chosen, axis=-2)[..., 0, :]


def _loop(sampler: Sampler, task: Task, prepared: Any, state: Any) -> Any:
    """The state after all steps."""
    length: Any = sampler.length(task)
    repeats = task.repeats
    if repeats is not None:
        length = jnp.where(repeats > 0, length, 0)

    def step(t: jax.Array, state: Any) -> Any:
        if repeats is None or sampler.algorithm_for(task.qubo, task.num_reads, task.blocks).with_more_time != "longer":
            return sampler.step(task, prepared, t, state)

        def again(k: jax.Array, state: Any) -> Any:
            # Numbers from 2^31 on: samplers split off streams of their own under small ones.
            own = streams.split(task.seeds, (k.astype(jnp.uint32) + jnp.uint32(2**31))[None])
            return sampler.step(replace(task, seeds=own, repetition=k), prepared, t, state)

        return lax.fori_loop(0, repeats, again, state)

    if sampler.is_host:
        for t in range(int(length)):
            state = step(jnp.int32(t), state)
        return state
    if sampler.done(state) is None:
        return lax.fori_loop(0, length, step, state)

    def unfinished(carry: tuple[jax.Array, Any]) -> jax.Array:
        return (carry[0] < length) & ~jnp.asarray(sampler.done(carry[1]))

    def advance(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        return carry[0] + 1, step(carry[0], carry[1])

    return lax.while_loop(unfinished, advance, (jnp.int32(0), state))[1]


def _run_call(
    sampler: Any,
    key: jax.Array,
    qubo: Qubo,
    num_reads: int,
    initial: jax.Array | None,
    repeats: jax.Array | None,
    constraints: Constraints | None,
) -> Samples:
    """A whole call whose arguments were checked, of a `Sampler` or a `Sharded`."""
    run = sampler.run_of(num_reads, len(qubo.batch_shape))
    reads = jnp.arange(num_reads, dtype=jnp.uint32)
    bits, energies, by_read, by_problem = run(key, qubo, reads, initial, repeats, constraints)
    if constraints is not None and constraints.blocks.families:
        by_read["feasible"] = constraints.blocks.feasible(bits)
    if both := by_read.keys() & by_problem.keys():
        raise ValueError(f"info {', '.join(sorted(both))} is given by read and by problem: names must differ")
    return Samples(bits, energies, {**by_read, **by_problem}, frozenset(by_read))


run_call = jax.jit(_run_call, static_argnums=(0, 3))


def positive(name: str, value: Any) -> None:
    """A hyperparameter that must be a positive integer. Errors: ValueError naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """A hyperparameter that must be one of a few words. Errors: ValueError naming it."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
