"""One step of stochastic descent and a chunk of them, as pure functions of (state, data, key).

    loss_t, g_t = value and gradient of loss(params_t, augment(batch_t))         on the trainable leaves
    params_{t+1}, optimizer_{t+1} = optimizer(g_t, optimizer_t, params_t)

A model may have a state that steps change and no gradient touches (batch statistics, dropout counters). Then the loss
is loss(params_t, state_t, augment(batch_t)), and returns state_{t+1} as well.

Batch t is a pure function of (key, t). For N rows and batches of B, an epoch has L = N // B steps. Epoch e = t // L
takes the rows in the order permutation(fold_in(fold_in(key, 0), e)), and batch t is slice t mod L of it (N mod B rows
are left out, different ones in every epoch). Augmentation draws from fold_in(fold_in(key, 1), t), a stochastic loss
from fold_in(fold_in(key, 2), t). So a run that was stopped after any step resumes with exactly the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax
from jax.sharding import AxisType, Mesh

from qjax.descend.leaves import Tree


@dataclass(frozen=True)
class Descent:
    """The static options of a training loop: hashable, so that two equal ones compile once.

    loss             loss(params, batch), or loss(params, batch, key) where `stochastic`: returns a scalar, or (scalar,
                     dict of arrays), where the arrays are recorded at every step under their names. For a run
                     with a state: loss(params, state, batch[, key]), returning (scalar, (new state, dict of arrays))
    optimizer        any optax transformation; schedules count steps from 0; line searches get value and value_fn
    batch_size       rows per step; None: every step takes all rows, in order
    augment          augment(key, batch) -> batch, inside jit
    stochastic       whether the loss takes a key as its third argument
    trainable        names of the leaves or subtrees to train ("head", "head/kernel"); None: every floating-point leaf
    compute_dtype    what floating-point parameters and batches are cast to before the loss (say jnp.bfloat16);
                     parameters, gradients, optimizer state and the model's state keep their own precision
    mesh             the batch is sharded over all axes of the mesh, everything else is replicated: a mean
                     over rows inside the loss is one over the whole batch. None: one device
    microbatch_size  rows per gradient; a step takes the mean of its microbatches' gradients. Saves memory, and keeps
                     activations in a CPU's cache. For losses that are means over rows; metrics are averaged, too, and
                     the model's state goes through the microbatches in order
    chunk_size       steps between callbacks and checkpoints; the host waits for results between chunks only. Results do
                     not depend on it
    loop             where the loop over a chunk's steps runs: on the "device", in one compiled program, or on the
                     "host", which dispatches a program a step. "auto": on the host for networks with convolutions on
                     CPUs, else on the device (see qjax.descend.placement). Results agree up to rounding
    resident         True: the data are in device memory. False: they stay in host memory, and each chunk is sent its
                     batches
    on_nonfinite     where the loss, its gradient, the new parameters or the model's new state are not finite, the
                     update is dropped, and the run ends with the last finite parameters ("stop"), raises
                     FloatingPointError ("raise") or continues ("skip")
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
    loop: Literal["auto", "device", "host"] = "auto"
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
        if self.loop not in ("auto", "device", "host"):
            raise ValueError(f"loop must be 'auto', 'device' or 'host', got {self.loop!r}")
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
