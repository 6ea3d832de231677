"""The one training loop: any loss on a pytree, any optax optimizer, chunks of jitted steps.

    result = refine(loss, params, data, optax.adam(1e-3), 1000, key=jax.random.key(0), batch_size=256)
    result.params, result.metrics["loss"]

What a step is stands in `qjax.descent`. Here are the host's parts: checks, chunks, callbacks, checkpoints, resume.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from qjax import checkpoint as checkpoints
from qjax.descent import FAULTS, Descent, State, advance, leaf_name, start

Tree = Any
Metrics = dict[str, np.ndarray]
Callback = Callable[[int, Metrics, Tree], bool | None]
Path = str | os.PathLike[str]

_start = jax.jit(start, static_argnums=(0, 3))
_advance = jax.jit(advance, static_argnums=(0, 5), donate_argnums=1)
_order = jax.jit(Descent.epoch_order, static_argnums=(0, 3))


class Refined(NamedTuple):
    """What a run leaves behind.

    params     the last finite parameters
    optimizer  the optimizer's state
    step       steps done
    metrics    {"loss": (steps,), ...}: every recorded number of every step, float arrays on the host
    info       status ("finished", "stopped" by the callback, "nonfinite"), fault (None, or what was not finite at step
               `step`: "loss", "gradient", "parameters"), skipped (updates dropped), resumed_at (a step, or None),
               discarded (unreadable checkpoints passed over), seconds ({"refine", "callback", "checkpoint"})
    """

    params: Tree
    optimizer: Tree
    step: int
    metrics: Metrics
    info: dict[str, Any]


@dataclass(frozen=True)
class Refine(Descent):
    """A training loop as a value: `Refine(loss, optimizer, batch_size=256)(key, params, data, num_steps)`.

    Equal ones share one compiled program for equal shapes, whatever the number of steps and the seed. `compile` makes
    it ahead of time, so that its seconds can be booked apart.
    """

    def compile(self, params: Tree, data: Tree = None) -> "Compiled":
        """Compile for parameters and data of these shapes and dtypes (arrays, or jax.ShapeDtypeStruct)."""
        size = _check_rows(self, data)
        _check_names(self, params)
        rows = None if self.resident or self.batch_size is None else self.chunk_size * self.batch_size
        key = _shapes(self, jax.eval_shape(lambda: jax.random.key(0)))
        first = _start.lower(self, _shapes(self, params), key, size)
        state = _shapes(self, first.out_info[0])
        chunk = _advance.lower(self, state, _shapes(self, data, rows), key, np.int32(0), size)
        return Compiled(self, size, first.compile(), chunk.compile())

    def __call__(
        self,
        key: jax.Array,
        params: Tree,
        data: Tree,
        num_steps: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: float = 10.0,
    ) -> Refined:
        """`num_steps` steps from `params` on `data`.

        key               jax.random.key; the run is a pure function of it
        data              pytree of arrays (N, ...), or None for loss(params, None); put numpy data on the device once
                          (jax.device_put) if several runs share them
        callback          callback(step, metrics, params) after every chunk, with the chunk's metrics (steps, ...);
                          True ends the run. `params` is valid until it returns: copy what is to be kept.
        checkpoint        folder; where it holds one of this run, the run goes on from there, bit for bit
        checkpoint_every  seconds between saves at the ends of chunks (the end of the run is always saved)

        Raises ValueError (shapes, names, sizes, a foreign or unreadable checkpoint), OSError (the folder cannot be
        written), FloatingPointError (not finite, with on_nonfinite="raise").
        """
        size = _check_rows(self, data)
        _check_names(self, params)

        def first(params: Tree, key: jax.Array) -> Any:
            return _start(self, params, key, size)

        def chunk(state: State, data: Tree, key: jax.Array, stop: np.int32) -> Any:
            return _advance(self, state, data, key, stop, size)

        return _drive(self, first, chunk, key, params, data, num_steps, callback, checkpoint, checkpoint_every)


@dataclass(frozen=True)
class Compiled:
    """A `Refine` compiled for `size` rows of data; called like it."""

    program: Refine
    size: int
    first: Any
    chunk: Any

    def __call__(
        self,
        key: jax.Array,
        params: Tree,
        data: Tree,
        num_steps: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: float = 10.0,
    ) -> Refined:
        """As `Refine.__call__`, without a compilation; ValueError for data of another length."""
        if (size := _check_rows(self.program, data)) != self.size:
            raise ValueError(f"compiled for {self.size} rows of data, got {size}")
        return _drive(
            self.program, self.first, self.chunk, key, params, data, num_steps, callback, checkpoint, checkpoint_every
        )


def refine(
    loss: Callable[..., Any],
    params: Tree,
    data: Tree,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    key: jax.Array,
    *,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 10.0,
    **options: Any,
) -> Refined:
    """Train `params` on `data`: `Refine(loss, optimizer, **options)` called once. Options: the fields of `Descent`."""
    known = [field.name for field in fields(Refine)]
    for name in options:
        if name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown option {name!r}; did you mean {nearest!r}? options: {', '.join(known[2:])}")
    program = Refine(loss, optimizer, **options)
    return program(key, params, data, num_steps, callback, checkpoint, checkpoint_every)


def _drive(
    descent: Descent,
    first: Callable[..., Any],
    chunk: Callable[..., Any],
    key: jax.Array,
    params: Tree,
    data: Tree,
    num_steps: int,
    callback: Callback | None,
    folder: Path | None,
    save_every: float,
) -> Refined:
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    seconds = {"refine": 0.0, "callback": 0.0, "checkpoint": 0.0}
    size = _check_rows(descent, data)
    key = _placed(descent, key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key))
    identity = [np.asarray(jax.random.key_data(key)).ravel().tolist(), descent.batch_size, size]

    clock = time.perf_counter()
    state, finite = first(_placed(descent, params), key)
    _check_finite(params, np.asarray(finite))
    shown = data if not descent.resident else _placed(descent, data)
    metrics: list[Metrics] = []
    status, resumed_at, discarded = "finished", None, tuple[str, ...]()
    seconds["refine"] += time.perf_counter() - clock

    clock = time.perf_counter()
    if folder is not None and (found := checkpoints.restore(folder)) is not None:
        if found.record.get("identity") != identity:
            raise ValueError(f"{folder}: the checkpoint is of another run (key, batch size or number of rows differ)")
        state = _placed(descent, checkpoints.unflatten(state._replace(order=None), found.arrays, "state"))
        state = state._replace(order=_order(descent, key, state.step, size))
        metrics = [checkpoints.with_prefix(found.arrays, "metrics")]
        resumed_at, discarded = int(state.step), found.discarded
        if resumed_at > num_steps:
            raise ValueError(f"{folder}: the checkpoint is at step {resumed_at}, past num_steps={num_steps}")
        status = found.record["status"]
    seconds["checkpoint"] += time.perf_counter() - clock
    saved = clock = time.perf_counter()

    done, fault = int(state.step), int(state.fault)
    while status == "finished" and done < num_steps:
        clock = time.perf_counter()
        stop = min((done // descent.chunk_size + 1) * descent.chunk_size, num_steps)
        batches = shown if descent.resident else _gathered(descent, key, data, done, stop, size)
        state, history = chunk(state, batches, key, np.int32(stop))
        history, now, fault = jax.device_get((history, state.step, state.fault))
        metrics.append({name: rows[: int(now) - done].copy() for name, rows in history.items()})
        done, fault = int(now), int(fault)
        status = "nonfinite" if fault else "finished"
        seconds["refine"] += time.perf_counter() - clock

        clock = time.perf_counter()
        if callback is not None and not fault and callback(done, metrics[-1], state.params):
            status = "stopped"
        seconds["callback"] += time.perf_counter() - clock

        clock = time.perf_counter()
        over = status != "finished" or done == num_steps
        if folder is not None and (over or clock - saved >= save_every):
            metrics = [_joined(metrics)]
            arrays = checkpoints.flatten(state._replace(order=None), "state")
            arrays |= checkpoints.flatten(metrics[0], "metrics")
            checkpoints.save(folder, arrays, {"identity": identity, "status": status, "step": done})
            saved = time.perf_counter()
        seconds["checkpoint"] += time.perf_counter() - clock

    if fault and descent.on_nonfinite == "raise":
        raise FloatingPointError(f"step {done}: the {FAULTS[fault]} is not finite")
    info = {
        "status": status,
        "fault": FAULTS[fault],
        "skipped": int(state.skipped),
        "resumed_at": resumed_at,
        "discarded": discarded,
        "seconds": seconds,
    }
    return Refined(state.params, state.optimizer, done, _joined(metrics), info)


def _joined(metrics: list[Metrics]) -> Metrics:
    if len(metrics) <= 1:
        return metrics[0] if metrics else {}
    return {name: np.concatenate([part[name] for part in metrics]) for name in metrics[0]}


def _gathered(descent: Descent, key: jax.Array, data: Tree, done: int, stop: int, size: int) -> Tree:
    """The batches of steps done .. stop-1 from data in host memory, (chunk_size * B, ...), filled up with row 0."""
    if descent.batch_size is None:
        return _placed(descent, data)
    length, chosen = descent.epoch_length(size), np.zeros((descent.chunk_size, descent.batch_size), np.int32)
    step = done
    while step < stop:
        order = np.asarray(_order(descent, key, np.int32(step), size))[: length * descent.batch_size]
        part = order.reshape(length, descent.batch_size)[step % length :][: stop - step]
        chosen[step - done : step - done + len(part)] = part
        step += len(part)
    return _placed(descent, jax.tree.map(lambda leaf: np.asarray(leaf)[chosen.ravel()], data))


def _placed(descent: Descent, tree: Tree) -> Tree:
    """The tree on the device, replicated over the mesh where there is one."""
    if descent.mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, NamedSharding(descent.mesh, PartitionSpec()))


def _shapes(descent: Descent, tree: Tree, rows: int | None = None) -> Tree:
    """The tree's shapes as arguments of `lower`; `rows` replaces the leading axis."""
    sharding = None if descent.mesh is None else NamedSharding(descent.mesh, PartitionSpec())

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        dims = leaf.shape if rows is None else (rows, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(dims, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


def _check_rows(descent: Descent, data: Tree) -> int:
    """The number of rows all data leaves share, 0 for no data."""
    named = [(leaf_name(path), np.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(data)]
    lengths = {name or "data": shape[0] if shape else None for name, shape in named}
    if descent.batch_size is None:
        return 0
    if not lengths:
        raise ValueError("batch_size is given, and there are no data to take batches from")
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(f"all data leaves need the same leading axis, got lengths {lengths}")
    size = int(next(length for length in lengths.values() if length is not None))
    if size < descent.batch_size:
        raise ValueError(f"batch_size {descent.batch_size} is more than the {size} rows of data")
    return size


def _check_names(descent: Descent, params: Tree) -> None:
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in descent.trainable or ():
        if not any(name == part or name.startswith(part + "/") for name in names):
            nearest = get_close_matches(part, names, n=1, cutoff=0.0)
            raise ValueError(f"trainable: no leaf {part!r}; did you mean {nearest[0] if nearest else ''!r}?")


def _check_finite(params: Tree, finite: np.ndarray) -> None:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    bad = [leaf_name(path) or "params" for path, good in zip(paths, finite, strict=True) if not good]
    if bad:
        raise ValueError(f"params are not finite at {', '.join(bad)}")
