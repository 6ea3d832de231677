"""Host samplers, and the one place where a Qubo is copied from the device to the host and bits are copied back.

    eager call     device -> NumPy -> solver, for the problems of a batch one after another -> Samples
    traced call    the same in a `jax.pure_callback`, for samplers whose bits are a function of problem and seed
                   (`seeded`); an error for others

A subclass implements `_reads(seed, qubo, num_reads, initial)` with NumPy arrays in and out, and without JAX, since it
may run in a callback.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.constraints import Constraints
from qjax.samplers.samples import Samples


class HostSampler:
    """Base class of the samplers that run on the host."""

    couplings: ClassVar[tuple[str, ...]] = ("dense", "sparse", "gram", "implicit")
    batches: ClassVar[bool] = True
    thermal: ClassVar[bool] = False
    is_host: ClassVar[bool] = True
    blocks: ClassVar[tuple[str, ...]] = ()
    # The names of what `_reads` says of single reads, and of numbers that add up over calls.
    by_read: ClassVar[frozenset[str]] = frozenset()
    counts: ClassVar[frozenset[str]] = frozenset()

    @property
    def seeded(self) -> bool:
        """Whether bits are a function of problem and seed, so that calls may be traced."""
        return False

    def _reads(
        self, seed: int, qubo: Qubo, num_reads: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """(bits (num_reads, n), info) of one problem with n > 0 bits, labelled 0 .. n - 1, its leaves NumPy arrays;
        info of single reads (num_reads, ...) under the names in `by_read`.

        seed: below 2^31. initial: bits (num_reads, n), or None. An error may have an attribute `reads`, such a pair of
        what had come back before, missing reads repeated from the others.
        """
        raise TypeError(f"{type(self).__name__} has no _reads")

    def __call__(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int = 64,
        initial_states: Any = None,
        blocks: Blocks | None = None,
    ) -> Samples:
        """`Samples`, see `qjax.samplers.contract`; energies are recomputed from the Qubo.

        info of an eager call: arrays (*batch, ...), and tables {name: number} summed over the batch; of a traced call:
        none. With blocks both have feasible (*batch, num_reads): they are kept by penalties.
        Errors: ValueError for bad arguments, for a traced call of a sampler that is not seeded, and for answers that do
        not fit the problem. An error of an eager call has as `.samples` the reads that had come back before, with
        infinite energies of problems that have none; where there are any at all.
        """
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, qubo, initial_states)))
        if traced and not self.seeded:
            raise ValueError(
                f"{type(self).__name__} runs on the host, its answers do not follow from a seed, and so it cannot be "
                "traced: call it outside jit, vmap and grad"
            )
        key, num_reads, initial = check_call(key, qubo, num_reads, initial_states)
        check_blocks(key, qubo, num_reads, initial_states, blocks)
        constraints = Constraints.of(self.blocks, qubo, blocks)
        solved = qubo if constraints is None or constraints.penalised is None else constraints.penalised
        # Solvers get bits labelled 0 .. n - 1, whatever the Qubo's labels are.
        bare = replace(solved, labels=Labels.range(qubo.num_bits))
        if not isinstance(bare.couplings, Dense | Sparse):
            bare = replace(bare, couplings=Dense(bare.couplings.to_dense()))
        leaves = (_seeds(key, qubo.batch_shape), bare, initial)
        if not traced:
            states, info, came, error = self._batch(num_reads, *jax.tree.map(np.asarray, leaves))
            bits, by_read = jnp.asarray(states), self.by_read & info.keys()
            if constraints is not None:
                info, by_read = {**info, "feasible": constraints.blocks.feasible(bits)}, by_read | {"feasible"}
            if error is None:
                return Samples(bits, qubo.energies(bits), info, by_read)
            if came.any():
                energies = jnp.where(jnp.asarray(came)[..., None], qubo.energies(bits), jnp.inf)
                vars(error)["samples"] = Samples(bits, energies, info, by_read)
            raise error

        def host(leaves: Any) -> np.ndarray:
            states, _, _, error = self._batch(num_reads, *jax.tree.map(np.asarray, leaves))
            if error is not None:
                raise error
            return states

        shape = jax.ShapeDtypeStruct((*qubo.batch_shape, num_reads, qubo.num_bits), jnp.int8)
        # Bits have no gradient with respect to the problem; energies, computed below, have one.
        fixed = jax.tree.map(jax.lax.stop_gradient, leaves)
        bits = jax.pure_callback(host, shape, fixed, vmap_method="sequential")
        kept = {} if constraints is None else {"feasible": constraints.blocks.feasible(bits)}
        return Samples(bits, qubo.energies(bits), kept, frozenset(kept))

    def _batch(
        self, num_reads: int, seeds: np.ndarray, qubo: Qubo, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any], np.ndarray, Exception | None]:
        """(bits, info, whether a problem has reads (*batch,), the error that ended the call or None)."""
        batch, n = qubo.batch_shape, qubo.num_bits
        states, infos = np.zeros((*batch, num_reads, n), np.int8), []
        came, error = np.zeros(batch, bool), None
        for place in np.ndindex(*batch) if n else ():
            one = replace(qubo, offset=qubo.offset[place], linear=qubo.linear[place], scale=qubo.scale[place])
            start = None if initial is None else initial[place]
            try:
                states[place], info = self._reads(int(seeds[place]), one, num_reads, start)
            except Exception as raised:
                error = raised
                if (reads := getattr(raised, "reads", None)) is None:
                    break
                states[place], info = reads
            came[place] = True
            infos.append(info)
            if error is not None:
                break
        return states, _gathered(infos, batch), came, error


def _seeds(key: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """A seed for each problem, (*batch,), below 2^31, the limit of dimod's solvers."""
    count = int(np.prod(batch))
    draw: Any = jax.vmap(lambda p: jax.random.bits(jax.random.fold_in(key, p), (), jnp.uint32) >> 1)
    return draw(jnp.arange(count, dtype=jnp.uint32)).reshape(batch)


def _gathered(infos: list[dict[str, Any]], batch: tuple[int, ...]) -> dict[str, Any]:
    """The info of a batch from those of its problems: tables summed, arrays stacked to (*batch, ...).

    Entries that some problem lacks are dropped; problems after the last of infos have zeros.
    """
    gathered: dict[str, Any] = {}
    for name in infos[0] if infos else ():
        if not all(name in info for info in infos):
            continue
        values = [info[name] for info in infos]
        if isinstance(values[0], dict):
            keys = {k for value in values for k in value}
            gathered[name] = {k: np.float64(sum(value.get(k, 0.0) for value in values)) for k in sorted(keys)}
        else:
            first = np.asarray(values[0])
            stacked = np.zeros((int(np.prod(batch)), *first.shape), first.dtype)
            stacked[: len(values)] = values
            gathered[name] = stacked.reshape((*batch, *first.shape))
    return gathered
