"""What runs a training loop from the host: checks, chunks of compiled steps, callbacks, checkpoints, exact resume."""

import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.descend import checkpoint as checkpoints
from qjax.descend import log
from qjax.descend.chunk import Chunk, Metrics
from qjax.descend.descent import Descent
from qjax.descend.leaves import Tree, leaf_name
from qjax.descend.step import FAULTS, State, epoch_order, placed
from qjax.spelling import unknown

# (step, metrics, params), and the model's state where the run has one.
Callback = Callable[..., bool | None]
Path = str | os.PathLike[str]


class Refined(NamedTuple):
    """The result of a run.

    params     the last finite parameters
    state      the model's state with them, None for a run without one
    optimizer  the state of the optimizer
    step       steps done
    metrics    {"loss": (steps,), name: (steps, ...)}: what every step recorded, as NumPy arrays
    info       status      "finished", "stopped" (by the callback), "nonfinite"
               fault       None, or what was not finite at step `step`: "loss", "gradient", "parameters", "state"
               skipped     number of updates dropped because they were not finite (on_nonfinite="skip")
               resumed_at  step of the checkpoint from which the run was resumed, or None
               discarded   one line per newer checkpoint that could not be read
               seconds     {"refine", "callback", "checkpoint"}: wall-clock of this process
    """

    params: Tree
    state: Tree
    optimizer: Tree
    step: int
    metrics: Metrics
    info: dict[str, Any]


@dataclass(frozen=True)
class Programs:
    """What a run executes, jitted or compiled: `step.start` with its static arguments, start(params, model), and
    chunks."""

    start: Callable[[Tree, Tree], tuple[State, jax.Array]]
    chunk: Chunk


def drive(
    descent: Descent,
    programs: Programs,
    key: jax.Array,
    params: Tree,
    data: Tree,
    num_steps: int,
    callback: Callback | None,
    folder: Path | None,
    save_every: float,
    model: Tree,
) -> Refined:
    """The run that `qjax.descend.refine.Refine.__call__` describes, by programs compiled for descent.

    folder, save_every, model: its checkpoint, checkpoint_every and state.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    seconds = {"refine": 0.0, "callback": 0.0, "checkpoint": 0.0}
    size, status, resumed_at = num_rows(descent, data), "finished", None
    discarded: tuple[str, ...] = ()
    # What has come since the last save; what came before is in the folder, up to `logged`.
    metrics: list[Metrics] = []
    logged = log.End()
    with _timed(seconds, "refine"):
        key = placed(descent, key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key))
        state, finite = programs.start(placed(descent, params), placed(descent, model))
        _check_finite(params, model, np.asarray(finite))
        on_device = placed(descent, data) if descent.resident else None
    with _timed(seconds, "checkpoint"):
        identity = {} if folder is None else _identity(descent, key, params, model, data)
        found = None if folder is None else checkpoints.restore(folder, partial(_check_metrics, folder))
        if found is not None:
            state = _resumed(descent, found, state, key, size, identity, num_steps)
            logged, status = log.End(*found.record["metrics"]), str(found.record["status"])
            resumed_at, discarded = int(state.step), found.discarded

    done, fault, saved = int(state.step), int(state.fault), time.perf_counter()
    while status == "finished" and done < num_steps:
        with _timed(seconds, "refine"):
            stop = min((done // descent.chunk_size + 1) * descent.chunk_size, num_steps)
            batches = on_device if descent.resident else _gathered(descent, key, data, done, stop, size)
            state, rows = programs.chunk(state, batches, key, stop)
            metrics.append(rows)
            done, fault = int(state.step), int(state.fault)
            status = "nonfinite" if fault else "finished"
        with _timed(seconds, "callback"):
            seen = (state.params,) if model is None else (state.params, state.model)
            if callback is not None and not fault and callback(done, rows, *seen):
                status = "stopped"
        with _timed(seconds, "checkpoint"):
            over = status != "finished" or done == num_steps
            if folder is not None and (over or time.perf_counter() - saved >= save_every):
                logged, metrics = log.append(folder, _joined(metrics), logged), []
                record = {"identity": identity, "status": status, "metrics": list(logged)}
                checkpoints.save(folder, checkpoints.flatten(_lasting(state), "state"), record)
                saved = time.perf_counter()

    if fault and descent.on_nonfinite == "raise":
        raise FloatingPointError(f"step {done}: the {FAULTS[fault]} is not finite")
    info: dict[str, Any] = {"status": status, "fault": FAULTS[fault], "skipped": int(state.skipped)}
    info |= {"resumed_at": resumed_at, "discarded": discarded, "seconds": seconds}
    with _timed(seconds, "checkpoint"):
        every = _joined(metrics) if folder is None else log.read(folder, logged)
    return Refined(state.params, state.model, state.optimizer, done, every, info)


def num_rows(descent: Descent, data: Tree) -> int:
    """N, the length of the leading axis that all leaves of the data share; 0 where no batches are taken.

    Errors: ValueError for leaves without one leading axis, or with fewer rows than a batch.
    """
    if descent.batch_size is None:
        return 0
    shapes = {leaf_name(path) or "data": np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(data)}
    lengths = {shape[0] if shape else None for shape in shapes.values()}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"batch_size is given, so all data leaves need one leading axis; their shapes are {shapes}")
    size = int(next(iter(shapes.values()))[0])
    if size < descent.batch_size:
        raise ValueError(f"batch_size {descent.batch_size} is more than the {size} rows of data")
    return size


def check_names(descent: Descent, params: Tree) -> None:
    """ValueError where `trainable` names a leaf or subtree that params do not have; it names the nearest leaf."""
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in descent.trainable or ():
        if not any(name == part or name.startswith(part + "/") for name in names):
            raise unknown("trainable leaf", part, names)


def _check_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Errors where the metrics that a checkpoint's record speaks of are not intact."""
    log.check(folder, log.End(*record["metrics"]))


def _check_finite(params: Tree, model: Tree, finite: np.ndarray) -> None:
    """ValueError naming the leaves for which finite, as returned by `step.start`, is False."""
    count = len(jax.tree.leaves(params))
    for tree, good, what in ((params, finite[:count], "params are"), (model, finite[count:], "state is")):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        if bad := [leaf_name(path) or what.split()[0] for path, fine in zip(paths, good, strict=True) if not fine]:
            raise ValueError(f"{what} not finite at {', '.join(bad)}")


def _identity(descent: Descent, key: jax.Array, params: Tree, model: Tree, data: Tree) -> dict[str, Any]:
    """What a checkpoint must share with a run that resumes from it, for JSON.

    Functions (loss, optimizer, augment) are left out: they cannot be compared.
    """
    return {
        "key": np.asarray(jax.random.key_data(key)).ravel().tolist(),
        "first params": _checksum(params),
        "first state": None if model is None else _checksum(model),
        "shapes of data": [list(np.shape(leaf)) for leaf in jax.tree.leaves(data)],
        "batch_size": descent.batch_size,
        "microbatch_size": descent.microbatch_size,
        "compute_dtype": None if descent.compute_dtype is None else str(jnp.dtype(descent.compute_dtype)),
        "trainable": None if descent.trainable is None else list(descent.trainable),
    }


def _checksum(tree: Tree) -> int:
    """CRC-32 of the names and numbers of the leaves."""
    checksum = 0
    for name, leaf in sorted(checkpoints.flatten(tree, "leaf").items()):
        checksum = zlib.crc32(leaf.tobytes(), zlib.crc32(name.encode(), checksum))
    return checksum


def _resumed(
    descent: Descent,
    found: checkpoints.Restored,
    like: State,
    key: jax.Array,
    size: int,
    identity: dict[str, Any],
    num_steps: int,
) -> State:
    """The state that the checkpoint holds, in the structure of like. ValueError where it is not one of this run."""
    stored = placed(descent, checkpoints.unflatten(_lasting(like), found.arrays, "state"))
    if (known := found.record.get("identity")) != identity:
        known = known if isinstance(known, dict) else {}
        other = [name for name, value in identity.items() if name not in known or known[name] != value]
        raise ValueError(f"{found.path} is of another run: {', '.join(other)} differ")
    if int(stored["step"]) > num_steps:
        raise ValueError(f"{found.path} is at step {int(stored['step'])}, past num_steps={num_steps}")
    order = epoch_order(descent, key, stored["step"], size) if descent.shuffled else like.order
    return State(order=order, **stored)


def _lasting(state: State) -> dict[str, Any]:
    """The state by field, without the epoch's order, which follows from key and step: what a checkpoint keeps."""
    return {name: value for name, value in state._asdict().items() if name != "order"}


def _gathered(descent: Descent, key: jax.Array, data: Tree, done: int, stop: int, size: int) -> Tree:
    """The batches of steps done .. stop - 1 of data in host memory: leaves (chunk_size * B, ...), step t's at
    place t modulo chunk_size; row 0 where there is none."""
    if descent.batch_size is None:
        return placed(descent, data)
    length, chosen = descent.epoch_length(size), np.zeros((descent.chunk_size, descent.batch_size), np.int32)
    step = done
    while step < stop:
        order = np.asarray(epoch_order(descent, key, np.int32(step), size))[: length * descent.batch_size]
        part = order.reshape(length, descent.batch_size)[step % length :][: stop - step]
        chosen[step % descent.chunk_size :][: len(part)] = part
        step += len(part)
    return placed(descent, jax.tree.map(lambda leaf: np.asarray(leaf)[chosen.ravel()], data))


def _joined(metrics: list[Metrics]) -> Metrics:
    """The metrics of several chunks, (steps, ...) each, one after another."""
    if len(metrics) <= 1:
        return metrics[0] if metrics else {}
    return {name: np.concatenate([part[name] for part in metrics]) for name in metrics[0]}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall-clock of the block to seconds[name]."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start
