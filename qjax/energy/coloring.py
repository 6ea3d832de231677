"""Greedy colouring of a coupling graph on the host, and the order of its sites: those to be updated at once, by degree.

Largest degree first (Welsh and Powell 1967): at most (largest degree + 1) colours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A bucket smaller than this costs more in dispatch than its padding would, unless its degrees lie far apart.
_SMALLEST_BUCKET = 64


class Layout(NamedTuple):
    """order (n,): sites by colour, then degree; classes: bucket sizes of each colour; widths: their padded degrees."""

    order: np.ndarray
    classes: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...]


def color(n: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """A colour (n,) for each site such that coupled sites differ; rows, cols list every edge in both directions."""
    by_row = np.argsort(rows, kind="stable")
    neighbours = cols[by_row]
    first = np.searchsorted(rows[by_row], np.arange(n + 1))
    degree = np.diff(first)
    colors = np.full(n, -1, np.int64)
    for site in np.argsort(-degree, kind="stable"):
        taken = set(colors[neighbours[first[site] : first[site + 1]]].tolist())
        chosen = 0
        while chosen in taken:
            chosen += 1
        colors[site] = chosen
    return colors


def layout_of(n: int, rows: np.ndarray, cols: np.ndarray) -> Layout:
    """Colour classes of the graph, each cut into buckets of similar degree so that padding stays small."""
    if n == 0:
        return Layout(np.zeros(0, np.int64), (), ())
    colors = color(n, rows, cols)
    degree = np.bincount(rows, minlength=n)
    order = np.lexsort((degree, colors))
    classes, widths = [], []
    for chosen in range(int(colors.max()) + 1):
        ladder = degree[order[colors[order] == chosen]]
        sizes, limits, start = [], [], 0
        while start < ladder.size:
            # Similar degrees share a bucket; up to twice the lightest degree where that fills it to 64 sites.
            close = int(np.searchsorted(ladder, max(1.25 * ladder[start], ladder[start] + 1), side="right"))
            near = int(np.searchsorted(ladder, 2 * ladder[start] + 2, side="right"))
            stop = max(close, min(start + _SMALLEST_BUCKET, near))
            if stop < near and ladder.size - stop < _SMALLEST_BUCKET:
                stop = near
            sizes.append(stop - start)
            limits.append(int(ladder[stop - 1]))
            start = stop
        classes.append(tuple(sizes))
        widths.append(tuple(limits))
    return Layout(order, tuple(classes), tuple(widths))
