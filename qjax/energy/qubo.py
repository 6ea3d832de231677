"""The QUBO: an energy over bits, as one pytree.

    E(x) = scale * (offset + linear.x + 1/2 x'Mx),     x in {0,1}^n,     M = couplings (see qjax.energy.couplings)

`scale` multiplies everything: offset, linear and M do not include it. So problems that differ in offset, linear and
scale can share one M: these three may have the same leading batch axes, for many problems in one Qubo.
Lower is better.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

from qjax.energy import compensated, storage
from qjax.energy import couplings as forms
from qjax.energy.couplings import Couplings, Dense, Gram, Implicit
from qjax.energy.entries import entries, terms
from qjax.energy.labels import Labels


class Ising(NamedTuple):
    """The energy of a Qubo in spins s = 2x - 1:  E = scale * (offset + fields.s + factor/2 s'Ms), factor = 1/4.

    offset (*batch), fields (*batch, n), couplings M of size n. They do not include the scale, which is the Qubo's.
    """

    offset: jax.Array
    fields: jax.Array
    couplings: Couplings
    factor: float = 0.25


@partial(register_dataclass, data_fields=["offset", "linear", "couplings", "scale"], meta_fields=["labels"])
@dataclass(frozen=True)
class Qubo:
    """E(x) = scale * (offset + linear.x + 1/2 x'Mx): `scale` multiplies everything, and no other field includes it.

    offset (*batch), linear (*batch, n), scale (*batch); couplings M of size n, shared by the batch; labels static.
    What `energies`, `fields`, `flips` and `to_matrix` return includes the scale; what `ising` returns does not.
    Made by `from_terms`, `from_matrix`, `from_ising` and `qjax.pull_back`.
    """

    offset: jax.Array
    linear: jax.Array
    couplings: Couplings
    scale: jax.Array
    labels: Labels

    @staticmethod
    def from_terms(
        linear: Any, couplings: Any, offset: Any = 0.0, scale: Any = 1.0, labels: Labels | None = None
    ) -> Qubo:
        """The Qubo scale * (offset + linear.x + 1/2 x'Mx): `scale` multiplies everything; the others do not include it.

        linear (*batch, n); couplings M: an operator of size n, or a symmetric matrix (n, n) with zero diagonal;
        offset, scale: scalars or (*batch); labels: 0 .. n-1 by default.
        Errors: ValueError for shapes that do not fit, NaN or infinity in a host or concrete array, a matrix that is not
        symmetric or has a diagonal.
        """
        linear = _floating("linear", linear)
        if linear.ndim == 0:
            raise ValueError("linear must have shape (*batch, n), got a scalar")
        batch, n = linear.shape[:-1], linear.shape[-1]
        if not isinstance(couplings, Couplings):
            couplings = Dense(_coupling_matrix("couplings", couplings, linear.dtype))
        else:
            couplings = _without_host_integers(couplings)
            _check_finite("couplings", couplings)
        if couplings.size != n:
            raise ValueError(f"couplings join {couplings.size} bits, linear has {n}")
        labels = Labels.range(n) if labels is None else labels
        if len(labels) != n:
            raise ValueError(f"labels name {len(labels)} bits, linear has {n}")
        terms = []
        for name, value in (("offset", offset), ("scale", scale)):
            value = _floating(name, value).astype(linear.dtype)
            if value.ndim and value.shape != batch:
                raise ValueError(f"{name} must be a scalar or have the batch shape {batch}, got {value.shape}")
            terms.append(jnp.broadcast_to(value, batch))
        return Qubo(terms[0], linear, couplings, terms[1], labels)

    @staticmethod
    def from_matrix(matrix: Any, offset: Any = 0.0, labels: Labels | None = None) -> Qubo:
        """E(x) = offset + x'Qx for matrix Q (n, n) in any triangle convention (only Q + Q' counts); scale is 1.

        matrix: an array (dense couplings), or on the host a SciPy sparse matrix or array, or a dictionary {(i, j): q}
        (sparse couplings where at most a sixth of the entries off the diagonal are coupled or n > 8192, else dense).
        Keys of a dictionary are bits, n being the highest of them + 1 or the number of `labels`; or names, which then
        label the bits in the order in which they come, or in that of `labels`.
        Errors: ValueError if Q is not square, holds NaN or infinity, or has keys that are no pairs of bits.
        """
        held = entries(matrix, labels)
        if held is not None:
            linear, couplings = terms(held)
            return Qubo.from_terms(linear, couplings, offset, labels=held.labels)
        q = _floating("matrix", matrix)
        if q.ndim != 2 or q.shape[0] != q.shape[1]:
            raise ValueError(f"matrix must be square, got shape {q.shape}")
        return Qubo.from_terms(jnp.diagonal(q), Dense(forms.zero_diagonal(q + q.T)), offset, labels=labels)

    @staticmethod
    def from_ising(fields: Any, couplings: Any, offset: Any = 0.0, labels: Labels | None = None) -> Qubo:
        """E = offset + fields.s + 1/2 s'Js with s = 2x - 1, as a Qubo of scale 4, whose M is then J itself.

        fields (*batch, n), offset: scalar or (*batch); couplings J: an operator of size n, or a symmetric matrix (n, n)
        with zero diagonal. Errors: as `from_terms`.
        """
        fields, offset = _floating("fields", fields), _floating("offset", offset)
        if not isinstance(couplings, Couplings):
            couplings = Dense(_coupling_matrix("couplings", couplings, fields.dtype))
        if couplings.size != fields.shape[-1]:
            raise ValueError(f"couplings join {couplings.size} spins, fields has {fields.shape[-1]}")
        sums = couplings.matvec(jnp.ones(couplings.size, fields.dtype))
        linear = 0.5 * fields - 0.5 * jnp.broadcast_to(sums, fields.shape)
        constant = 0.25 * (offset.astype(fields.dtype) - fields.sum(-1) + 0.5 * sums.sum())
        return Qubo.from_terms(linear, couplings, constant, scale=4.0, labels=labels)

    @property
    def num_bits(self) -> int:
        return int(self.linear.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return tuple(self.linear.shape[:-1])

    def energies(self, bits: Any) -> jax.Array:
        """E(x) = scale * (offset + linear.x + 1/2 x'Mx), (*batch, ...), for bits x (*batch, ..., n) of any dtype.

        In float32 the sum is compensated (qjax.energy.compensated): only the result is rounded, as a rule.
        Errors: ValueError for bits of another shape.
        """
        x = self._states(bits)
        like = jax.ShapeDtypeStruct(x.shape[:-1], x.dtype)
        offset, scale = self._spread(self.offset, like), self._spread(self.scale, like)
        return scale * compensated.value(self.couplings, self._spread(self.linear, x), offset, x)

    def fields(self, bits: Any) -> jax.Array:
        """dE/dx = scale * (linear + Mx) for bits x (*batch, ..., n), in their shape. The scale is included."""
        x = self._states(bits)
        return self._spread(self.scale[..., None], x) * (self._spread(self.linear, x) + self.couplings.matvec(x))

    def flips(self, bits: Any) -> jax.Array:
        """E(x with bit i flipped) - E(x) for every bit i = scale * ((1 - 2x)(linear + Mx) + 1/2 diag M).

        For bits x (*batch, ..., n), in their shape. The scale is included.
        Errors: ValueError where the couplings do not know their diagonal.
        """
        if self.couplings.diagonal is None:
            raise ValueError("flips need the diagonal of implicit couplings: pass diagonal= to Implicit")
        x = self._states(bits)
        half = 0.5 * jnp.broadcast_to(self.couplings.diagonal.astype(x.dtype), x.shape)
        return (1.0 - 2.0 * x) * self.fields(x) + self._spread(self.scale[..., None], x) * half

    def ising(self) -> Ising:
        """E in spins s = 2x - 1:  E = scale * (ising.offset + ising.fields.s + 1/8 s'Ms), for any batch.

        The scale is NOT included in the result: it stays `self.scale`.
        """
        sums = self.couplings.matvec(jnp.ones(self.num_bits, self.linear.dtype))
        fields = 0.5 * self.linear + 0.25 * jnp.broadcast_to(sums, self.linear.shape)
        return Ising(self.offset + 0.5 * self.linear.sum(-1) + 0.125 * sums.sum(), fields, self.couplings)

    def to_matrix(self) -> tuple[jax.Array, jax.Array]:
        """(constant, Q) with E(x) = constant + x'Qx: constant (), Q (n, n) symmetric. Both include the scale.

        Errors: ValueError for a batch.
        """
        self._single("to_matrix")
        half = 0.5 * self.couplings.to_dense(self.linear.dtype)
        return self.scale * self.offset, self.scale * (half + jnp.diag(self.linear))

    def fix(self, indices: Any, values: Any) -> Qubo:
        """E over the other n - k bits, with the bits at `indices` held at `values`.

        Held bits go into offset and linear; scale, which multiplies everything, stays as it is. Labels are those of the
        other bits. indices (k,), on the host; values (*batch, k) or (k,), of 0/1.
        Errors: ValueError for indices out of range or repeated, values of another shape, or not 0 or 1.
        """
        held = np.asarray(indices, np.int64).reshape(-1)
        if held.size and (held.min() < 0 or held.max() >= self.num_bits or np.unique(held).size != held.size):
            raise ValueError(f"indices must be distinct and in 0 .. {self.num_bits - 1}, got {held}")
        values = _as_floating(values).astype(self.linear.dtype)
        if values.shape[-1:] != held.shape or values.shape[:-1] not in ((), self.batch_shape):
            raise ValueError(f"values must have shape {(*self.batch_shape, held.size)}, got {values.shape}")
        if not isinstance(values, jax.core.Tracer) and not np.isin(np.asarray(values), (0, 1)).all():
            raise ValueError(f"values must be 0 or 1, got {np.asarray(values)}")
        keep = np.setdiff1d(np.arange(self.num_bits), held)
        values = jnp.broadcast_to(values, (*self.batch_shape, held.size))
        x = jnp.zeros_like(self.linear).at[..., held].set(values)
        image = self.couplings.matvec(x)
        offset = self.offset + ((self.linear + 0.5 * image) * x).sum(-1)
        linear = (self.linear + image)[..., keep]
        return Qubo(offset, linear, forms.restrict(self.couplings, keep), self.scale, self.labels.select(keep))

    def __add__(self, other: Qubo) -> Qubo:
        """E_self + E_other over the same bits; labels are those of the first.

        Where both have the same scale (under a trace: the same array), the sum keeps it. Otherwise each scale is
        multiplied into its offset, linear and M, and the sum has scale 1.
        Errors: ValueError for sizes or batches that differ, or for batches with different scales, whose sum would need
        one M per problem.
        """
        if self.linear.shape != other.linear.shape:
            raise ValueError(f"cannot add Qubos with linear terms {self.linear.shape} and {other.linear.shape}")
        if self.scale is other.scale or _same(self.scale, other.scale):
            merged = forms.add(self.couplings, other.couplings)
            return replace(self, offset=self.offset + other.offset, linear=self.linear + other.linear, couplings=merged)
        offset = self.scale * self.offset + other.scale * other.offset
        linear = self.scale[..., None] * self.linear + other.scale[..., None] * other.linear
        if self.batch_shape:
            raise ValueError("Qubos with a batch can be added only where their scales are the same array")
        merged = forms.add(forms.scaled(self.couplings, self.scale), forms.scaled(other.couplings, other.scale))
        return Qubo(offset, linear, merged, jnp.ones_like(self.scale), self.labels)

    def __mul__(self, factor: Any) -> Qubo:
        """factor * E for a scalar or (*batch) factor: only the scale changes, since it multiplies everything."""
        return replace(self, scale=self.scale * _as_floating(factor).astype(self.scale.dtype))

    __rmul__ = __mul__

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file (no pickle). Errors: ValueError for implicit couplings, OSError from the file system."""
        storage.write(path, storage.Parts(self.offset, self.linear, self.scale, self.couplings, self.labels))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Qubo:
        """Read what `save` wrote. Errors: ValueError naming a file that is truncated, corrupt or no Qubo."""
        parts = storage.read(path)
        try:
            return Qubo.from_terms(parts.linear, parts.couplings, parts.offset, parts.scale, parts.labels)
        except ValueError as error:
            raise storage.unreadable(path, error) from error

    def _states(self, bits: Any) -> jax.Array:
        """bits (*batch, ..., n) as an array of linear's dtype. ValueError for another shape."""
        x = _as_floating(bits, self.linear.dtype).astype(self.linear.dtype)
        batch = self.batch_shape
        if x.shape[-1:] != (self.num_bits,) or x.shape[: len(batch)] != batch or x.ndim <= len(batch):
            raise ValueError(f"bits must have shape {(*batch, '...', self.num_bits)}, got {x.shape}")
        return x

    def _spread(self, term: jax.Array, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        """term (*batch, *rest) broadcast to the shape of like, (*batch, *reads, *rest)."""
        batch = len(self.batch_shape)
        shape = term.shape[:batch] + (1,) * (like.ndim - term.ndim) + term.shape[batch:]
        return jnp.broadcast_to(term.reshape(shape), like.shape)

    def _single(self, name: str) -> None:
        """ValueError where there is a batch."""
        if self.batch_shape:
            raise ValueError(f"{name} takes one problem, this Qubo has the batch shape {self.batch_shape}")


def _floating(name: str, value: Any) -> jax.Array:
    """value as a floating-point array of its shape. ValueError where it is not finite."""
    array = _as_floating(value)
    _check_finite(name, array)
    return array


def _as_floating(value: Any, dtype: Any = None) -> jax.Array:
    """A floating array; what is not one becomes one of the dtype (None: JAX's default), on the host if it lies there:
    JAX would wrap integers beyond 32 bits."""
    on_device = any(isinstance(leaf, jax.Array) or hasattr(leaf, "__jax_array__") for leaf in jax.tree.leaves(value))
    array = jnp.asarray(value) if on_device else np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.zeros(0).dtype if dtype is None else dtype)
    return jnp.asarray(array)


def _without_host_integers(couplings: Couplings) -> Couplings:
    """The couplings with matrices of host integers as floating ones."""

    def converted(array: Any) -> Any:
        host = not isinstance(array, jax.Array) and np.issubdtype(np.asarray(array).dtype, np.integer)
        return _as_floating(array) if host else array

    match couplings:
        case Dense(matrix):
            return Dense(converted(matrix))
        case Gram(factor):
            return Gram(converted(factor))
        case Implicit(diagonal=diagonal) if diagonal is not None:
            return replace(couplings, diagonal=converted(diagonal))
    return couplings


def _check_finite(name: str, tree: Any) -> None:
    """ValueError for NaN or infinity in a concrete floating-point leaf; traced leaves pass."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            continue
        # Arrays in host memory are checked by NumPy: JAX would first compile two programs per shape.
        on_host = not isinstance(leaf, jax.Array) or {device.platform for device in leaf.devices()} == {"cpu"}
        # Evaluated at once, also inside jit, where the array is a constant.
        with jax.ensure_compile_time_eval():
            finite = bool((np.isfinite(np.asarray(leaf)) if on_host else jnp.isfinite(leaf)).all())
        if not finite:
            raise ValueError(f"{name} must be finite, got NaN or infinity")


def _coupling_matrix(name: str, value: Any, dtype: Any) -> jax.Array:
    """value as a matrix (n, n). ValueError where it is not square, finite, symmetric and of zero diagonal."""
    matrix = _floating(name, value).astype(dtype)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} must be a square matrix or an operator of qjax.energy.couplings; got shape {matrix.shape}"
        )
    if not isinstance(matrix, jax.core.Tracer):
        host = np.asarray(matrix)
        if np.any(np.diagonal(host) != 0):
            raise ValueError(f"{name} must have a zero diagonal: bits carry it in the linear term")
        if not np.array_equal(host, host.T):
            raise ValueError(f"{name} must be symmetric; Qubo.from_matrix takes any triangle convention")
    return matrix


def _same(a: jax.Array, b: jax.Array) -> bool:
    """Whether two scales are known to be equal: under a trace they are not known."""
    traced = isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer)
    return not traced and bool(np.array_equal(np.asarray(a), np.asarray(b)))
