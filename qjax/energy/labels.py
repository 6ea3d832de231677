"""Bit labels: the leaf, and the index inside it, that a bit belongs to. Static and hashable: they ride along in jit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Labels:
    """Bits in order: for each array (name, shape) its prod(shape) bits in C order.

    An array of shape () gives its bit the bare name, the array (None, (n,)) gives 0 .. n-1, any other (name, index).
    `kept` restricts the bits to some positions: the bytes of an int64 vector (bytes hash once, a tuple every time).
    """

    arrays: tuple[tuple[Hashable, tuple[int, ...]], ...]
    kept: bytes | None = None

    @staticmethod
    def range(n: int) -> Labels:
        return Labels(((None, (n,)),))

    @staticmethod
    def of_names(names: Iterable[Hashable]) -> Labels:
        """One bit a name; the names 0 .. n-1 in order become a range."""
        listed = list(names)
        if listed == list(range(len(listed))):
            return Labels.range(len(listed))
        return Labels(tuple((name, ()) for name in listed))

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0] + [prod(shape) for _, shape in self.arrays])

    @cached_property
    def _positions(self) -> np.ndarray | None:
        return None if self.kept is None else np.frombuffer(self.kept, np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._positions is None else int(self._positions.size)

    def __getitem__(self, bit: int) -> Any:
        """The label of a bit. Errors: IndexError outside 0 .. n-1."""
        if not 0 <= bit < len(self):
            raise IndexError(f"bit {bit} of {len(self)}")
        place = bit if self._positions is None else int(self._positions[bit])
        array = int(np.searchsorted(self._starts, place, side="right")) - 1
        name, shape = self.arrays[array]
        if not shape:
            return name
        index = tuple(int(i) for i in np.unravel_index(place - int(self._starts[array]), shape))
        return index[0] if name is None and len(shape) == 1 else (name, index)

    def select(self, positions: np.ndarray) -> Labels:
        """The labels of some of the bits."""
        chosen = np.asarray(positions, np.int64)
        return Labels(self.arrays, (chosen if self._positions is None else self._positions[chosen]).tobytes())
