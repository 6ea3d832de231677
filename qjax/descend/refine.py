"""The training loop: any loss on a pytree, any optax optimizer, chunks of jitted steps.

    result = refine(jax.random.key(0), loss, params, data, optax.adam(1e-3), 1000, batch_size=256)
    result.params, result.metrics["loss"]

qjax.descend.descent gives the law of a run, qjax.descend.step its steps; qjax.descend.loop runs them from the host.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from qjax.descend.chunk import CompilerOptions, traced
from qjax.descend.descent import Descent
from qjax.descend.leaves import Tree, strong
from qjax.descend.loop import Callback, Path, Programs, Refined, check_names, drive, num_rows
from qjax.descend.step import State, start
from qjax.spelling import unknown

__all__ = ["Compiled", "Refine", "Refined", "refine"]

_start = jax.jit(start, static_argnames=("descent", "size"))


@dataclass(frozen=True)
class Refine(Descent):
    """A training loop with its options: `Refine(loss, optimizer, batch_size=256)(key, params, data, num_steps)`.

    Equal ones share one compiled program for equal shapes, whatever the number of steps and the key. `compile` compiles
    it ahead of time, so that the seconds of that can be measured separately.
    """

    def compile(
        self, params: Tree, data: Tree = None, state: Tree = None, compiler_options: CompilerOptions = None
    ) -> "Compiled":
        """Compile for parameters, data and state of these shapes and dtypes (arrays, or jax.ShapeDtypeStruct).

        compiler_options: XLA's, as jax.jit takes them, for the program of the steps.
        """
        size = num_rows(self, data)
        check_names(self, params)
        first = _start.lower(self, _shapes(self, params), _shapes(self, state), size=size)
        arguments = _arguments(self, first.out_info[0], data)
        chunk = traced(self, size, *arguments).compiled(*arguments, compiler_options)
        return Compiled(self, size, Programs(first.compile(), chunk))

    def __call__(
        self,
        key: jax.Array,
        params: Tree,
        data: Tree,
        num_steps: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: float = 10.0,
        state: Tree = None,
    ) -> Refined:
        """`num_steps` steps from `params` on `data`.

        key               jax.random.key, for batches, augmentation and a stochastic loss
        data              pytree of arrays (N, ...), or None for loss(params, None); put NumPy data on the device once
                          (jax.device_put) if several runs share them
        callback          callback(step, metrics, params) after every chunk, with the chunk's metrics (steps, ...); for
                          a run with a state, callback(step, metrics, params, state). Returning True ends the run. Both
                          are valid until it returns: copy what is to be kept. Those of qjax.interop.loggers hand
                          metrics to TensorBoard or Weights & Biases
        checkpoint        folder of checkpoints. Where it holds one of this run, the run is resumed from there, with the
                          same numbers, bit for bit. A run is known by its key, first parameters and state, shapes
                          of data, batch_size, microbatch_size, compute_dtype and trainable. The loss, the optimizer
                          (its learning rate) and augment are functions, which cannot be compared: in a sweep over
                          them, each run needs a folder of its own
        checkpoint_every  seconds between saves, which come at the ends of chunks; the end of the run is always saved
        state             pytree that the loss takes and returns anew at every step, of the same structure, shapes and
                          dtypes (batch statistics, counters, keys); None: the model has none

        Errors: ValueError for shapes, names or sizes that do not fit, or a checkpoint that is unreadable or of another
        run; OSError where the folder cannot be written; FloatingPointError for what is not finite, with
        on_nonfinite="raise".
        """
        size = num_rows(self, data)
        check_names(self, params)
        first, _ = _start.eval_shape(self, _shapes(self, params), _shapes(self, state), size=size)
        chunk = traced(self, size, *_arguments(self, first, data))
        programs = Programs(partial(_start, self, size=size), chunk)
        return drive(self, programs, key, params, data, num_steps, callback, checkpoint, checkpoint_every, state)


@dataclass(frozen=True)
class Compiled:
    """A `Refine` (`program`) compiled for `size` rows of data; called like it."""

    program: Refine
    size: int
    programs: Programs

    def __call__(
        self,
        key: jax.Array,
        params: Tree,
        data: Tree,
        num_steps: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: float = 10.0,
        state: Tree = None,
    ) -> Refined:
        """As `Refine.__call__`, without compiling. Errors: also ValueError for data with another number of rows."""
        if (size := num_rows(self.program, data)) != self.size:
            raise ValueError(f"compiled for {self.size} rows of data, got {size}")
        return drive(
            self.program, self.programs, key, params, data, num_steps, callback, checkpoint, checkpoint_every, state
        )


def refine(
    key: jax.Array,
    loss: Callable[..., Any],
    params: Tree,
    data: Tree,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 10.0,
    state: Tree = None,
    **options: Any,
) -> Refined:
    """Train `params` on `data`: `Refine(loss, optimizer, **options)` called once. Options: the fields of `Descent`.

    With a `state`, such as batch statistics, the loss is loss(params, state, batch) -> (scalar, (new state, metrics)),
    and the result has the last `.state`.
    """
    known = [field.name for field in fields(Refine)]
    for name in options:
        if name not in known:
            raise unknown("option", name, known[2:])
    program = Refine(loss, optimizer, **options)
    return program(key, params, data, num_steps, callback, checkpoint, checkpoint_every, state)


def _arguments(descent: Descent, state: State, data: Tree) -> tuple[State, Tree, jax.Array]:
    """The arguments of a chunk as shapes: the state, the data, a key."""
    rows = None if descent.resident or descent.batch_size is None else descent.chunk_size * descent.batch_size
    key = jax.eval_shape(lambda: jax.random.key(0))
    return _shapes(descent, state), _shapes(descent, data, rows), _shapes(descent, key)


def _shapes(descent: Descent, tree: Tree, rows: int | None = None) -> Tree:
    """The shapes and dtypes of the tree's leaves, for `lower`; rows, where given, replaces their leading axis."""
    sharding = None if descent.mesh is None else NamedSharding(descent.mesh, PartitionSpec())

    def shape(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        dims = leaf.shape if rows is None else (rows, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(dims, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, jax.eval_shape(lambda tree: jax.tree.map(strong, tree), tree))
