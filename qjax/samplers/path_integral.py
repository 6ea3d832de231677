"""Simulated quantum annealing by path-integral Monte Carlo (Martonak, Santoro, Tosatti 2002, Physical Review B 66,
094203)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.moves import acceptance, replicas, running, streams, sweeps
from qjax.samplers.moves.temperature import automatic_range, between

# The automatic temperature of a slice lies this far (geometrically) from the hot to the cold end of an anneal.
_SLICE_PART = 0.43
# Automatic transverse fields in units of the slices' temperature S / beta: at the start slices are nearly independent
# (tanh 3 = 0.995), at the end neighbours differ in one bit of 10^4.
_GAMMA_RANGE = (3.0, 1e-4)


class _Prepared(NamedTuple):
    sweeper: sweeps.Sweeper
    halves: Task  # each column as its slices of one parity, c (S / 2) + k
    weights: jax.Array  # (P,), beta scale / S
    gammas: jax.Array  # (T, P), Gamma beta / S
    seeds: jax.Array  # (2, 2, C S / 2): of the even, of the odd slices


class _State(NamedTuple):
    even: Any
    odd: Any
    energies: jax.Array  # (2, C, S / 2), E/|scale| of even and odd slices
    best: Any
    best_energy: jax.Array  # (C,)


@dataclass(frozen=True)
class PathIntegral(Sampler):
    """Each read is S = num_slices copies of the bits on a ring of imaginary time, sampled from exp(-A),

        A = beta/S sum_k E(x_k) - K sum_k sum_i s_i,k s_i,k+1,     K = -1/2 ln tanh(beta Gamma / S),   s = 2x - 1,

    the Trotter system of E - Gamma sum_i sigma^x_i at inverse temperature beta. Gamma falls geometrically over
    num_sweeps sweeps, each of the even, then of the odd slices. The work of a read is num_sweeps x num_slices sweeps.
    num_slices: S, even.
    beta: in 1/units of E; None: one at which a slice by itself (beta / S) is cool, from the automatic range.
    gamma_range: (start, end) of Gamma in units of E; None: (3, 1e-4) S / beta, from half way (geometrically) with
        `initial_states`, which all slices start from. Equal ends sample the Trotter system at that Gamma.
    acceptance: "metropolis" or "heat_bath" (qjax.samplers.moves.acceptance).
    return_states: "best" (lowest slice seen), or "last": the first slice, which at a fixed Gamma follows the law of the
        Trotter system, not exp(-beta E).
    info: beta (*batch,). Errors: ValueError for implicit couplings without a diagonal.
    """

    num_sweeps: int = 500
    num_slices: int = 16
    beta: float | None = None
    gamma_range: tuple[float, float] | None = None
    acceptance: str = "metropolis"
    return_states: str = "best"

    def __post_init__(self) -> None:
        positive("num_sweeps", self.num_sweeps)
        positive("num_slices", self.num_slices)
        if self.num_slices % 2:
            raise ValueError(f"num_slices must be even, got {self.num_slices}")
        one_of("acceptance", self.acceptance, ("metropolis", "heat_bath"))
        one_of("return_states", self.return_states, ("best", "last"))
        if self.beta is not None and not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta must be positive, got {self.beta!r}")
        ends = self.gamma_range
        if ends is not None and not (
            isinstance(ends, tuple) and len(ends) == 2 and all(math.isfinite(g) and g > 0 for g in ends)
        ):
            raise ValueError(f"gamma_range must be (start, end), both positive, got {ends!r}")

    def length(self, task: Task) -> int:
        return self.num_sweeps

    def prepare(self, task: Task) -> _Prepared:
        dtype = task.qubo.linear.dtype
        if self.beta is None:
            hot, cold = automatic_range(task.qubo)
            slice_beta = hot ** (1 - _SLICE_PART) * cold**_SLICE_PART
        else:
            slice_beta = jnp.full(task.num_problems, self.beta / self.num_slices, dtype)
        if self.gamma_range is None:
            first, last = (jnp.full(task.num_problems, g, dtype) for g in _GAMMA_RANGE)
            if task.initial is not None:
                first = jnp.sqrt(first * last)
        else:
            first, last = (slice_beta * g for g in self.gamma_range)
        gammas = between(first, last, self.num_sweeps)
        halves = task.replicated(self.num_slices // 2)
        slices = jnp.arange(self.num_slices).reshape((-1, 2))
        seeds = jnp.stack([streams.split(task.seeds, slices[:, k]) for k in range(2)])
        return _Prepared(
            sweeps.sweeper(task.qubo, halves.per_column), halves, slice_beta * task.qubo.scale, gammas, seeds
        )

    def init(self, task: Task, prepared: _Prepared) -> _State:
        view, sites = prepared.sweeper, jnp.arange(task.num_bits)
        bits = prepared.halves.initial
        even, odd = (
            view.load(streams.random_bits(seeds, 0, sites) if bits is None else bits) for seeds in prepared.seeds
        )
        sign = jnp.sign(task.per_column(task.qubo.scale))[:, None]
        # One energy is compiled for both halves.
        both = jax.tree.map(lambda *parts: jnp.stack(parts), even, odd)
        energies = lax.map(view.energies, both).reshape((2, task.num_columns, -1)) * sign[None]
        best = replicas.select(view.snapshot(even), jnp.zeros(task.num_columns, jnp.int32))
        return _State(even, odd, energies, best, energies[0, :, 0])

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        rule = acceptance.metropolis if self.acceptance == "metropolis" else acceptance.heat_bath
        view, shape = prepared.sweeper, state.energies.shape[1:]
        weights = prepared.halves.per_column(prepared.weights)
        coupling = prepared.halves.per_column(-0.5 * jnp.log(jnp.tanh(prepared.gammas[t])))
        sign = jnp.sign(task.per_column(task.qubo.scale))
        if self.num_sweeps >= running.EVERY:
            kept, signs = (state.energies, state.best_energy), (sign[None, :, None], sign)
            kept = running.refreshed(view, t + 1, (state.even, state.odd), state.best, kept, signs)
            state = state._replace(energies=kept[0], best_energy=kept[1])

        def half(k: jax.Array, carry: Any) -> Any:
            # One sweep is compiled for both parities: the halves change places, and with them their neighbours.
            own, other, energies, best, lowest = carry
            bias = jax.tree.map(lambda x: _pull(x, shape, 1 - 2 * k, coupling), view.snapshot(other))
            own, change = view.sweep(own, rule, weights, prepared.seeds[k], t + 1, bias)
            energies = energies.at[k].add(change.reshape(shape) * sign[:, None])
            if self.return_states == "best":
                best, lowest = replicas.keep_best(view.snapshot(own), energies[k], best, lowest)
            return other, own, energies, best, lowest

        return _State(*lax.fori_loop(0, 2, half, tuple(state)))

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        chosen = state.best
        if self.return_states == "last":
            first = jnp.zeros(task.num_columns, jnp.int32)
            chosen = replicas.select(prepared.sweeper.snapshot(state.even), first)
        beta = prepared.weights / jnp.where(task.qubo.scale == 0, 1, task.qubo.scale) * self.num_slices
        return Outcome((prepared.sweeper.unload(chosen),), {}, {"beta": beta})


def _pull(x: jax.Array, shape: tuple[int, ...], shift: jax.Array, coupling: jax.Array) -> jax.Array:
    """What the two neighbouring slices, with bits x (rows, C S/2), add to the field of a bit: a 1 costs
    -2 K (s_k-1 + s_k+1) more than a 0. Slice 2k lies between 2k - 1 and 2k + 1 (shift 1), slice 2k + 1 between 2k and
    2k + 2 (shift -1)."""
    wide = x.reshape((-1, *shape))
    both = (wide + jnp.roll(wide, shift, axis=2)).reshape(x.shape).astype(coupling.dtype)
    return -4 * coupling[None, :] * (both - 1)
