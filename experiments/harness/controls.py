"""Controls: samplers that take the annealer's place, so that its own gain can be told from everything else's.

random bits       the registry's `random`
greedy descent    the registry's `greedy`, from the same first states
rounded           `Given`: the first states themselves, here encoding.nearest(continuous minimiser)
shuffled          `Shuffled(sampler)`: the same sampler on the Qubo with its variables permuted, of the same spectrum
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from qjax import Qubo, Samples, samplers
from qjax.formulate.minimiser import minimiser
from qjax.rounds import Problem

# The sampler of each method, by its name in the registry or, for `given`, here.
SAMPLERS = {"hybrid": "anneal", "random-bits": "random", "greedy": "greedy", "rounded": "given", "shuffled": "anneal"}


@dataclass(frozen=True)
class Given:
    """Returns `initial_states` (*batch, num_reads, n) as they are, with their energies. Errors: ValueError without
    them."""

    is_host = False

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        if initial_states is None:
            raise ValueError("initial_states must be given: this control samples nothing")
        bits = jnp.asarray(initial_states).astype(jnp.int8)
        shape = (*qubo.batch_shape, num_reads, qubo.num_bits)
        bits = jnp.broadcast_to(bits, shape)
        return Samples(bits, qubo.energies(bits), {})


@dataclass(frozen=True)
class Shuffled:
    """`sampler` on the Qubo with its variables permuted at random, its bits reported as if nothing had been permuted.

        E'(x) = E(x[p]),  p a permutation drawn from the key

    E' has the spectrum of E, and its low states say nothing about which weight takes which bit. A sample of E' is
    y[p^-1] for a sample y of E, so the sampler runs on E itself, from initial states x[p], and no couplings are moved.
    Energies are those of the reported bits in the Qubo, so that picking treats them like any other.
    """

    sampler: Callable[..., Samples]

    @property
    def is_host(self) -> bool:
        return bool(getattr(self.sampler, "is_host", False))

    @property
    def blocks(self) -> tuple[str, ...]:
        """Digits, whose states are all allowed, also when their bits are permuted."""
        return tuple({"states"} & set(getattr(self.sampler, "blocks", ())))

    def __call__(
        self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None, blocks: Any = None
    ) -> Samples:
        order = jax.random.permutation(jax.random.fold_in(key, qubo.num_bits), qubo.num_bits)
        start = None if initial_states is None else jnp.asarray(initial_states)[..., order]
        also = {} if blocks is None else {"blocks": blocks}
        samples = self.sampler(key, qubo, num_reads=num_reads, initial_states=start, **also)
        bits = samples.bits[..., jnp.argsort(order)]
        return Samples(bits, qubo.energies(bits), {})


def sampler_of(method: str, anneal: Any) -> Callable[..., Samples]:
    """The sampler of a method, the one thing in which a control differs from `hybrid`, whose sampler is `anneal`.

    Errors: KeyError for a method without a sampler.
    """
    choice: dict[str, Callable[..., Samples]] = {
        "hybrid": anneal,
        "random-bits": samplers.get("random"),
        "greedy": samplers.get("greedy"),
        "rounded": Given(),
        "shuffled": Shuffled(anneal),
    }
    return choice[method]


def named(method: str, anneal: Any) -> str:
    """The sampler of a method as tables name it, "-" for a method without one; anneal: as of `sampler_of`."""
    title = SAMPLERS.get(method, "-")
    return type(anneal).__name__.lower() if title == "anneal" else title


def rounded(key: jax.Array, problem: Problem, num_reads: int) -> jax.Array:
    """First states (num_reads, n) of the control `rounded`: the continuous minimiser, rounded, in every read."""
    solution = minimiser(problem.quadratic, problem.encoding.params).params
    return jnp.broadcast_to(problem.encoding.nearest(solution)[None, :], (num_reads, problem.encoding.num_bits))
