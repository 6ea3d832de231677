"""Labels: for every bit, the parameter leaf and the index inside it that the bit belongs to.

Labels are static and hashable: part of the structure of a Qubo, not of its arrays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Labels:
    """The labels of n bits, in order.

    arrays  pairs (name, shape), each for prod(shape) bits in C order. The label of a bit is (name, index in the shape);
            the bare name where the shape is (); the bit's number 0 .. n-1 for the pair (None, (n,))
    kept    None for all of these bits, else the positions of those that remain, as the bytes of an int64 vector
            (bytes compute their hash once, a tuple every time)
    """

    arrays: tuple[tuple[Hashable, tuple[int, ...]], ...]
    kept: bytes | None = None

    @staticmethod
    def range(n: int) -> Labels:
        """The numbers 0 .. n-1."""
        return Labels(((None, (n,)),))

    @staticmethod
    def of_names(names: Iterable[Hashable]) -> Labels:
        """One bit per name; the names 0 .. n-1 in order become `Labels.range(n)`."""
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
        """The labels of the bits at positions (k,), on the host."""
        chosen = np.asarray(positions, np.int64)
        return Labels(self.arrays, (chosen if self._positions is None else self._positions[chosen]).tobytes())
