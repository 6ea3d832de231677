"""A noise model around any sampler: the errors of an annealer's analogue control and readout, without an annealer.

    E = h.s + 1/2 s'Js                          the problem in spins, less its constant
    f = min(h_max / max|h|, j_max / max|J|)     the scale factor that fills the ranges of the device
    h' = [f h]_b + sigma_h z                    [.]_b rounds to the nearest of 2^b - 1 levels of the range,
    J' = [f J]_b + sigma_j z                    z is standard normal
    E' = (h'.s + 1/2 s'J's) / f                 what the sampler anneals

Each qubit is then misread with probability readout_error. z is drawn once per problem and call, as if the device were
programmed once: all reads share it. The z of a coupling depends on the key and on its two bits only, so the dense and
the sparse form of a problem get the same noise. Energies returned are those of the true Qubo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from qjax.annealers.chains import Chip, MissingEdge, torque_strength
from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.samplers.arguments import check_blocks, check_call
from qjax.samplers.constraints import Constraints
from qjax.samplers.moves import streams
from qjax.samplers.samples import Samples

# Reads are counted from 0 and never reach this index: the noise has a random stream of its own, and the sampler gets
# the key that it would get without noise.
_STREAM = 0xFFFFFFFF


@dataclass(frozen=True)
class Noisy:
    """`sampler` on a device with b-bit coefficients, noise and readout errors.

    With all fields at their defaults, the bits for one problem are those of `sampler` itself.

    precision_bits    b >= 2; None for exact coefficients
    sigma_h, sigma_j  standard deviations of the noise, in device units: those of h_max and j_max
    readout_error     probability that a qubit is misread, in [0, 1/2]
    h_max, j_max      the largest |h| and |J| of the device
    chip              `qjax.annealers.Chip`: the sampler anneals its qubits, and bits are majority votes of their chains
    chain_strength    in the units of the problem's J; None: uniform torque compensation

    info: that of `sampler`, scale_factor () = f, and with a chip chain_break_fraction (reads,).
    Errors: ValueError for fields out of range, and for couplings that are neither dense nor sparse; `MissingEdge` for a
    coupling without a coupler on the chip.
    """

    sampler: Any
    precision_bits: int | None = None
    sigma_h: float = 0.0
    sigma_j: float = 0.0
    readout_error: float = 0.0
    h_max: float = 4.0
    j_max: float = 1.0
    chip: Chip | None = None
    chain_strength: float | None = None

    def __post_init__(self) -> None:
        bits = self.precision_bits
        if bits is not None and not (isinstance(bits, int) and bits >= 2):
            raise ValueError(f"precision_bits must be an integer of at least 2, or None, got {bits!r}")
        for name in ("sigma_h", "sigma_j"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if not 0.0 <= self.readout_error <= 0.5:
            raise ValueError(f"readout_error must lie in 0 .. 1/2, got {self.readout_error!r}")
        for name in ("h_max", "j_max"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")

    @property
    def is_host(self) -> bool:
        return bool(getattr(self.sampler, "is_host", False))

    def __call__(
        self,
        key: jax.Array,
        qubo: Qubo,
        num_reads: int = 64,
        initial_states: Any = None,
        blocks: Blocks | None = None,
    ) -> Samples:
        """`Samples`, see `qjax.samplers.contract`; initial_states are of the problem's n bits, not of qubits. Blocks
        are kept by penalties, which are programmed with the problem.

        The problems of a batch are programmed one by one, each with noise of its own.
        """
        key, num_reads, initial = check_call(key, qubo, num_reads, initial_states)
        check_blocks(key, qubo, num_reads, initial_states, blocks)
        constraints, own = Constraints.of((), qubo, blocks), qubo
        qubo = qubo if constraints is None or constraints.penalised is None else constraints.penalised
        if not isinstance(qubo.couplings, Dense | Sparse):
            kind = type(qubo.couplings).__name__
            raise ValueError(f"a noise model needs each coupling: pass dense or sparse couplings, not {kind}")
        if self.chip is not None:
            self.chip.check(qubo)
        bare = replace(qubo, labels=Labels.range(qubo.num_bits))
        run = _programmed if self.is_host else _jitted
        if not qubo.batch_shape:
            bits, read_info, info = run(self, num_reads, key, bare, initial)
        else:
            bits, read_info, info = self._batch(run, num_reads, key, bare, initial)
        if constraints is not None:
            read_info["feasible"] = constraints.blocks.feasible(bits)
        return Samples(bits, own.energies(bits), {**info, **read_info}, frozenset(read_info))

    def _batch(self, run: Any, num_reads: int, key: jax.Array, qubo: Qubo, initial: jax.Array | None) -> Any:
        batch, n = qubo.batch_shape, qubo.num_bits
        flat = (qubo.offset.reshape(-1), qubo.linear.reshape((-1, n)), qubo.scale.reshape(-1))
        starts = None if initial is None else initial.reshape((-1, num_reads, n))
        count = flat[0].shape[0]
        keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(jnp.arange(count, dtype=jnp.uint32))

        def one(key: jax.Array, terms: Any, start: jax.Array | None) -> Any:
            single = replace(qubo, offset=terms[0], linear=terms[1], scale=terms[2])
            return run(self, num_reads, key, single, start)

        if self.is_host:
            answers = [one(*jax.tree.map(lambda leaf, p=p: leaf[p], (keys, flat, starts))) for p in range(count)]
            stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *answers)
        else:
            stacked = jax.vmap(one)(keys, flat, starts)
        return jax.tree.map(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), stacked)


def _programmed(
    noisy: Noisy, num_reads: int, key: jax.Array, qubo: Qubo, initial: jax.Array | None
) -> tuple[jax.Array, dict[str, Any], dict[str, Any]]:
    """(bits (num_reads, n), info by read, other info) of one problem, programmed once. initial: (num_reads, n) or
    None."""
    device = replace(noisy, sampler=None)
    program, couplings, coin, flip = (jax.random.fold_in(jax.random.fold_in(key, _STREAM), k) for k in range(4))
    noised, factor = _analogue(device, program, couplings, qubo)
    if noisy.chip is not None and initial is not None:
        initial = initial[:, noisy.chip.owner]
    samples = noisy.sampler(key, noised, num_reads, initial)
    bits, broken = _read_out(device, coin, flip, samples.bits)
    return bits, {**samples.read_info, **broken}, {**samples.call_info, "scale_factor": factor}


@partial(jax.jit, static_argnums=0)
def _analogue(noisy: Noisy, program: jax.Array, couplings: jax.Array, qubo: Qubo) -> tuple[Qubo, jax.Array]:
    """(the problem that the device anneals, f ()). program, couplings: keys of the noise of h and of J."""
    spins = _scaled(qubo)
    if noisy.chip is not None:
        spins = _embedded(noisy, spins)
    fields, coupled = _ising(spins)
    largest_h, largest_j = jnp.max(jnp.abs(fields), initial=0.0), _largest(coupled)
    limits = jnp.stack([_ratio(noisy.h_max, largest_h), _ratio(noisy.j_max, largest_j)])
    factor = jnp.where(jnp.isfinite(limits.min()), limits.min(), 1.0)
    if noisy.precision_bits is None and not noisy.sigma_h and not noisy.sigma_j:
        return qubo if noisy.chip is None else spins, factor
    # Differences are added instead of replacing values, so that exact coefficients stay the same in every bit.
    normals = jax.random.normal(program, fields.shape)
    change_h = _change(noisy, fields, noisy.h_max / factor, noisy.sigma_h / factor, normals)
    change_j = _coupling_changes(noisy, coupled, factor, couplings)
    linear = spins.linear + 2.0 * change_h - 2.0 * change_j.matvec(jnp.ones_like(change_h))
    return replace(spins, linear=linear, couplings=_summed(spins.couplings, change_j)), factor


@partial(jax.jit, static_argnums=0)
def _read_out(noisy: Noisy, coin: jax.Array, flip: jax.Array, bits: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """(bits (reads, n) with readout errors, after the votes of the chains, info by read) of bits (reads, qubits)."""
    wrong = jax.random.bernoulli(flip, noisy.readout_error, bits.shape)
    bits = jnp.where(wrong, 1 - bits, bits)
    if noisy.chip is None:
        return bits, {}
    voted, broken = noisy.chip.vote(coin, bits)
    return voted, {"chain_break_fraction": broken}


_jitted = partial(jax.jit, static_argnums=(0, 1))(_programmed)


def _scaled(qubo: Qubo) -> Qubo:
    """The same energy with scale 1."""
    match qubo.couplings:
        case Sparse() as c:
            weights = tuple(qubo.scale * w.astype(qubo.scale.dtype) for w in c.weights)
            couplings: Any = replace(c, weights=weights, integer_dtype=None)
        case c:
            couplings = Dense(qubo.scale.astype(qubo.linear.dtype) * c.to_dense().astype(qubo.linear.dtype))
    return replace(
        qubo,
        offset=qubo.scale * qubo.offset,
        linear=qubo.scale * qubo.linear,
        couplings=couplings,
        scale=jnp.ones_like(qubo.scale),
    )


def _embedded(noisy: Noisy, qubo: Qubo) -> Qubo:
    """The problem of scale 1 on the qubits of the chip, without its offset."""
    assert noisy.chip is not None
    fields, _ = _ising(qubo)
    logical = 0.25 * qubo.couplings.to_dense().astype(fields.dtype)
    given = noisy.chain_strength
    strength = torque_strength(logical) if given is None else jnp.asarray(given, fields.dtype)
    h, j = noisy.chip.spread(fields, logical, strength)
    linear = 2.0 * h - 2.0 * j.sum(-1)
    return Qubo(jnp.zeros_like(qubo.offset), linear, Dense(4.0 * j), qubo.scale, Labels.range(h.shape[0]))


def _ising(qubo: Qubo) -> tuple[jax.Array, Dense | Sparse]:
    """(h (n,), J) of a problem of scale 1, J in the form of its couplings: M / 4."""
    match qubo.couplings:
        case Sparse() as c:
            coupled: Dense | Sparse = replace(c, weights=tuple(0.25 * w for w in c.weights))
        case c:
            coupled = Dense(0.25 * c.to_dense())
    return qubo.ising().fields, coupled


def _largest(couplings: Dense | Sparse) -> jax.Array:
    """max |J|, (); 0 where there are no couplings."""
    parts = couplings.weights if isinstance(couplings, Sparse) else (couplings.matrix,)
    return jnp.stack(
        [jnp.zeros(()), *(jnp.max(jnp.abs(p), initial=0.0).astype(jnp.zeros(0).dtype) for p in parts)]
    ).max()


def _ratio(limit: float, largest: jax.Array) -> jax.Array:
    """limit / largest, (); infinity for largest = 0."""
    return jnp.where(largest > 0, limit / jnp.where(largest > 0, largest, 1.0), jnp.inf)


def _change(noisy: Noisy, values: jax.Array, limit: jax.Array, sigma: jax.Array, normals: jax.Array) -> jax.Array:
    """What quantisation and noise add to values (...) within +-limit; normals (...): standard normal numbers."""
    change = jnp.zeros_like(values)
    if noisy.precision_bits is not None:
        step = (limit / (2 ** (noisy.precision_bits - 1) - 1)).astype(values.dtype)
        change = jnp.round(values / step) * step - values
    return change + sigma.astype(values.dtype) * normals.astype(values.dtype)


def _coupling_changes(noisy: Noisy, couplings: Dense | Sparse, factor: jax.Array, key: jax.Array) -> Dense | Sparse:
    """dJ, in the form of the couplings; 0 where they are 0."""
    limit, sigma = noisy.j_max / factor, noisy.sigma_j / factor

    def changed(values: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
        normals = _pair_normals(key, rows, cols) if noisy.sigma_j else jnp.zeros_like(values)
        # A pair that is not coupled has no noise.
        return jnp.where(values != 0, _change(noisy, values, limit, sigma, normals), jnp.zeros_like(values))

    if isinstance(couplings, Dense):
        sites = jnp.arange(couplings.size)
        rows, cols = jnp.broadcast_arrays(sites[:, None], sites[None, :])
        return Dense(changed(couplings.matrix, rows, cols))
    weights, start = [], 0
    for index, weight in zip(couplings.neighbours, couplings.weights, strict=True):
        size = index.shape[0]
        rows = jnp.broadcast_to(couplings.order[start : start + size, None], index.shape)
        weights.append(changed(weight, rows, couplings.order[index]))
        start += size
    return replace(couplings, weights=tuple(weights))


def _pair_normals(key: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """A standard normal number for each pair of sites, the same for (i, j) and (j, i). rows, cols: of equal shapes."""
    seed = streams.seeds(key, jnp.zeros(1, jnp.uint32), 1)

    def draw(low: jax.Array, high: jax.Array) -> jax.Array:
        return streams.uniforms(seed, high, low[None])[0, 0]

    low, high = jnp.minimum(rows, cols).reshape(-1), jnp.maximum(rows, cols).reshape(-1)
    uniform: Any = jax.vmap(draw)(low, high)
    return (2.0**0.5 * jax.lax.erf_inv(2.0 * uniform - 1.0)).reshape(rows.shape)


def _summed(couplings: Any, change: Dense | Sparse) -> Dense | Sparse:
    """M + 4 dJ, in the form of dJ."""
    if isinstance(change, Dense):
        return Dense(couplings.to_dense() + 4.0 * change.matrix)
    weights = tuple(w + 4.0 * d for w, d in zip(couplings.weights, change.weights, strict=True))
    return replace(couplings, weights=weights)


__all__ = ["Chip", "MissingEdge", "Noisy"]
