"""Reads spread over the devices of a mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
from jax.sharding import AxisType

from qjax.energy.blocks import Blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.contract import Sampler, call, run_reads
from qjax.samplers.samples import Samples


@dataclass(frozen=True)
class Sharded:
    """A sampler with its reads spread over one axis of a device mesh: the same bits as on one device.

    Each of the D = mesh.shape[axis] devices, also of several processes (jax.distributed), runs num_reads / D reads and
    keeps their bits; all have the Qubo. Errors: ValueError for a sampler on the host, an axis that the mesh does not
    have, and a num_reads that is no multiple of D.
    """

    sampler: Sampler
    mesh: jax.sharding.Mesh
    axis: str = "reads"
    is_host: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.sampler, Sampler) or self.sampler.is_host:
            raise ValueError(f"sampler must be a JAX sampler to be sharded, got {type(self.sampler).__name__}")
        if self.axis not in self.mesh.shape:
            raise ValueError(f"axis {self.axis!r} is not an axis of the mesh {dict(self.mesh.shape)}")
        # `jax.make_mesh` makes explicit axes, which take no array that was made without them.
        automatic = (AxisType.Auto,) * len(self.mesh.axis_names)
        mesh = jax.sharding.Mesh(self.mesh.devices, self.mesh.axis_names, axis_types=automatic)
        object.__setattr__(self, "mesh", mesh)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The kinds of blocks that the sampler keeps by its moves."""
        return self.sampler.blocks

    @property
    def adds_moves(self) -> bool:
        """Whether the sampler moves groups that were found."""
        return self.sampler.adds_moves

    def found(self, qubo: Qubo) -> Blocks | None:
        """As the sampler's own `found`."""
        return self.sampler.found(qubo)

    def __call__(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int = 64,
        initial_states: Any = None,
        blocks: Blocks | None = None,
    ) -> Samples:
        """As the sampler's own call."""
        check_blocks(key, qubo, num_reads, initial_states, blocks)
        return self.repeated(key, qubo, num_reads, initial_states, None, blocks)

    def repeated(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int,
        initial_states: Any,
        repeats: Any,
        blocks: Blocks | None = None,
    ) -> Samples:
        """As the sampler's own `repeated`."""
        key, num_reads, initial_states = check_call(key, qubo, num_reads, initial_states)
        devices = self.mesh.shape[self.axis]
        if num_reads % devices:
            raise ValueError(f"num_reads must be a multiple of the {devices} devices on {self.axis!r}, got {num_reads}")
        return call(
            self.sampler,
            lambda chosen: replace(self, sampler=chosen),
            *(key, qubo, num_reads, initial_states, repeats, blocks),
        )

    def run_of(self, num_reads: int, batch_ndim: int) -> Any:
        """`run_reads` for the sampler, each device with its share of the reads."""
        spec: Any = jax.sharding.PartitionSpec
        whole, by_read = spec(), spec(*(None,) * batch_ndim, self.axis)
        return jax.shard_map(
            partial(run_reads, self.sampler, num_reads),
            mesh=self.mesh,
            in_specs=(whole, whole, spec(self.axis), by_read, whole, whole),
            out_specs=(by_read, by_read, by_read, whole),
            check_vma=False,  # the loops mix replicated and per-device values, which the checker cannot follow
        )

    def algorithm_for(self, qubo: Qubo, num_reads: int, blocks: Blocks | None = None) -> Sampler:
        """The sampler that does the work on each device."""
        return self.sampler.algorithm_for(qubo, num_reads, blocks)
