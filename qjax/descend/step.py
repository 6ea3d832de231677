"""One step of stochastic descent and a chunk of them, as pure functions of (state, data, key)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from qjax.descend.descent import Descent
from qjax.descend.gradient import objective, slope
from qjax.descend.leaves import Tree, cast, is_finite, merge, select, split, strong

FAULTS = (None, "loss", "gradient", "parameters", "state")


class State(NamedTuple):
    """What the next step needs."""

    params: Tree
    model: Tree  # the model's state, None where it has none
    optimizer: Tree  # the state of the optax optimizer
    order: jax.Array  # (N,) int32: the current epoch's permutation of the rows, (0,) where none is used
    step: jax.Array  # () int32: steps done
    skipped: jax.Array  # () int32: how many of these updates were dropped because they were not finite
    fault: jax.Array  # () int32: index in FAULTS of what ended the run


def start(descent: Descent, params: Tree, model: Tree, size: int) -> tuple[State, jax.Array]:
    """(the state before step 0, as copies, so that it can be donated; which leaves are finite, those of params, then
    those of model, (leaves,)).

    model: the model's first state, None where it has none; size: the number N of rows.
    """
    params, model = jax.tree.map(jnp.copy, (params, model))
    free, _ = split(params, descent.trainable)
    zero = jnp.zeros((), jnp.int32)
    with _optax_promotion():
        optimizer = jax.tree.map(lambda leaf: jnp.copy(strong(leaf)), descent.optimizer.init(free))
    order = jnp.zeros((size if descent.shuffled else 0,), jnp.int32)  # `advance` fills it: step 0 begins an epoch
    state = State(params, model, optimizer, order, zero, zero, zero)
    finite = [is_finite(leaf) for leaf in jax.tree.leaves((params, model))]
    return _replicated(descent, state), jnp.stack(finite) if finite else jnp.ones((0,), bool)


def advance(
    descent: Descent, state: State, data: Tree, key: jax.Array, stop: jax.Array, size: int
) -> tuple[State, dict[str, jax.Array]]:
    """A chunk: the steps from state.step to `stop`, at most chunk_size, fewer where a fault ends the run.

    data: leaves (N, ...), or, where not resident, (chunk_size * B, ...), the chunk's batches in order; stop: () int32;
    size: N. Returns the state and the recorded metrics, leaves (chunk_size, ...), whose first rows are filled, one per
    step that was taken.
    """
    first, stop = state.step, stop.astype(jnp.int32)
    length = jnp.int32(descent.epoch_length(size))

    def one(state: State) -> tuple[State, Tree]:
        batch = _batch(descent, state, data, state.step - first, state.step % length)
        return step(descent, state, batch, key)

    one = jax.jit(one)
    shapes = jax.eval_shape(one, state)[1]
    history = jax.tree.map(lambda row: jnp.zeros((descent.chunk_size, *row.shape), row.dtype), shapes)

    def body(carry: tuple[State, Tree]) -> tuple[State, Tree]:
        new, row = one(carry[0])
        index = carry[0].step - first
        return new, jax.tree.map(lambda rows, value: rows.at[index].set(value), carry[1], row)

    def until(limit: jax.Array) -> Callable[[tuple[State, Tree]], jax.Array]:
        return lambda carry: (carry[0].step < limit) & (carry[0].fault == 0)

    # Loops with a traced limit: one program is enough for every number of steps, and a fault ends it at once. The outer
    # loop is over epochs, so that the permutation (a sort of N keys) is made once per epoch, not once per step.
    def epoch(carry: tuple[State, Tree]) -> tuple[State, Tree]:
        state, history = carry
        order = jax.lax.cond(
            state.step % length == 0, lambda: descent.epoch_order(key, state.step, size), lambda: state.order
        )
        limit = jnp.minimum(stop, (state.step // length + 1) * length)
        return jax.lax.while_loop(until(limit), body, (state._replace(order=order), history))

    state, history = jax.lax.while_loop(until(stop), epoch if descent.shuffled else body, (state, history))
    return _replicated(descent, state), history


def step(descent: Descent, state: State, batch: Tree, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
    """One step: (the new state, what is recorded of it). batch: leaves (B, ...), or all rows; key: the run's."""
    free, frozen = split(state.params, descent.trainable)
    augment_key, loss_key = (jax.random.fold_in(jax.random.fold_in(key, tag), state.step) for tag in (1, 2))
    if descent.augment is not None:
        batch = descent.augment(augment_key, batch)
    batch = _sharded(descent, cast(batch, descent.compute_dtype))
    (loss, gradient, metrics), model = slope(descent, free, frozen, state.model, batch, loss_key)

    def value(free: Tree) -> jax.Array:
        return objective(descent, free, frozen, state.model, batch, loss_key)[0]

    optimizer = optax.with_extra_args_support(descent.optimizer)
    line_search = {"value": loss, "grad": gradient, "value_fn": value}
    with _optax_promotion():
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, free, **line_search)
        new = optax.apply_updates(free, updates)
    # The index in FAULTS of the first that is not finite.
    faults = [~is_finite(tree) for tree in (loss, gradient, new, model)]
    fault = jnp.select(faults, list(range(1, 5)), 0).astype(jnp.int32)
    good = fault == 0
    new, model, optimizer_state = select(good, (new, model, optimizer_state), (free, state.model, state.optimizer))
    kept = state._replace(params=merge(new, frozen), model=model, optimizer=optimizer_state)
    if descent.on_nonfinite == "skip":
        kept = kept._replace(step=state.step + 1, skipped=state.skipped + (~good).astype(jnp.int32))
    else:
        kept = kept._replace(step=state.step + good.astype(jnp.int32), fault=fault)
    return kept, {"loss": loss, **metrics}


def _batch(descent: Descent, state: State, data: Tree, row: jax.Array, place: jax.Array) -> Tree:
    """The batch of this step, leaves (B, ...), for data as in `advance`. row, place: () the step's number in the chunk
    and in the epoch."""
    if descent.batch_size is None:
        return data
    size = descent.batch_size
    if not descent.resident:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row * jnp.int32(size), size), data)
    rows = _sharded(descent, jax.lax.dynamic_slice_in_dim(state.order, place * jnp.int32(size), size))
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip", unique_indices=True), data)


@contextmanager
def _optax_promotion() -> Iterator[None]:
    """JAX's default promotion rules, on which optax relies (decay**count), whatever the caller has configured."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _sharded(descent: Descent, batch: Tree) -> Tree:
    """The batch, its leading axis sharded over all axes of the mesh, where there is one."""
    if descent.mesh is None or descent.batch_size is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(descent.mesh, PartitionSpec(descent.mesh.axis_names)))


def _replicated(descent: Descent, tree: Tree) -> Tree:
    """The tree, replicated over the mesh, where there is one."""
    if descent.mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(descent.mesh, PartitionSpec()))
