"""Blocks in a sampler's call: which of them a sampler moves by itself, penalties for the others, and which reads kept
them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from qjax.energy import penalties
from qjax.energy.blocks import KINDS, Blocks
from qjax.energy.qubo import Qubo


@partial(register_dataclass, data_fields=["blocks", "moved", "penalised"], meta_fields=[])
@dataclass(frozen=True)
class Constraints:
    """What a call does with its blocks.

    blocks     all of them
    moved      those of the kinds that the sampler moves, None where there are none
    penalised  the Qubo plus the automatic penalties of the others; None where there are none
    """

    blocks: Blocks
    moved: Blocks | None
    penalised: Qubo | None

    @staticmethod
    def of(kinds: Iterable[str], qubo: Qubo, blocks: Blocks | None) -> Constraints | None:
        """For a sampler that moves blocks of these kinds; None without blocks.

        Errors: ValueError for traced blocks of other kinds, and those of qjax.penalties.blocks.
        """
        if blocks is None or not blocks.families:
            return None
        known = frozenset(kinds)
        moved, others = blocks.of_kinds(known), blocks.of_kinds(frozenset(KINDS) - known).binding
        penalised = qubo + penalties.blocks(qubo, others) if others.families else None
        return Constraints(blocks, moved if moved.families else None, penalised)

    def ranks(self, bits: jax.Array, energies: jax.Array, axis: int) -> jax.Array:
        """Energies by which states are compared along an axis: with penalties; infinite for states outside the blocks
        where another is inside. bits (*batch, ..., n), energies (*batch, ...) of the Qubo itself."""
        if self.penalised is None:
            return energies
        inside = self.blocks.feasible(bits)
        worth = jnp.where(inside, energies, self.penalised.energies(bits))
        return jnp.where(inside | ~inside.any(axis, keepdims=True), worth, jnp.inf)
