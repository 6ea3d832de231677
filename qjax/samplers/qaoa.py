"""The quantum approximate optimisation algorithm (Farhi, Goldstone, Gutmann 2014, arXiv:1411.4028), simulated
exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from qjax.energy.qubo import Qubo
from qjax.samplers.contract import Outcome, Sampler, Task, one_of, positive
from qjax.samplers.gates import angles as published
from qjax.samplers.gates import statevector
from qjax.samplers.moves import streams

# Of unweighted Max-Cut on a 3-regular graph: 3/2 edges per bit, each cut or not, which is a variance of 1/4.
_VARIANCE_PER_BIT = 3 / 8


class Cost(NamedTuple):
    """E = mean + unit c(s),  c(s) = fields.s + factor/2 s'(couplings)s,  s = 2x - 1

    fields (*batch, n); couplings (n, n), shared, largest entry 1, zero diagonal; factor, unit, mean (*batch).
    mean: of E over all states; unit: the energy that `QAOA` counts c in. Neither enumerates states.
    """

    fields: jax.Array
    couplings: jax.Array
    factor: jax.Array
    unit: jax.Array
    mean: jax.Array


def cost_of(qubo: Qubo) -> Cost:
    """The cost of a Qubo, any batch. In spins E/scale has the variance sum h^2 + sum_{i<j} J^2 over all states."""
    ising, n, dtype = qubo.ising(), qubo.num_bits, qubo.linear.dtype
    whole = ising.factor * ising.couplings.to_dense(dtype)
    couplings = jnp.where(jnp.eye(n, dtype=bool), jnp.zeros((), dtype), whole)
    # Divided by the largest before they are squared: squares of huge and tiny coefficients overflow or vanish.
    strongest = jnp.max(jnp.abs(couplings))
    peak = jnp.maximum(jnp.max(jnp.abs(ising.fields), axis=-1), strongest)
    peak = jnp.where(peak > 0, peak, jnp.ones_like(peak))
    strongest = jnp.where(strongest > 0, strongest, jnp.ones_like(strongest))
    couplings = couplings / strongest
    pairs = 0.5 * (couplings**2).sum() * (strongest / peak) ** 2
    size = peak * jnp.sqrt((((ising.fields / peak[..., None]) ** 2).sum(-1) + pairs) / (_VARIANCE_PER_BIT * n))
    size = jnp.where(size > 0, size, jnp.ones_like(size))
    sign = jnp.sign(qubo.scale)
    mean = qubo.scale * (ising.offset + 0.5 * jnp.trace(whole))
    fields = (sign / size)[..., None] * ising.fields
    return Cost(fields, couplings, sign * strongest / size, jnp.abs(qubo.scale) * size, mean)


class _Prepared(NamedTuple):
    costs: jax.Array  # (P, 2^n)
    mean: jax.Array  # (P,)
    unit: jax.Array  # (P,)
    optimizer: optax.GradientTransformation


class _State(NamedTuple):
    angles: jax.Array  # (P, 2, p)
    inner: Any  # of the optimiser, problems first
    best: jax.Array  # (P, 2, p)
    best_value: jax.Array  # (P,)


@dataclass(frozen=True)
class QAOA(Sampler):
    """A noiseless gate-based quantum computer of n qubits: shots from the state of num_layers phases and mixers

        |g, b> = prod_k exp(i b_k sum_i X_i) exp(-i g_k c) |+>,     c = (E - mean of E) / unit

    with angles trained to lower the expected energy (qjax.samplers.gates.statevector). unit gives c a variance over all
    states of 3/8 per bit, that of unweighted Max-Cut on a 3-regular graph: there c is minus the cut, up to a constant,
    and angles transfer between problems of other sizes and weights.

    num_steps: gradient steps (at each depth, for start="layerwise"); 0 trains nothing.
    optimizer: the name of an optax optimiser that takes a learning rate, or any GradientTransformation (then
        learning_rate is not used). learning_rate: of the named optimiser, in radians.
    start: "fixed": published angles for that case, interpolated past 11 layers; "layerwise": one layer first, then each
        depth from the one before by interpolation.
    angles: (gammas, betas) of another instance instead, in radians, such as its `info["angles"]`; interpolated where
        they are of fewer layers.
    shots_per_read: a read is the best of so many shots, and of its initial state where there is one (the circuit starts
        from |+> and cannot use it). return_states="last": the first shot as measured, initial states ignored.
    memory_limit: GiB for the states of all problems of a call; in float32 a problem takes 72 bytes times 2^n, so 25
        bits are the most by default. One more bit doubles the time of a step.
    info: angles (*batch, 2, num_layers), the best seen in training; expected_energy (*batch,) of one shot; unit
        (*batch,), in energy. Errors: ValueError where memory_limit is exceeded, or n > 30.
    """

    num_layers: int = 8
    num_steps: int = 100
    optimizer: Any = "adam"
    learning_rate: float = 0.02
    start: str = "fixed"
    angles: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    shots_per_read: int = 1
    return_states: str = "best"
    memory_limit: float = 4.0

    def __post_init__(self) -> None:
        positive("num_layers", self.num_layers)
        positive("shots_per_read", self.shots_per_read)
        if isinstance(self.num_steps, bool) or not isinstance(self.num_steps, int) or self.num_steps < 0:
            raise ValueError(f"num_steps must be an integer of at least 0, got {self.num_steps!r}")
        one_of("start", self.start, ("fixed", "layerwise"))
        if self.start == "layerwise" and self.num_steps == 0:
            raise ValueError("num_steps must be at least 1 for start='layerwise', which trains every depth")
        one_of("return_states", self.return_states, ("best", "last"))
        if not isinstance(self.optimizer, optax.GradientTransformation) and not (
            isinstance(self.optimizer, str) and callable(getattr(optax, self.optimizer, None))
        ):
            raise ValueError(f"optimizer must be an optax optimizer or the name of one, got {self.optimizer!r}")
        for name in ("learning_rate", "memory_limit"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        given = self.angles
        if given is None:
            return
        if not (isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, tuple) for part in given)):
            raise ValueError("angles must be a tuple of gammas and a tuple of betas")
        if len(given[0]) != len(given[1]) or not 1 <= len(given[0]) <= self.num_layers:
            raise ValueError(
                f"angles must have as many gammas as betas, 1 to num_layers={self.num_layers}, got {len(given[0])} and "
                f"{len(given[1])}"
            )
        if self.start == "layerwise":
            raise ValueError("angles and start='layerwise' exclude each other")

    def first_angles(self) -> jax.Array:
        """Angles (2, num_layers) before any training; layerwise: one layer, then zeros."""
        if self.angles is not None:
            return published.extended(jnp.asarray(self.angles), self.num_layers)
        if self.start == "fixed":
            return published.fixed(self.num_layers)
        return jnp.pad(published.fixed(1), ((0, 0), (0, self.num_layers - 1)))

    def length(self, task: Task) -> int:
        return self.num_steps * (self.num_layers if self.start == "layerwise" else 1)

    def prepare(self, task: Task) -> _Prepared:
        n, size = task.num_bits, task.qubo.linear.dtype.itemsize
        needed = statevector.FLOATS_PER_STATE * size * task.num_problems * 2**n / 2**30
        if needed > self.memory_limit or n > 30:
            raise ValueError(
                f"qubo has {n} bits: a statevector of 2^{n} amplitudes, {task.num_problems} of them, takes about "
                f"{needed:.3g} GiB here, over memory_limit={self.memory_limit:g}; `fix` bits, or use another sampler"
            )
        cost = cost_of(task.qubo)
        costs = jax.vmap(lambda h, f: statevector.spin_costs(h, f * cost.couplings))(cost.fields, cost.factor)
        optimizer = self.optimizer
        if isinstance(optimizer, str):
            optimizer = getattr(optax, optimizer)(self.learning_rate)
        return _Prepared(costs, cost.mean, cost.unit, optimizer)

    def init(self, task: Task, prepared: _Prepared) -> _State:
        dtype = prepared.costs.dtype
        first = jnp.broadcast_to(self.first_angles().astype(dtype), (task.num_problems, 2, self.num_layers))
        value = jnp.full(task.num_problems, jnp.inf, dtype)
        if self.num_steps == 0:
            value = jax.vmap(statevector.expectation)(first, prepared.costs)
        return _State(first, jax.vmap(prepared.optimizer.init)(first), first, value)

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        if self.start == "layerwise":
            state = self._deepened(prepared, t, state)
        value, gradient = jax.vmap(jax.value_and_grad(statevector.expectation))(state.angles, prepared.costs)
        if self.start == "layerwise":
            live = jnp.arange(self.num_layers) <= t // self.num_steps
            gradient = jnp.where(live[None, None, :], gradient, jnp.zeros_like(gradient))
        lower = value < state.best_value
        best = jnp.where(lower[:, None, None], state.angles, state.best)
        # Optax promotes dtypes in silence, which a program that embeds this may forbid.
        with jax.numpy_dtype_promotion("standard"):
            change, inner = jax.vmap(prepared.optimizer.update)(gradient, state.inner, state.angles)
        return _State(state.angles + change, inner, best, jnp.where(lower, value, state.best_value))

    def _deepened(self, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        """At the first step of each depth from 2 on: the best angles so far, grown by a layer, and a new optimiser."""

        def deeper() -> _State:
            angles = published.grown(state.best, t // self.num_steps)
            return state._replace(angles=angles, inner=jax.vmap(prepared.optimizer.init)(angles))

        return lax.cond((t > 0) & (t % self.num_steps == 0), deeper, lambda: state)

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        n, shots = task.num_bits, self.shots_per_read if self.return_states == "best" else 1
        seeds = streams.split(task.seeds, jnp.arange(shots))
        uniforms = streams.uniforms(seeds, 0, jnp.arange(2)).reshape((2, task.num_problems, -1))

        def measured(angles: jax.Array, costs: jax.Array, uniforms: jax.Array) -> jax.Array:
            weights = statevector.probabilities(statevector.evolved(angles, costs))
            numbers = statevector.drawn(weights, uniforms).reshape((-1, shots))
            chosen = jnp.argmin(costs[numbers], axis=1, keepdims=True)
            return jnp.take_along_axis(numbers, chosen, axis=1)[:, 0]

        numbers = jax.vmap(measured, in_axes=(0, 0, 1))(state.best, prepared.costs, uniforms)
        bits = statevector.bits_of(numbers.reshape(-1), n).T
        given = (task.initial,) if task.initial is not None and self.return_states == "best" else ()
        expected = prepared.mean + prepared.unit * state.best_value
        info = {"angles": state.best, "expected_energy": expected, "unit": prepared.unit}
        return Outcome((bits, *given), {}, info)
