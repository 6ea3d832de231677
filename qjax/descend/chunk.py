"""A chunk of steps, by one of two ways that give the same numbers up to rounding.

    DeviceLoop   one program, with a loop over the steps inside, where each state overwrites the one before. After a
                 fault, the good steps are repeated from the chunk's first state, and the faulty one is taken with care
    HostLoop     one program a step, dispatched again and again; the host waits for none of them before the chunk's end.
                 The steps that follow a fault in a chunk change nothing

Where the rows of an epoch are shuffled, their permutation (a sort of N keys) is made once an epoch, not once a step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from qjax.descend.descent import Descent
from qjax.descend.leaves import Tree, is_finite
from qjax.descend.placement import slow_inside_loops
from qjax.descend.step import Attempt, State, attempt, epoch_order, judged, placed, trusted

Metrics = dict[str, np.ndarray]
CompilerOptions = dict[str, Any] | None


@dataclass(frozen=True)
class Step:
    """`attempt`, traced, as a function of (captured, state, data, key).

    captured: the arrays that the loss closes over. As constants of the program, XLA would fold them for minutes.
    """

    jaxpr: Any
    structure: Any  # of what it returns
    skip: bool  # whether faulty steps are dropped

    def __call__(self, captured: list[jax.Array], state: State, data: Tree, key: jax.Array) -> Attempt:
        leaves = jax.core.eval_jaxpr(self.jaxpr.jaxpr, captured, *jax.tree.leaves((state, data, key)))
        result: Attempt = jax.tree.unflatten(self.structure, leaves)
        return result


@dataclass(frozen=True)
class Chunk(ABC):
    """What a run repeats: chunk(state, data, key, stop) takes the steps from state.step to stop, at most chunk_size,
    fewer where a fault ends the run. Returns the state, and what those steps recorded, (steps, ...) each.

    data: leaves (N, ...), or, where not resident, (chunk_size * B, ...), step t's batch at place t modulo chunk_size.
    program: compiled ahead of time; None: jitted where it is called.
    """

    descent: Descent
    size: int  # N
    step: Step
    captured: list[jax.Array]
    program: Callable[..., Any] | None = None

    @abstractmethod
    def compiled(self, state: State, data: Tree, key: jax.Array, options: CompilerOptions = None) -> Self:
        """Compiled for arguments of these shapes, with XLA's options."""

    @abstractmethod
    def __call__(self, state: State, data: Tree, key: jax.Array, stop: int) -> tuple[State, Metrics]: ...

    def begun(self, state: State, key: jax.Array, number: int, order: Callable[..., jax.Array] | None = None) -> State:
        """The state before step `number`, with the order of a new epoch where one begins there."""
        if not self.descent.shuffled or number % self.descent.epoch_length(self.size):
            return state
        step = np.int32(number)
        return state._replace(order=order(key, step) if order else epoch_order(self.descent, key, step, self.size))


class DeviceLoop(Chunk):
    def compiled(self, state: State, data: Tree, key: jax.Array, options: CompilerOptions = None) -> Self:
        args = (self.captured, state, data, key, np.int32(0))
        return replace(self, program=_advance.lower(self.descent, self.step, *args, size=self.size).compile(options))

    def __call__(self, state: State, data: Tree, key: jax.Array, stop: int) -> tuple[State, Metrics]:
        done, parts = int(state.step), []
        while done < stop:
            state, done, rows = self._good(state, data, key, done, stop)
            parts.append(rows)
            if done < stop:  # the step after a good one is not
                state, row = _one(self.step, self.captured, self.begun(state, key, done), data, key)
                row, fault = jax.device_get((row, state.fault))
                if fault:
                    break
                parts.append({name: np.asarray(value)[None] for name, value in row.items()})
                done += 1
        return state, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _good(self, state: State, data: Tree, key: jax.Array, done: int, stop: int) -> tuple[State, int, Metrics]:
        """(the state after the good steps from `done` to at most `stop`, the number of the step then, their rows)."""

        def until(limit: int) -> tuple[State, Metrics, int, bool, bool]:
            run = self.program or partial(_advance, self.descent, self.step, size=self.size)
            new, history, finite = run(self.captured, state, data, key, np.int32(limit))
            history, now, fault, finite = jax.device_get((history, new.step, new.fault, finite))
            return new, history, int(now), bool(fault), bool(finite)

        new, history, now, fault, finite = until(stop)
        if finite and not fault:
            kept, good = new, now
        else:  # Of a fault in the parameters only the end is known: bisect, since they stay so.
            kept, good, bad = state, done, now + fault
            limit = bad - 1
            while good < bad - 1:
                new, _, _, _, finite = until(limit)
                kept, good, bad = (new, limit, bad) if finite else (kept, good, limit)
                limit = (good + bad) // 2
        first = done % self.descent.chunk_size
        return kept, good, {name: rows[first : first + good - done].copy() for name, rows in history.items()}


@dataclass(frozen=True)
class HostLoop(Chunk):
    order: Callable[..., jax.Array] | None = None  # as program

    def compiled(self, state: State, data: Tree, key: jax.Array, options: CompilerOptions = None) -> Self:
        program = _one.lower(self.step, self.captured, state, data, key).compile(options)
        order = epoch_order.lower(self.descent, key, np.int32(0), self.size).compile()
        return replace(self, program=program, order=order)

    def __call__(self, state: State, data: Tree, key: jax.Array, stop: int) -> tuple[State, Metrics]:
        run = self.program or partial(_one, self.step)
        done, rows = int(state.step), []
        # Collectives of several steps in flight take the threads of a CPU from one another, and all wait for ever.
        in_turn = self.descent.mesh is not None and self.descent.mesh.devices.flat[0].platform == "cpu"
        for number in range(done, stop):
            state, row = run(self.captured, self.begun(state, key, number, self.order), data, key)
            rows.append(row)
            if in_turn:
                jax.block_until_ready(row)
        rows, now = jax.device_get((rows, state.step))
        return state, {name: np.stack([row[name] for row in rows])[: int(now) - done] for name in rows[0]}


def traced(descent: Descent, size: int, state: State, data: Tree, key: jax.Array) -> DeviceLoop | HostLoop:
    """The chunk for arguments of these shapes, not compiled. `qjax.descend.placement` says which of the two."""
    found = _attempt.trace(descent, state, data, key, size=size)
    whole = Step(found.jaxpr, jax.tree.structure(found.out_info), descent.on_nonfinite == "skip")
    on_host = descent.loop == "host" or (descent.loop == "auto" and slow_inside_loops(found.jaxpr, descent.mesh))
    return (HostLoop if on_host else DeviceLoop)(descent, size, whole, placed(descent, found.jaxpr.consts))


_attempt = jax.jit(attempt, static_argnames=("descent", "size"))


@partial(jax.jit, static_argnames="step", donate_argnames="state")
def _one(step: Step, captured: list[jax.Array], state: State, data: Tree, key: jax.Array) -> tuple[State, Tree]:
    new = step(captured, state, data, key)
    return judged(step.skip, state, new), new.row


@partial(jax.jit, static_argnames=("descent", "step", "size"))
def _advance(
    descent: Descent,
    step: Step,
    captured: list[jax.Array],
    state: State,
    data: Tree,
    key: jax.Array,
    stop: jax.Array,
    size: int,
) -> tuple[State, Tree, jax.Array]:
    """(state, history, whether the parameters are finite) after the steps of a chunk, or where it met a fault.

    history's leaves: (chunk_size, ...), step t's row at t modulo chunk_size.
    """
    length, stop = jnp.int32(descent.epoch_length(size)), stop.astype(jnp.int32)
    shapes = jax.eval_shape(step, captured, state, data, key).row
    history = jax.tree.map(lambda row: jnp.zeros((descent.chunk_size, *row.shape), row.dtype), shapes)

    def body(carry: tuple[State, Tree]) -> tuple[State, Tree]:
        new = step(captured, carry[0], data, key)
        index = carry[0].step % jnp.int32(descent.chunk_size)
        return trusted(carry[0], new), jax.tree.map(lambda rows, value: rows.at[index].set(value), carry[1], new.row)

    def until(limit: jax.Array) -> Callable[[tuple[State, Tree]], jax.Array]:
        return lambda carry: (carry[0].step < limit) & (carry[0].fault == 0)

    # Loops with a traced limit: one program is enough for every number of steps, and a fault ends it at once. The outer
    # loop is over epochs.
    def epoch(carry: tuple[State, Tree]) -> tuple[State, Tree]:
        state, history = carry
        order = jax.lax.cond(
            state.step % length == 0, lambda: epoch_order(descent, key, state.step, size), lambda: state.order
        )
        limit = jnp.minimum(stop, (state.step // length + 1) * length)
        return jax.lax.while_loop(until(limit), body, (state._replace(order=order), history))

    state, history = jax.lax.while_loop(until(stop), epoch if descent.shuffled else body, (state, history))
    return state, history, is_finite(state.params)
