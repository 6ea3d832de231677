"""One step of stochastic descent, pure functions of (state, data, key)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
    order = jnp.zeros((size if descent.shuffled else 0,), jnp.int32)  # to be filled: step 0 begins an epoch
    state = State(params, model, optimizer, order, zero, zero, zero)
    # Not by `is_finite`, whose products take a second to compile.
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((params, model))]
    return _replicated(descent, state), jnp.stack(finite) if finite else jnp.ones((0,), bool)


@partial(jax.jit, static_argnums=(0, 3))
def epoch_order(descent: Descent, key: jax.Array, step: jax.Array, size: int) -> jax.Array:
    """The permutation (size,) int32 of the rows in the epoch that `step` () belongs to."""
    epoch = step // jnp.int32(descent.epoch_length(size))
    rows = jnp.arange(size, dtype=jnp.int32)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), rows)
    return _replicated(descent, order)


class Attempt(NamedTuple):
    """A step before it is known whether it may count."""

    state: State  # with the updated parameters; not counted yet
    row: dict[str, jax.Array]  # what is recorded of the step
    finite: tuple[jax.Array, ...]  # () bool: what FAULTS[1:] name, in that order


def attempt(descent: Descent, state: State, data: Tree, key: jax.Array, size: int) -> Attempt:
    """Step number state.step, whatever comes of it.

    data: as of `qjax.descend.chunk.Chunk`; key: the run's; state.order: the epoch's; size: N.
    """
    batch = _batch(descent, state, data, size)
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
    finite = tuple(is_finite(tree) for tree in (loss, gradient, new, model))
    state = state._replace(params=merge(new, frozen), model=model, optimizer=optimizer_state)
    return Attempt(_replicated(descent, state), {"loss": loss, **metrics}, finite)


def judged(skip: bool, old: State, new: Attempt) -> State:
    """The state after the step: the new one, counted, where all of it is finite, else the old one, with the fault or
    one more dropped step. An old state with a fault stays as it is."""
    fault = jnp.where(old.fault != 0, old.fault, _fault(new.finite))
    good = fault == 0
    kept = select(good, new.state, old)
    if skip:
        return kept._replace(step=old.step + 1, skipped=old.skipped + (~good).astype(jnp.int32))
    return kept._replace(step=old.step + good.astype(jnp.int32), fault=fault)


def trusted(old: State, new: Attempt) -> State:
    """The state after the step, for loops that overwrite the old one: to hold both costs a tenth of a small network's
    step. The old state must have no fault.

    The step is counted where loss, gradient and the model's state are finite. Where not, the new state has the fault,
    and its parameters are of no use. They are not looked at: in sums, what is not finite stays so until the chunk ends.
    """
    loss, gradient, _, model = new.finite
    fault = _fault((loss, gradient, jnp.ones((), bool), model))
    return new.state._replace(step=old.step + (fault == 0).astype(jnp.int32), fault=fault)


def _fault(finite: tuple[jax.Array, ...]) -> jax.Array:
    """() int32: the index in FAULTS of the first that is not finite."""
    return jnp.select([~fine for fine in finite], list(range(1, 5)), 0).astype(jnp.int32)


def _batch(descent: Descent, state: State, data: Tree, size: int) -> Tree:
    """The batch of step number state.step, leaves (B, ...)."""
    if descent.batch_size is None:
        return data
    count = descent.batch_size
    if not descent.resident:
        first = state.step % jnp.int32(descent.chunk_size) * jnp.int32(count)
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, count), data)
    first = state.step % jnp.int32(descent.epoch_length(size)) * jnp.int32(count)
    rows = _sharded(descent, jax.lax.dynamic_slice_in_dim(state.order, first, count))
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip", unique_indices=True), data)


@contextmanager
def _optax_promotion() -> Iterator[None]:
    """JAX's default promotion rules, on which optax relies (decay**count), whatever the caller has configured."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def placed(descent: Descent, tree: Tree) -> Tree:
    """The tree as arrays on the device, replicated over the mesh, where there is one."""
    arrays = jax.tree.map(strong, tree)
    return arrays if descent.mesh is None else jax.device_put(arrays, NamedSharding(descent.mesh, PartitionSpec()))


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
