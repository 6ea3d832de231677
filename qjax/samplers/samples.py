"""What every sampler returns: bits, their energies, and diagnostics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Info of single reads, (*batch, reads, ...); all other info is of whole problems or of the call. Told apart by name,
# because a shape may have the number of reads by chance.
READ_INFO = frozenset(
    {"chain_break_fraction", "converged", "effective_fraction", "exchange_rates", "log_partition", "num_occurrences"}
)


class Samples(NamedTuple):
    """What a sampler returns.

    bits      int8 (*batch, reads, n), 0 and 1
    energies  (*batch, reads), E of the bits, computed from the Qubo
    info      diagnostics, arrays only: of single reads (*batch, reads, ...) under the names in `READ_INFO`, else of
              whole problems (*batch, ...) or of the call
    """

    bits: jax.Array
    energies: jax.Array
    info: dict[str, Any]

    @property
    def best_bits(self) -> jax.Array:
        """The bits of lowest energy, (*batch, n)."""
        index = jnp.argmin(self.energies, axis=-1)
        return jnp.take_along_axis(self.bits, index[..., None, None], axis=-2)[..., 0, :]

    @property
    def best_energy(self) -> jax.Array:
        """The lowest energy, (*batch,)."""
        return jnp.min(self.energies, axis=-1)

    def sort(self) -> Samples:
        """The reads by energy, lowest first; equal energies keep their order. Info of single reads is dropped."""
        order = jnp.argsort(self.energies, axis=-1, stable=True)
        bits = jnp.take_along_axis(self.bits, order[..., None], axis=-2)
        info = {name: value for name, value in self.info.items() if name not in READ_INFO}
        return Samples(bits, jnp.take_along_axis(self.energies, order, axis=-1), info)

    def unique(self) -> Samples:
        """Each state once, lowest energy first, with `info["num_occurrences"]` (reads,); on the host, not traced.

        Errors: ValueError for a batch, whose problems would keep different numbers of reads.
        """
        if self.energies.ndim != 1:
            raise ValueError(f"unique takes the reads of one problem, got energies of shape {self.energies.shape}")
        bits, energies = np.asarray(self.bits), np.asarray(self.energies)
        _, first, counts = np.unique(bits, axis=0, return_index=True, return_counts=True)
        order = np.lexsort((first, energies[first]))
        chosen = first[order]
        return Samples(jnp.asarray(bits[chosen]), jnp.asarray(energies[chosen]), {"num_occurrences": counts[order]})

    def concatenate(self, *others: Samples) -> Samples:
        """The reads of all, one after the other; info is dropped."""
        every = (self, *others)
        bits = jnp.concatenate([s.bits for s in every], axis=-2)
        return Samples(bits, jnp.concatenate([s.energies for s in every], axis=-1), {})

    def join(self) -> Samples:
        """A batch of P independent problems as one of P n bits: its k-th read joins the k-th best of each.

        bits (reads, P n), the problems one after the other; energies (reads,), summed; info is dropped. One problem is
        only sorted.
        """
        ranked = self.sort()
        if self.energies.ndim == 1:
            return Samples(ranked.bits, ranked.energies, {})
        reads, n = self.bits.shape[-2:]
        bits = ranked.bits.reshape((-1, reads, n))
        joined = jnp.swapaxes(bits, 0, 1).reshape((reads, -1))
        return Samples(joined, ranked.energies.reshape((-1, reads)).sum(axis=0), {})
