"""One step of stochastic descent and a chunk of them, as pure functions of (state, data, key).

    loss_t, g_t = value and gradient of loss(params_t, augment(batch_t))         on the trainable leaves
    params_{t+1}, optimizer_{t+1} = optimizer(g_t, optimizer_t, params_t)

Batch t is a pure function of (key, t): epoch e = t // (N // B) has the order permutation(fold_in(fold_in(key, 0), e))
of the N rows, and batch t is its (t mod N // B)-th slice of B rows (N mod B rows are left out, others every epoch).
Augmentation draws from fold_in(fold_in(key, 1), t), a stochastic loss from fold_in(fold_in(key, 2), t). So a run that
was stopped after any step goes on with exactly the numbers it would have seen.
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
    """What the next step needs. `order` (N,) int32 is the current epoch's permutation, (0,) where none is used."""

    params: Tree
    optimizer: Tree
    order: jax.Array
    step: jax.Array  # () int32: steps done
    skipped: jax.Array  # () int32: of these, updates dropped because they were not finite
    fault: jax.Array  # () int32: index in FAULTS of what ended the run


@dataclass(frozen=True)
class Descent:
    """The static description of a training loop: hashable, so that two equal ones compile once.

    loss          loss(params, batch), or loss(params, batch, key) where `stochastic`, returns a scalar or
                  (scalar, dict of arrays); the arrays are recorded every step under their names.
    optimizer     any optax transformation; schedules count steps from 0. Line searches get value and value_fn.
    batch_size    rows a step, None for all of them in order.
    augment       augment(key, batch) -> batch, inside jit.
    stochastic    the loss takes a key as its third argument.
    trainable     names of the leaves or subtrees to train ("head", "head/kernel"), None for every floating-point leaf.
    compute_dtype floating-point parameters and batches are cast to it before the loss (say jnp.bfloat16); parameters,
                  gradients and optimizer state keep their own precision.
    mesh          the batch is sharded over all its axes, everything else replicated; None for one device.
    microbatch_size
                  rows whose gradient is taken at a time, their mean makes the step's: less memory, and activations
                  that stay in a CPU's cache. For losses that are means over rows; recorded metrics are means, too.
    chunk_size    steps between two looks at the host (callback, checkpoint); the numbers do not depend on it.
    resident      the data live on the device; False keeps them in host memory, and each chunk is sent its batches.
    on_nonfinite  when loss, gradient or new parameters are not finite, that update is dropped and the run ends with the
                  last finite parameters ("stop"), raises FloatingPointError ("raise"), or goes on ("skip").
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
        if self.mesh is not None:  # the batch's axis is given by constraints, which explicit axes do not take
            automatic = (AxisType.Auto,) * len(self.mesh.axis_names)
            object.__setattr__(self, "mesh", Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=automatic))
        if self.mesh is not None and self.batch_size is not None and self.batch_size % self.mesh.size:
            raise ValueError(f"batch_size {self.batch_size} does not divide over {self.mesh.size} devices of the mesh")

    @property
    def shuffled(self) -> bool:
        """Batches are taken on the device, by the epoch's order."""
        return self.resident and self.batch_size is not None

    def epoch_length(self, size: int) -> int:
        """Steps an epoch of `size` rows."""
        return 1 if self.batch_size is None else size // self.batch_size

    def epoch_order(self, key: jax.Array, step: jax.Array, size: int) -> jax.Array:
        """The permutation (N,) of the epoch that `step` belongs to."""
        epoch = step // jnp.int32(self.epoch_length(size))
        rows = jnp.arange(size, dtype=jnp.int32)
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0), epoch), rows)


def start(descent: Descent, params: Tree, size: int) -> tuple[State, jax.Array]:
    """The state before step 0, on buffers of its own, and which leaves of `params` are finite, (leaves,) bool."""
    params = jax.tree.map(jnp.copy, params)
    free, _ = split(params, descent.trainable)
    zero = jnp.zeros((), jnp.int32)
    with _optax_promotion():
        optimizer = jax.tree.map(lambda leaf: jnp.copy(strong(leaf)), descent.optimizer.init(free))
    order = jnp.zeros((size if descent.shuffled else 0,), jnp.int32)  # `advance` makes it: step 0 begins an epoch
    state = State(params, optimizer, order, zero, zero, zero)
    finite = [_finite(leaf) for leaf in jax.tree.leaves(params)]
    return _replicated(descent, state), jnp.stack(finite) if finite else jnp.ones((0,), bool)


def advance(
    descent: Descent, state: State, data: Tree, key: jax.Array, stop: jax.Array, size: int
) -> tuple[State, dict[str, jax.Array]]:
    """Steps from state.step to `stop` (at most chunk_size more), fewer where a fault ends the run.

    `data` leaves are (N, ...), or (chunk_size * B, ...) in the chunk's order where not resident. Returns the state and
    the recorded metrics, leaves (chunk_size, ...), of which the first `new step - old step` rows are filled.
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

    # Loops with a traced limit: one program serves every number of steps, and a fault ends it at once. The outer loop
    # is over epochs, so that the permutation (a sort of N keys) is made once an epoch and not once a step.
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
    """(trainable, frozen): the tree twice, with None where a leaf belongs to the other one."""

    def chosen(path: Any, leaf: Any) -> bool:
        name = leaf_name(path)
        named = trainable is None or any(name == part or name.startswith(part + "/") for part in trainable)
        return named and jnp.issubdtype(leaf.dtype, jnp.inexact)

    free = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if chosen(path, leaf) else None, params)
    frozen = jax.tree_util.tree_map_with_path(lambda path, leaf: None if chosen(path, leaf) else leaf, params)
    return free, frozen


def leaf_name(path: Any) -> str:
    """The name of a leaf: the keys on the way to it, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def strong(leaf: Any) -> jax.Array:
    """The leaf as an array whose dtype is not weak (a Python number's is, and would be traced a second time)."""
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def _step(descent: Descent, state: State, batch: Tree, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
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
        updates, moved = optimizer.update(gradient, state.optimizer, free, **line_search)
        new = optax.apply_updates(free, updates)
    fault = jnp.select([~_finite(loss), ~_finite(gradient), ~_finite(new)], [1, 2, 3], 0).astype(jnp.int32)
    good = fault == 0
    new, moved = _select(good, (new, moved), (free, state.optimizer))
    kept = state._replace(params=_merge(new, frozen), optimizer=moved)
    if descent.on_nonfinite == "skip":
        kept = kept._replace(step=state.step + 1, skipped=state.skipped + (~good).astype(jnp.int32))
    else:
        kept = kept._replace(step=state.step + good.astype(jnp.int32), fault=fault)
    return kept, {"loss": loss, **metrics}


def _gradient(descent: Descent, objective: Callable[..., Any], free: Tree, batch: Tree, key: jax.Array) -> Any:
    """((loss, metrics), gradient) of the batch; part i of a divided one draws from fold_in(key, i)."""
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
    """The batch of this step: `row` counts steps in the chunk, `place` in the epoch."""
    if descent.batch_size is None:
        return data
    size = descent.batch_size
    if not descent.resident:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row * jnp.int32(size), size), data)
    rows = _sharded(descent, jax.lax.dynamic_slice_in_dim(state.order, place * jnp.int32(size), size))
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip", unique_indices=True), data)


@contextmanager
def _optax_promotion() -> Iterator[None]:
    """JAX's default promotion rules: optax relies on them (decay**count), whatever the caller's process has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _checked(value: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss, metrics = value if isinstance(value, tuple) else (value, {})
    if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise ValueError(f"the loss must be a real scalar, got {jax.typeof(loss)}")
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise ValueError(f"the loss's second value must be a dict of arrays without the name 'loss', got {metrics!r}")
    return loss, {name: jnp.asarray(metric) for name, metric in metrics.items()}


def _merge(free: Tree, frozen: Tree) -> Tree:
    return jax.tree.map(lambda a, b: b if a is None else a, free, frozen, is_leaf=lambda leaf: leaf is None)


def _cast(tree: Tree, dtype: Any) -> Tree:
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _select(good: jax.Array, new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def _finite(tree: Tree) -> jax.Array:
    """() bool: the sum of every leaf is finite, hence every number in it.

    The sum is a product with ones, in float32 at least: on CPUs that takes a sixth of the time of isfinite(leaf).all(),
    which would be a tenth of a small network's step. (A sum past 3e38 counts as not finite, too.)
    """
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            row, wide = leaf.reshape(-1), np.promote_types(leaf.dtype, np.float32)
            finite &= jnp.isfinite(jnp.dot(jnp.ones_like(row), row, preferred_element_type=wide))
    return finite


def _sharded(descent: Descent, batch: Tree) -> Tree:
    if descent.mesh is None or descent.batch_size is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(descent.mesh, PartitionSpec(descent.mesh.axis_names)))


def _replicated(descent: Descent, tree: Tree) -> Tree:
    if descent.mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(descent.mesh, PartitionSpec()))
