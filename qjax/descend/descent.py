"""One step of stochastic descent and a chunk of them, as pure functions of (state, data, key).

    loss_t, g_t = value and gradient of loss(params_t, augment(batch_t))         on the trainable leaves
    params_{t+1}, optimizer_{t+1} = optimizer(g_t, optimizer_t, params_t)

Batch t is a pure function of (key, t). For N rows and batches of B, an epoch has L = N // B steps. Epoch e = t // L
takes the rows in the order permutation(fold_in(fold_in(key, 0), e)), and batch t is slice t mod L of it (N mod B rows
are left out, different ones in every epoch). Augmentation draws from fold_in(fold_in(key, 1), t), a stochastic loss
from fold_in(fold_in(key, 2), t). So a run that was stopped after any step resumes with exactly the same numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

FAULTS = (None, "loss", "gradient", "parameters")
Tree = Any


class State(NamedTuple):
    """What the next step needs."""

    params: Tree
    optimizer: Tree  # the state of the optax optimizer
    order: jax.Array  # (N,) int32: the current epoch's permutation of the rows, (0,) where none is used
    step: jax.Array  # () int32: steps done
    skipped: jax.Array  # () int32: how many of these updates were dropped because they were not finite
    fault: jax.Array  # () int32: index in FAULTS of what ended the run


@dataclass(frozen=True)
class Descent:
    """The static options of a training loop: hashable, so that two equal ones compile once.

    loss             loss(params, batch), or loss(params, batch, key) where `stochastic`: returns a scalar, or (scalar,
                     dict of arrays), where the arrays are recorded at every step under their names
    optimizer        any optax transformation; schedules count steps from 0; line searches get value and value_fn
    batch_size       rows per step; None: every step takes all rows, in order
    augment          augment(key, batch) -> batch, inside jit
    stochastic       whether the loss takes a key as its third argument
    trainable        names of the leaves or subtrees to train ("head", "head/kernel"); None: every floating-point leaf
    compute_dtype    what floating-point parameters and batches are cast to before the loss (say jnp.bfloat16);
                     parameters, gradients and optimizer state keep their own precision
    mesh             the batch is sharded over all axes of the mesh, everything else is replicated; None: one device
    microbatch_size  rows per gradient; a step takes the mean of its microbatches' gradients. Saves memory, and keeps
                     activations in a CPU's cache. For losses that are means over rows; metrics are averaged, too
    chunk_size       steps per compiled call: callbacks and checkpoints come between chunks. Results do not depend on it
    resident         True: the data are in device memory. False: they stay in host memory, and each chunk is sent its
                     batches
    on_nonfinite     where the loss, its gradient or the new parameters are not finite, the update is dropped, and the
                     run ends with the last finite parameters ("stop"), raises FloatingPointError ("raise") or continues
                     ("skip")
    """

    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    batch_size: int | None = None
    augment: Callable[[jax.Array, Tree], Tree] | None = None
    stochastic: bool = False
    trainable: tuple[str, ...] | None = None
    compute_dtype: Any = None
    mesh: Mesh | None = None
    microbatch_size: int | None = None
    chunk_size: int = 100
    resident: bool = True
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        for name in ("batch_size", "microbatch_size", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.microbatch_size is not None:
            if self.batch_size is None or self.batch_size % self.microbatch_size:
                raise ValueError(
                    f"microbatch_size {self.microbatch_size} must divide batch_size, got {self.batch_size}"
                )
            if self.mesh is not None:
                raise ValueError("microbatch_size must be None with a mesh, which divides the batch already")
        if self.on_nonfinite not in ("stop", "raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'stop', 'raise' or 'skip', got {self.on_nonfinite!r}")
        if isinstance(self.trainable, str):
            raise ValueError(f"trainable must be a tuple of names, got the string {self.trainable!r}")
        if self.mesh is not None:  # the batch is sharded by constraints, which explicit mesh axes do not take
            automatic = (AxisType.Auto,) * len(self.mesh.axis_names)
            object.__setattr__(self, "mesh", Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=automatic))
        if self.mesh is not None and self.batch_size is not None and self.batch_size % self.mesh.size:
            raise ValueError(f"batch_size {self.batch_size} does not divide over {self.mesh.size} devices of the mesh")

    @property
    def shuffled(self) -> bool:
        """Whether batches are gathered on the device, by the epoch's order."""
        return self.resident and self.batch_size is not None

    def epoch_length(self, size: int) -> int:
        """Steps per epoch of `size` rows."""
        return 1 if self.batch_size is None else size // self.batch_size

    def epoch_order(self, key: jax.Array, step: jax.Array, size: int) -> jax.Array:
        """The permutation (size,) int32 of the rows in the epoch that `step` () belongs to."""
        epoch = step // jnp.int32(self.epoch_length(size))
        rows = jnp.arange(size, dtype=jnp.int32)
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), rows)


def start(descent: Descent, params: Tree, size: int) -> tuple[State, jax.Array]:
    """(the state before step 0, as copies, so that it can be donated; which leaves of params are finite, (leaves,)).

    size: the number N of rows.
    """
    params = jax.tree.map(jnp.copy, params)
    free, _ = split(params, descent.trainable)
    zero = jnp.zeros((), jnp.int32)
    with _optax_promotion():
        optimizer = jax.tree.map(lambda leaf: jnp.copy(strong(leaf)), descent.optimizer.init(free))
    order = jnp.zeros((size if descent.shuffled else 0,), jnp.int32)  # `advance` fills it: step 0 begins an epoch
    state = State(params, optimizer, order, zero, zero, zero)
    finite = [_finite(leaf) for leaf in jax.tree.leaves(params)]
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
        return _step(descent, state, batch, key)

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


def split(params: Tree, trainable: tuple[str, ...] | None) -> tuple[Tree, Tree]:
    """(trainable, frozen) leaves of params: two trees of its structure, with None for the leaves of the other."""

    def chosen(path: Any, leaf: Any) -> bool:
        name = leaf_name(path)
        named = trainable is None or any(name == part or name.startswith(part + "/") for part in trainable)
        return named and jnp.issubdtype(leaf.dtype, jnp.inexact)

    free = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if chosen(path, leaf) else None, params)
    frozen = jax.tree_util.tree_map_with_path(lambda path, leaf: None if chosen(path, leaf) else leaf, params)
    return free, frozen


def leaf_name(path: Any) -> str:
    """The name of a leaf: the keys of its path, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def strong(leaf: Any) -> jax.Array:
    """The leaf as an array without weak type. (A Python number has one, but not after a step: it would trace twice.)"""
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def _step(descent: Descent, state: State, batch: Tree, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
    """One step: (the new state, what is recorded of it). batch: leaves (B, ...), or all rows; key: the run's."""
    free, frozen = split(state.params, descent.trainable)
    augment_key, loss_key = (jax.random.fold_in(jax.random.fold_in(key, tag), state.step) for tag in (1, 2))
    if descent.augment is not None:
        batch = descent.augment(augment_key, batch)
    batch = _sharded(descent, _cast(batch, descent.compute_dtype))

    def objective(free: Tree, batch: Tree, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        params = _cast(_merge(free, frozen), descent.compute_dtype)
        value = descent.loss(params, batch, key) if descent.stochastic else descent.loss(params, batch)
        return _checked(value)

    (loss, metrics), gradient = _gradient(descent, objective, free, batch, loss_key)
    optimizer = optax.with_extra_args_support(descent.optimizer)
    line_search = {"value": loss, "grad": gradient, "value_fn": lambda free: objective(free, batch, loss_key)[0]}
    with _optax_promotion():
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, free, **line_search)
        new = optax.apply_updates(free, updates)
    # The index in FAULTS of the first that is not finite.
    fault = jnp.select([~_finite(loss), ~_finite(gradient), ~_finite(new)], [1, 2, 3], 0).astype(jnp.int32)
    good = fault == 0
    new, optimizer_state = _select(good, (new, optimizer_state), (free, state.optimizer))
    kept = state._replace(params=_merge(new, frozen), optimizer=optimizer_state)
    if descent.on_nonfinite == "skip":
        kept = kept._replace(step=state.step + 1, skipped=state.skipped + (~good).astype(jnp.int32))
    else:
        kept = kept._replace(step=state.step + good.astype(jnp.int32), fault=fault)
    return kept, {"loss": loss, **metrics}


def _gradient(descent: Descent, objective: Callable[..., Any], free: Tree, batch: Tree, key: jax.Array) -> Any:
    """((loss, metrics), gradient) of the batch: the means over its microbatches, of which number i draws from
    fold_in(key, i)."""
    slope = jax.value_and_grad(objective, has_aux=True)
    if descent.microbatch_size is None or descent.microbatch_size == descent.batch_size:
        return slope(free, batch, key)
    assert descent.batch_size is not None
    count = descent.batch_size // descent.microbatch_size
    parts = jax.tree.map(lambda leaf: leaf.reshape((count, -1, *leaf.shape[1:])), batch)

    def part(index: jax.Array) -> Any:
        rows = jax.tree.map(lambda leaf: leaf[index], parts)
        return slope(free, rows, jax.random.fold_in(key, index))

    def add(total: Tree, index: jax.Array) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, part(index)), None

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, jnp.int32(0)))
    total, _ = jax.lax.scan(add, zero, jnp.arange(count, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(count, leaf.dtype), total)


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


def _checked(value: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a loss returned, as (scalar, dict of arrays). ValueError where it is neither that nor a scalar."""
    loss, metrics = value if isinstance(value, tuple) else (value, {})
    if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise ValueError(f"the loss must be a real scalar, got {jax.typeof(loss)}")
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise ValueError(f"the loss's second value must be a dict of arrays without the name 'loss', got {metrics!r}")
    return loss, {name: jnp.asarray(metric) for name, metric in metrics.items()}


def _merge(free: Tree, frozen: Tree) -> Tree:
    """The inverse of `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, free, frozen, is_leaf=lambda leaf: leaf is None)


def _cast(tree: Tree, dtype: Any) -> Tree:
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _select(good: jax.Array, new: Tree, old: Tree) -> Tree:
    """new where good () is true, else old."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def _finite(tree: Tree) -> jax.Array:
    """() bool: whether every number in every leaf is finite, as seen by their sum: one past 3e38 counts as not finite.

    The sum is a product with ones, in float32 at least: on CPUs six times faster than isfinite(leaf).all().
    """
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            row, wide = leaf.reshape(-1), np.promote_types(leaf.dtype, np.float32)
            finite &= jnp.isfinite(jnp.dot(jnp.ones_like(row), row, preferred_element_type=wide))
    return finite


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
