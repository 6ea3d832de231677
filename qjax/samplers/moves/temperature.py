"""The range of inverse temperatures of a Qubo, found by looking at its local minima.

A few random states are quenched: descent at zero temperature. In the minima so reached, let g > 0 be the costs of
single flips, and m how many of them are equal to the smallest, g_min:

    hot    beta = 2 ln 2 / mean g: a flip of mean cost is accepted one time in four
    cold   sum_i g_i exp(-beta g_i) = 0.01 mean g, the sum averaged over the states: flips, taken as independent, hold
           less than a hundredth of one mean cost of energy
    warm   beta = sqrt(hot cold), where the anneal of given states begins

Where the m smallest costs rule the sum, cold = ln(m g_min / (0.01 mean g)) / g_min; where all are equal that is the
usual ln(m / 0.01) / g (the rule of dwave-samplers). Unlike bounds made of coefficients, both ends have the size of the
costs that the anneal will meet: with strongly correlated couplings (Gram matrices of features) max|dE| is hundreds of
times larger, and the smallest coefficient says nothing.

Moves of a group with a table of states, the digits of a number above all, cost up to (2^b - 1)^2 times as much as the
step to the next level, and hardly any of the dear ones is ever made. So of each such group only the cheapest move is
counted in `cold`, and in both numbers of `warm`: with all of them an anneal of two or three digits would end far too
hot, and would melt what it was given. In `hot` all are counted, for an anneal from random states goes through all
levels at first. Channels of a layer are problems with the same couplings, of which few states can be probed each, and
`warm` is uncertain by a factor of two: so all take the median of theirs, in units of |scale|, which holds the channel's
step. How these were chosen: docs/samplers.md.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import Blocks
from qjax.energy.finder import Found
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import acceptance, allowed, block_sweeps, found_sweeps, streams, swaps, sweeps
from qjax.samplers.moves.classes import Classes

_QUENCH_SWEEPS = 10
_HOT = 2 * math.log(2)
_PROBES = 16
# Bits probed in all, over states and problems: of large problems fewer states say as much.
_PROBED_BITS = 2**17
# Sparse couplings are quenched by passes over all bits at once, in which a random third of the flips that lower the
# energy are made: one kernel of sums to compile, where a sweep has one per colour class.
_QUENCH_PASSES = 40
_FLIPPED_PART = 1 / 3


def check_betas(name: str, betas: Any) -> None:
    """A tuple of finite betas >= 0, or None. Errors: ValueError naming the hyperparameter."""
    if betas is not None and not (
        isinstance(betas, tuple) and betas and all(math.isfinite(b) and b >= 0 for b in betas)
    ):
        raise ValueError(f"{name} must be a tuple of finite betas >= 0, got {betas!r}")


def check_range(beta_range: Any, geometric: bool = True) -> None:
    """(hot, cold) betas, or None. Errors: ValueError."""
    check_betas("beta_range", beta_range)
    if beta_range is None:
        return
    if len(beta_range) != 2 or beta_range[0] > beta_range[1]:
        raise ValueError(f"beta_range must be (hot, cold) with hot <= cold, got {beta_range}")
    if geometric and beta_range[0] == 0:
        raise ValueError("beta_range must start above 0 for a geometric schedule")


def range_of(
    qubo: Qubo,
    beta_range: tuple[float, float] | None,
    warm: bool,
    cardinality: int | None = None,
    blocks: Blocks | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(hot, cold), each (P,): those given, or the automatic ones."""
    if beta_range is None:
        return automatic_range(qubo, warm, cardinality, blocks)
    hot, cold = (jnp.full(qubo.batch_shape, b, qubo.linear.dtype) for b in beta_range)
    return hot, cold


def between(hot: jax.Array, cold: jax.Array, count: int, kind: str = "geometric") -> jax.Array:
    """`count` betas from hot to cold (P,), spaced "geometric" or "linear": (count, P). A single one is the cold end."""
    t = jnp.linspace(int(count == 1), 1, count, dtype=hot.dtype)[:, None]
    hot, cold = (jnp.broadcast_to(end[None, :], (count, end.shape[0])) for end in (hot, cold))
    if kind == "linear":
        return hot + t * (cold - hot)
    return jnp.exp(jnp.log(hot) + t * (jnp.log(cold) - jnp.log(hot)))


def automatic_range(
    qubo: Qubo, warm: bool = False, cardinality: int | None = None, blocks: Blocks | None = None
) -> tuple[jax.Array, jax.Array]:
    """(hot, cold) betas, each (P,), in 1/units of E, for a Qubo of batch (P,).

    With the costs g of this module's formula in units of E / |scale|, both ends are divided by |scale| (by 1 where it
    is 0). Where no flip costs anything, both are 2 ln 2 / |scale|.
    warm: the hot end is that of given states; of groups with listed states, both ends are the medians over the batch.
    cardinality: the number of ones that is kept; minima and costs are then those of exchanges of unlike bits.
    blocks: groups that are kept in their states; minima and costs are then those of moves of whole groups, of listed
        states the cheapest.
        Of groups that were found so, too, of the energy without their penalties; the cold end is one where single
        flips out of their states are as rare.
    Errors: ValueError for implicit couplings without a diagonal.
    """
    if isinstance(blocks, Found) and cardinality is None:
        hot, cold = automatic_range(found_sweeps.rest_of(blocks), warm, None, Blocks(blocks.families))
        return hot, jnp.maximum(cold, math.log(100 * qubo.num_bits) / blocks.least_weight)
    problems = qubo.batch_shape[0]
    probes = max(1, min(_PROBES, _PROBED_BITS // max(qubo.num_bits, 1)) // problems)

    def per_column(values: jax.Array) -> jax.Array:
        wide = jnp.broadcast_to(values[..., None], (*values.shape, probes))
        return wide.reshape((*values.shape[:-1], problems * probes))

    # A fixed key: the range is a property of the Qubo, not of the call.
    seeds = streams.seeds(jax.random.key(0), jnp.arange(probes, dtype=jnp.uint32), problems)
    bits = allowed.states(blocks, None, seeds, 0, qubo.num_bits)
    view: sweeps.Sweeper
    view = block_sweeps.sweeper(qubo, per_column, blocks) if cardinality is None else swaps.Swaps(qubo, per_column)
    sign = jnp.sign(per_column(qubo.scale))
    state = view.load(bits if cardinality is None else swaps.with_ones(bits, cardinality, seeds, 1))

    if isinstance(view, Classes):
        gaps = _gaps_of_masked_quench(view, state, seeds, sign)
    else:

        def quench(t: jax.Array, inner: Any) -> Any:
            return view.sweep(inner, acceptance.descend, sign, seeds, t)[0]

        state = lax.fori_loop(0, _QUENCH_SWEEPS, quench, state)
        gaps = view.gaps(state) * sign[None, :]
    listed = isinstance(view, block_sweeps.BlockSweeps) and view.listed
    least = view.costs(state, sign) if isinstance(view, block_sweeps.BlockSweeps) and listed else gaps
    largest = jnp.max(jnp.abs(gaps).reshape((-1, problems, probes)), axis=(0, 2))
    unit = jnp.where(largest > 0, largest, 1)

    def relative(costs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(costs above 0 in units of the largest gap (R, P, probes), 0 for others; their mean (P,))."""
        parts = jnp.maximum(costs.reshape((-1, problems, probes)) / unit[None, :, None], 0)
        counted = parts > 1e-6
        count = jnp.sum(counted, axis=(0, 2)).astype(parts.dtype)
        mean = jnp.where(count > 0, jnp.sum(parts, axis=(0, 2)) / jnp.maximum(count, 1), 1)
        return jnp.where(counted, parts, 0), mean

    costs, mean = relative(least)
    hot = _HOT / (mean if warm else relative(gaps)[1])

    def excess(beta: jax.Array) -> jax.Array:
        energy = costs * jnp.exp(-jnp.minimum(beta[None, :, None] * costs, 80))
        return jnp.sum(energy, axis=(0, 2)) / probes

    def bisect(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = jnp.sqrt(ends[0] * ends[1])
        above = excess(middle) > 0.01 * mean
        return jnp.where(above, middle, ends[0]), jnp.where(above, ends[1], middle)

    _, cold = lax.fori_loop(0, 30, bisect, (hot, hot * 1e6))
    cold = jnp.where(jnp.any(costs > 0, axis=(0, 2)), cold, hot)
    hot, cold = hot / unit, cold / unit
    if warm:
        hot = jnp.sqrt(hot * cold)
        if listed:
            hot, cold = (jnp.broadcast_to(jnp.median(end), end.shape) for end in (hot, cold))
    scale = jnp.abs(qubo.scale)
    to_energy = 1 / jnp.where(scale > 0, scale, 1)
    return hot * to_energy, cold * to_energy


def _gaps_of_masked_quench(view: Classes, state: jax.Array, seeds: jax.Array, sign: jax.Array) -> jax.Array:
    """Costs (n, C) of single flips in states close to minima: neighbours may flip together, fewer with each pass."""
    sites = jnp.arange(state.shape[0])

    def flip(t: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, _ = carry
        gaps = view.gaps(x) * sign[None, :]
        drawn = streams.uniforms(seeds, t + 1, sites) < _FLIPPED_PART
        flips = (gaps < 0) & drawn & (t < _QUENCH_PASSES)
        return jnp.where(flips, 1 - x, x), gaps

    # The last pass flips nothing, so that the costs belong to the states it leaves.
    start = (state, jnp.zeros(state.shape, sign.dtype))
    gaps: jax.Array = lax.fori_loop(0, _QUENCH_PASSES + 1, flip, start)[1]
    return gaps
