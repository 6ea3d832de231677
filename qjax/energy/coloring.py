"""Colouring and order of the sites of a coupling graph, made on the host.

Coupled sites get different colours, so that all sites of one colour can be updated at once. Sites are sorted by colour,
then by degree (number of neighbours), and each colour is cut into buckets of similar degree.
The colouring is greedy, largest degree first (Welsh and Powell 1967): at most (largest degree + 1) colours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Smaller buckets cost more in dispatch than they save in padding, unless their degrees differ much from the others'.
_SMALLEST_BUCKET = 64


class Layout(NamedTuple):
    """The order of n sites and the buckets that it is cut into.

    order    (n,) int64: sites sorted by colour, then by degree
    classes  for each colour, the sizes of its buckets; buckets follow one another in this order
    widths   for each colour, the largest degree in each of its buckets: its neighbour lists are padded to that length
    """

    order: np.ndarray
    classes: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...]


def color(n: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The colour of each of n sites, (n,) int64 from 0 on; coupled sites have different ones.

    rows, cols (E,): the two sites of every edge, each edge listed in both directions.
    """
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
    """The `Layout` of a graph of n sites: buckets hold similar degrees, so that padding stays small.

    rows, cols (E,): as in `color`.
    """
    if n == 0:
        return Layout(np.zeros(0, np.int64), (), ())
    colors = color(n, rows, cols)
    degree = np.bincount(rows, minlength=n)
    order = np.lexsort((degree, colors))
    classes, widths = [], []
    for chosen in range(int(colors.max()) + 1):
        degrees = degree[order[colors[order] == chosen]]  # ascending
        sizes, largest, start = [], [], 0
        while start < degrees.size:
            # A bucket takes degrees up to 1.25 times its smallest one, and up to twice that while it is under 64 sites
            # or where fewer than 64 would be left after it.
            close = int(np.searchsorted(degrees, max(1.25 * degrees[start], degrees[start] + 1), side="right"))
            double = int(np.searchsorted(degrees, 2 * degrees[start] + 2, side="right"))
            stop = max(close, min(start + _SMALLEST_BUCKET, double))
            if stop < double and degrees.size - stop < _SMALLEST_BUCKET:
                stop = double
            sizes.append(stop - start)
            largest.append(int(degrees[stop - 1]))
            start = stop
        classes.append(tuple(sizes))
        widths.append(tuple(largest))
    return Layout(order, tuple(classes), tuple(widths))
