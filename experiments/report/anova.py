"""What explains the differences within a complete grid: the exact functional decomposition of its variance.

With y(p, s) at point p = (a, b, ...) and seed s, every subset S of the fields and the seed has a component

    f_S = sum over T in S of (-1)^(|S| - |T|) m_T,      m_T the mean of y over everything outside of T

and the variances of the components add up to that of all y (Hoeffding 1948; Hooker 2007). Components of fields alone
are main effects and interactions; that of the seed alone is common to all points; those of the seed with fields are
noise. Noise leaves something in the other components too: of k points and n seeds, with s^2 the mean square of the
noise and d_S the degrees of freedom of S, it leaves d_S s^2 / (k n) in f_S on average.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PLAIN = 4.0


@dataclass(frozen=True)
class Component:
    """share: of the variance; by_noise: the share that noise alone leaves there on average."""

    fields: tuple[str, ...]
    share: float
    by_noise: float


@dataclass(frozen=True)
class Decomposition:
    """All shares add up to 1."""

    components: tuple[Component, ...]
    seeds: float
    noise: float

    def together(self) -> list[tuple[str, str, float]]:
        """Pairs of fields whose interaction is above PLAIN times what noise leaves there, and its share. The field that
        explains more by itself comes first. None of one seed, which does not show its noise."""
        alone = {part.fields[0]: part.share for part in self.components if len(part.fields) == 1}
        found = []
        for part in self.components:
            if len(part.fields) == 2 and part.by_noise and part.share > PLAIN * part.by_noise:
                first, second = sorted(part.fields, key=lambda name: -alone[name])
                found.append((first, second, part.share))
        return found


def decomposition(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], objective: str) -> Decomposition | None:
    """None where some point lacks a seed, or has it twice, or where nothing varies."""
    array = _array(rows, fields, objective)
    if array is None or float(array.var()) <= 1e-18 * float(np.abs(array).max()) ** 2:
        return None
    axes = range(array.ndim)
    means = {subset: _mean(array, subset) for size in range(array.ndim + 1) for subset in _subsets(axes, size)}
    squares = {}
    for subset in means:
        inner = (part for size in range(len(subset) + 1) for part in _subsets(subset, size))
        component = sum((-1) ** (len(subset) - len(part)) * means[part] for part in inner)
        squares[subset] = float(np.mean(np.square(component)))
    total, seed = float(array.var()), array.ndim - 1
    noise = sum(square for subset, square in squares.items() if seed in subset and len(subset) > 1)
    points, seeds = array.size // array.shape[seed], array.shape[seed]
    mean_square = noise * points * seeds / ((points - 1) * (seeds - 1)) if seeds > 1 else 0.0
    components = []
    for subset, square in squares.items():
        if subset and seed not in subset:
            freedom = math.prod(array.shape[axis] - 1 for axis in subset)
            left = freedom * mean_square / (points * seeds)
            components.append(Component(tuple(fields[axis] for axis in subset), square / total, left / total))
    ordered = sorted(components, key=lambda component: -component.share)
    return Decomposition(tuple(ordered), squares[(seed,)] / total, noise / total)


def _array(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], objective: str) -> np.ndarray | None:
    """The objective over fields x seed; fields with one value have an axis of length 1."""
    levels = [list(dict.fromkeys(row[name] for row in rows)) for name in (*fields, "seed")]
    shape = tuple(map(len, levels))
    array = np.full(shape, np.nan)
    if len(rows) != array.size or array.size // shape[-1] < 2:
        return None
    for row in rows:
        where = tuple(level.index(row[name]) for level, name in zip(levels, (*fields, "seed"), strict=True))
        array[where] = row[objective]
    return None if np.isnan(array).any() else array


def _mean(array: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    return array.mean(axis=tuple(axis for axis in range(array.ndim) if axis not in kept), keepdims=True)


def _subsets(axes: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(axes, size))
