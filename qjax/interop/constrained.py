"""`dimod.ConstrainedQuadraticModel` to a Qubo and its blocks, for constraints that are discrete or linear equalities.

A constraint that asks for k ones among some bits (all coefficients equal) becomes a block where it shares no bit with
another; N rows and N columns of a square that all ask for a single one become an assignment. Every other equality
a.x = b becomes a penalty P ((a.x - b) / u)^2: u is the greatest common divisor of whole coefficients, else the smallest
of them; P the largest change of the objective by one flip over random states (qjax.energy.penalties.flip_range).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from qjax.energy import blocks as made
from qjax.energy import groups, penalties
from qjax.energy.blocks import Blocks
from qjax.energy.labels import Labels
from qjax.energy.terms import Terms
from qjax.interop.discrete import Formulated


class _Equality(NamedTuple):
    """coefficients.x[bits] = value"""

    name: Any
    bits: np.ndarray
    coefficients: np.ndarray
    value: float
    discrete: bool

    @property
    def ones(self) -> int | None:
        """k where the constraint asks for k ones among its bits, which some state has."""
        c = self.coefficients
        if not c.size or (c != c[0]).any():
            return None
        k = self.value / c[0]
        return int(k) if k == round(k) and 0 <= k <= c.size else None


def from_cqm(cqm: Any, form: str | None = None) -> Formulated:
    """The Qubo of a constrained model, labelled by its variables, in their order; form: as `qjax.interop.bqm.from_bqm`.

    decode: values of the variables, -1 and 1 of spins. The Qubo's energies are the objective's where all constraints
    hold. Errors: ValueError naming a variable that is neither binary nor spin, and a constraint that is an inequality,
    quadratic, soft, or that no state of its variables fulfils.
    """
    names = list(cqm.variables)
    spin = np.array([cqm.vartype(v).name == "SPIN" for v in names], bool)
    for v in names:
        if cqm.vartype(v).name not in ("SPIN", "BINARY"):
            kind = cqm.vartype(v).name.lower()
            raise ValueError(f"variable {v!r} is {kind}: models of binary and spin variables are taken")
    binary = cqm.spin_to_binary(inplace=False) if spin.any() else cqm
    place = {v: bit for bit, v in enumerate(names)}
    equalities = [_equality(name, constraint, place) for name, constraint in binary.constraints.items()]
    terms = _objective(binary.objective, place)
    blocks, others = _kept(equalities)
    qubo = terms.qubo(form, Labels.of_names(names))
    if others:
        sums = [pair for family in blocks.families for pair in family.sums()]
        weight = float(penalties.flip_range(qubo, sums))
        for equality in others:
            terms = _with_penalty(terms, equality, weight)
        qubo = terms.qubo(form, qubo.labels)

    def decode(bits: Any) -> np.ndarray:
        x = np.asarray(bits)
        return np.where(spin, 2 * x - 1, x).astype(np.int8)

    return Formulated(qubo, blocks, decode, tuple(equality.name for equality in others))


def _equality(name: Any, constraint: Any, place: dict[Any, int]) -> _Equality:
    left = constraint.lhs
    if constraint.sense.name != "Eq":
        raise ValueError(f"constraint {name!r} is an inequality: discrete constraints and linear equalities are taken")
    if any(bias for _, _, bias in left.iter_quadratic()):
        raise ValueError(f"constraint {name!r} is quadratic: discrete constraints and linear equalities are taken")
    if left.is_soft():
        raise ValueError(f"constraint {name!r} is soft: add it to the objective as a penalty instead")
    pairs = [(place[v], bias) for v, bias in left.iter_linear() if bias]
    bits, coefficients = np.array([bit for bit, _ in pairs], np.int64), np.array([bias for _, bias in pairs], float)
    value = float(constraint.rhs) - float(left.offset)
    least, most = (float(part.sum()) for part in (np.minimum(coefficients, 0), np.maximum(coefficients, 0)))
    slack = 1e-9 * max(abs(value), -least, most)
    if not least - slack <= value <= most + slack:
        raise ValueError(f"constraint {name!r} cannot hold: its sum lies in {least:g} .. {most:g}, not at {value:g}")
    return _Equality(name, bits, coefficients, value, left.is_discrete())


def _objective(objective: Any, place: dict[Any, int]) -> Terms:
    linear = np.zeros(len(place))
    for v, bias in objective.iter_linear():
        linear[place[v]] = bias
    edges = np.array([(place[u], place[v], bias) for u, v, bias in objective.iter_quadratic()], float).reshape((-1, 3))
    own = edges[:, 0] == edges[:, 1]
    np.add.at(linear, edges[own, 0].astype(np.int64), edges[own, 2])
    rows, cols = edges[~own, :2].astype(np.int64).T
    return Terms(linear, rows, cols, edges[~own, 2], float(objective.offset))


def _kept(equalities: list[_Equality]) -> tuple[Blocks, list[_Equality]]:
    """(blocks, the constraints that they do not keep): squares first, then what is discrete, then in order."""
    asked = [(e, k) for e in equalities if (k := e.ones) is not None]
    single = {frozenset(e.bits.tolist()): e for e, k in asked if k == 1}
    blocks, done, used = Blocks(), set[int](), set[int]()
    for square in _squares(list(single)):
        blocks += made.assignment(square)
        used |= set(square.reshape(-1).tolist())
        done |= {id(single[frozenset(line)]) for side in (square, square.T) for line in side.tolist()}
    for e, k in sorted(asked, key=lambda pair: not pair[0].discrete):
        bits = set(e.bits.tolist())
        if id(e) not in done and not bits & used:
            blocks += made.one_hot([e.bits]) if k == 1 else made.choose([e.bits], k)
            used |= bits
            done.add(id(e))
    return blocks, [e for e in equalities if id(e) not in done]


def _squares(sets: list[frozenset[int]]) -> list[np.ndarray]:
    """Squares of bits (N, N) of which each row and each column is one of the sets, and which no other set enters."""
    lines = [np.array(sorted(one)) for one in sets if len(one) > 1]
    if not lines:
        return []
    n = 1 + max(int(line.max()) for line in lines)
    pairs = np.concatenate([np.stack([line[at] for at in np.triu_indices(line.size, 1)]) for line in lines], axis=1)
    low, high = np.divmod(np.unique(pairs[0] * n + pairs[1]), n)
    known, crowd = set(sets), np.zeros(n, int)
    for one in sets:
        crowd[list(one)] += 1
    found = []
    for part in groups.components(n, low, high):
        square = None if part.clique or (crowd[part.bits] != 2).any() else groups.rectangle(part.bits, low, high)
        if square is not None and len(square) == square.shape[1]:
            sides = [frozenset(line) for side in (square, square.T) for line in side.tolist()]
            found += [square] if all(side in known for side in sides) else []
    return found


def _with_penalty(terms: Terms, equality: _Equality, weight: float) -> Terms:
    """terms + weight ((a.x - b) / u)^2"""
    a, b = equality.coefficients, equality.value
    if not a.size:
        return terms
    whole = bool((a == np.rint(a)).all())
    unit = math.gcd(*(int(c) for c in a)) if whole else float(np.abs(a).min())
    a, b = a / unit, b / unit
    first, second = np.triu_indices(a.size, 1)
    n, linear = terms.linear.size, terms.linear.copy()
    linear[equality.bits] += weight * (a * a - 2 * b * a)
    rows = np.concatenate([terms.rows, equality.bits[first]])
    cols = np.concatenate([terms.cols, equality.bits[second]])
    weights = np.concatenate([terms.weights, 2 * weight * a[first] * a[second]])
    key, inverse = np.unique(np.minimum(rows, cols) * n + np.maximum(rows, cols), return_inverse=True)
    merged = np.bincount(inverse, weights, key.size)
    return Terms(linear, key // n, key % n, merged, terms.offset + weight * b * b)
