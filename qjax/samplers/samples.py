"""What every sampler returns: bits, their energies, and diagnostics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass


@partial(register_dataclass, data_fields=["bits", "energies", "info"], meta_fields=["by_read"])
@dataclass(frozen=True)
class Samples:
    """What a sampler returns.

    bits      int8 (*batch, reads, n), 0 and 1
    energies  (*batch, reads), E of the bits, computed from the Qubo
    info      diagnostics by name: of single reads (*batch, reads, ...), else of whole problems (*batch, ...) or of the
              call. Arrays; a host sampler may add tables of numbers, {name: number}
    by_read   static: the names in `info` that are of single reads, as the sampler says. A shape cannot tell: it may
              have the number of reads by chance
    """

    bits: jax.Array
    energies: jax.Array
    info: dict[str, Any] = field(default_factory=dict)
    by_read: frozenset[str] = frozenset()

    @property
    def _ranks(self) -> jax.Array:
        """The energies, infinite for reads that are known to break their blocks, where others kept them."""
        if "feasible" not in self.by_read:
            return self.energies
        kept = jnp.asarray(self.info["feasible"])
        return jnp.where(kept | ~kept.any(-1, keepdims=True), self.energies, jnp.inf)

    @property
    def best_bits(self) -> jax.Array:
        """The bits of lowest energy, (*batch, n); of the reads that are feasible, where info says so of some."""
        index = jnp.argmin(self._ranks, axis=-1)
        return jnp.take_along_axis(self.bits, index[..., None, None], axis=-2)[..., 0, :]

    @property
    def best_energy(self) -> jax.Array:
        """The energy of `best_bits`, (*batch,)."""
        return jnp.min(self._ranks, axis=-1)

    @property
    def read_info(self) -> dict[str, Any]:
        """The info of single reads, each (*batch, reads, ...)."""
        return {name: value for name, value in self.info.items() if name in self.by_read}

    @property
    def call_info(self) -> dict[str, Any]:
        """The info of whole problems and of the call."""
        return {name: value for name, value in self.info.items() if name not in self.by_read}

    def sort(self) -> Samples:
        """The reads by energy, lowest first, with their info; equal energies keep their order."""
        order = jnp.argsort(self.energies, axis=-1, stable=True)
        bits, energies = _ordered(self.bits, order), _ordered(self.energies, order)
        info = {name: _ordered(value, order) if name in self.by_read else value for name, value in self.info.items()}
        return Samples(bits, energies, info, self.by_read)

    def unique(self) -> Samples:
        """Each state once, lowest energy first; on the host, not traced.

        `info["num_occurrences"]` (reads,): how many reads were in the state (of reads that were counted before: the sum
        of their counts); other info of single reads is that of the first of them.
        Errors: ValueError for a batch, whose problems would keep different numbers of reads.
        """
        if self.energies.ndim != 1:
            raise ValueError(f"unique takes the reads of one problem, got energies of shape {self.energies.shape}")
        bits, energies = np.asarray(self.bits), np.asarray(self.energies)
        _, first, member = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        counts = np.zeros(first.size, np.int64)
        np.add.at(counts, member.reshape(-1), np.asarray(self.read_info.get("num_occurrences", 1), np.int64))
        order = np.lexsort((first, energies[first]))
        chosen = first[order]
        read_info = {name: np.asarray(value)[chosen] for name, value in self.read_info.items()}
        info = {**self.call_info, **read_info, "num_occurrences": counts[order]}
        by_read = self.by_read | {"num_occurrences"}
        return Samples(jnp.asarray(bits[chosen]), jnp.asarray(energies[chosen]), info, by_read)

    def concatenate(self, *others: Samples) -> Samples:
        """The reads of all, one after the other, with the info of single reads that all of them have; other info is
        dropped."""
        every = (self, *others)
        shared = frozenset.intersection(*(frozenset(s.read_info) for s in every))
        info = {name: _joined([s.info[name] for s in every], self.energies.ndim - 1) for name in sorted(shared)}
        bits = jnp.concatenate([s.bits for s in every], axis=-2)
        return Samples(bits, jnp.concatenate([s.energies for s in every], axis=-1), info, shared)

    def join(self) -> Samples:
        """A batch of P independent problems as one of P n bits: its k-th read joins the k-th best of each.

        bits (reads, P n), the problems one after the other; energies (reads,), summed; info is dropped. One problem is
        only sorted, and keeps its info.
        """
        ranked = self.sort()
        if self.energies.ndim == 1:
            return ranked
        reads, n = self.bits.shape[-2:]
        bits = ranked.bits.reshape((-1, reads, n))
        joined = jnp.swapaxes(bits, 0, 1).reshape((reads, -1))
        return Samples(joined, ranked.energies.reshape((-1, reads)).sum(axis=0))


def _ordered(values: Any, order: jax.Array) -> Any:
    """values (*batch, reads, ...) with their reads in an order (*batch, reads); what is on the host stays there."""
    values = values if hasattr(values, "ndim") else np.asarray(values)
    on_host = isinstance(values, np.ndarray) and not isinstance(order, jax.core.Tracer)
    module: Any = np if on_host else jnp
    index = order.reshape((*order.shape, *(1,) * (values.ndim - order.ndim)))
    return module.take_along_axis(values, np.asarray(index) if on_host else index, axis=order.ndim - 1)


def _joined(values: list[Any], axis: int) -> Any:
    module: Any = np if all(isinstance(value, np.ndarray) for value in values) else jnp
    return module.concatenate(values, axis=axis)
