"""Programming a processor: chains, gauges, a scale that fits its ranges, and anneal schedules.

physical model    h_q = h_i/|C_i|, J_pq = J_ij/K_ij between chains, -strength inside chains (see qjax.annealers.chains)
gauge             whole chains are flipped, s_i -> g_i s_i with g_i = +-1; couplings inside chains stay negative
scale             the largest f with all f h in h_range, all f J in j_range (or extended_j_range), and the sum of f J
                  over the couplers of each qubit in per_qubit_coupling_range
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from qjax.interop.dwave.cache import Chains
from qjax.interop.dwave.errors import OutOfRange

CHAIN_STRENGTHS = ("uniform_torque_compensation", "scaled")
_PREFACTORS = {"uniform_torque_compensation": 1.414, "scaled": 1.0}


class Programmed(NamedTuple):
    """A problem as it is submitted.

    models            one physical spin model per gauge, scaled by factor
    gauges            (G, n), values +-1
    strength          of the chains, in the problem's own units
    factor            f
    weakest           the smallest nonzero |coefficient| in device units, 0 where all are 0
    precision_bits    log2(range / weakest): the bits that the device's control needs to tell it from 0
    """

    models: list[Any]
    gauges: np.ndarray
    strength: float
    factor: float
    weakest: float
    precision_bits: float


def program(
    spin: Any,
    chains: Chains,
    device: Any,
    rule: str | float,
    prefactor: float | None,
    gauges: np.ndarray,
    auto_scale: bool,
    extended_range: bool,
) -> Programmed:
    """The physical models of a problem, one per gauge.

    spin: a dimod model in spins, with variables 0 .. n - 1. rule, prefactor: as in `chain_strength`. gauges (G, n):
    values +-1. Errors: OutOfRange where coefficients exceed the ranges and auto_scale is off.
    """
    from dwave.embedding import EmbeddedStructure

    strength = chain_strength(spin, rule, prefactor)
    structure = EmbeddedStructure(device.edgelist, dict(enumerate(chains)))
    models = []
    for gauge in gauges:
        flipped = spin.copy()
        for bit in np.flatnonzero(gauge < 0):
            flipped.flip_variable(int(bit))
        models.append(structure.embed_bqm(flipped, chain_strength=strength))
    # One factor for all gauges, so that all reads of a call are at the same effective temperature.
    factor = min(fitting_factor(model, device.properties, extended_range) for model in models)
    factor = factor if math.isfinite(factor) else 1.0
    if not auto_scale:
        if factor < 1.0:
            raise OutOfRange(f"coefficients are {1 / factor:.3g} times too large for the device's ranges")
        factor = 1.0
    for model in models:
        model.scale(factor)
    weakest, precision = _precision(models[0], device.properties)
    return Programmed(models, gauges, strength, factor, weakest, precision)


def chain_strength(spin: Any, rule: str | float, prefactor: float | None) -> float:
    """The strength of the chains in the problem's own units: rule, where it is a number, else by the function of that
    name in dwave.embedding.chain_strength."""
    if not isinstance(rule, str):
        return float(rule)
    from dwave.embedding import chain_strength as rules

    return float(getattr(rules, rule)(spin, prefactor=_PREFACTORS[rule] if prefactor is None else prefactor))


def fitting_factor(model: Any, properties: Any, extended_range: bool) -> float:
    """The largest factor f that the device's ranges allow; infinity for a model whose coefficients are all 0."""
    vectors = model.to_numpy_vectors()
    couplings = np.asarray(vectors.quadratic.biases)
    limits = []
    if "h_range" in properties:
        limits.append((np.asarray(vectors.linear_biases), properties["h_range"]))
    j_range = properties.get("extended_j_range") if extended_range else None
    if j_range is None:
        j_range = properties.get("j_range")
    if j_range is not None:
        limits.append((couplings, j_range))
    if "per_qubit_coupling_range" in properties:
        count = model.num_variables
        sums = np.bincount(vectors.quadratic.row_indices, couplings, count)
        sums = sums + np.bincount(vectors.quadratic.col_indices, couplings, count)
        limits.append((sums, properties["per_qubit_coupling_range"]))
    factor = math.inf
    for values, (low, high) in limits:
        if values.size:
            factor = min(factor, _ratio(high, values.max()), _ratio(-low, -values.min()))
    # Slightly less, since factor * coefficient is rounded and the device has no tolerance.
    return factor * (1.0 - 2.0**-40)


def _ratio(limit: float, largest: float) -> float:
    """limit / largest; infinity where no coefficient has that sign."""
    return float(limit / largest) if largest > 0 else math.inf


def _precision(model: Any, properties: Any) -> tuple[float, float]:
    """(weakest, precision_bits) of `Programmed`."""
    vectors = model.to_numpy_vectors()
    weakest, bits = math.inf, 0.0
    for values, name in ((vectors.linear_biases, "h_range"), (vectors.quadratic.biases, "j_range")):
        sizes = np.abs(np.asarray(values))
        sizes = sizes[sizes > 0]
        if sizes.size and name in properties:
            low, high = properties[name]
            weakest = min(weakest, float(sizes.min()))
            bits = max(bits, math.log2((high - low) / float(sizes.min())))
    return (weakest if math.isfinite(weakest) else 0.0), bits


def pause(annealing_time: float, at: float, duration: float) -> tuple[tuple[float, float], ...]:
    """A forward schedule with a pause: (microseconds, s) points that stay at s = `at` for `duration` microseconds.

    annealing_time: microseconds of the schedule without the pause.
    """
    reached = annealing_time * at
    return (0.0, 0.0), (reached, at), (reached + duration, at), (annealing_time + duration, 1.0)


def reverse(ramp: float, to: float, hold: float) -> tuple[tuple[float, float], ...]:
    """A reverse schedule of (microseconds, s) points: from s = 1 down to `to` in `ramp`, stay for `hold`, and back."""
    return (0.0, 1.0), (ramp, to), (ramp + hold, to), (2 * ramp + hold, 1.0)


def check_schedule(schedule: tuple[tuple[float, float], ...], properties: Any, from_states: bool) -> None:
    """Checks (microseconds, s) points. from_states: whether the call has initial states.

    Errors: ValueError for points that no processor accepts, for initial states without a reverse schedule, and for a
    reverse schedule without initial states.
    """
    times, fractions = [t for t, _ in schedule], [s for _, s in schedule]
    if len(schedule) < 2 or times[0] != 0 or any(b <= a for a, b in itertools.pairwise(times)):
        raise ValueError(f"anneal_schedule must begin at 0 us and go forward in time, got {schedule}")
    if any(not 0 <= s <= 1 for s in fractions) or fractions[-1] != 1:
        raise ValueError(f"anneal_schedule must keep s in 0 .. 1 and end at s = 1, got {schedule}")
    most = properties.get("max_anneal_schedule_points")
    if most is not None and len(schedule) > most:
        raise ValueError(f"anneal_schedule has {len(schedule)} points, the device takes {most}")
    limits = properties.get("annealing_time_range")
    if limits is not None and times[-1] > limits[1]:
        raise ValueError(f"anneal_schedule lasts {times[-1]} us, the device takes at most {limits[1]}")
    if (fractions[0] == 1) != from_states:
        need = "need an anneal_schedule that begins at s = 1 (see reverse)" if from_states else "are missing"
        raise ValueError(f"initial_states {need}: reverse annealing takes both, forward annealing neither")
