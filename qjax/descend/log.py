"""The metrics of a long run: one file beside the checkpoints, which every save only appends to.

    folder/qjax-metrics     pieces, one a save: a line of JSON (name, shape and dtype of every array), then their bytes

A checkpoint records how far the file was written then (`End`), so a save costs what has come since the last one. What
lies beyond is of a save that was cut off, or of a newer checkpoint that cannot be read: it is never read, and the next
append removes it.
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_NAME, _BLOCK = "qjax-metrics", 2**20


class End(NamedTuple):
    """How far the file was written: its bytes, and their CRC-32."""

    size: int = 0
    checksum: int = 0


def append(folder: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], end: End) -> End:
    """Write a piece at `end`, on the disk when this returns the new end. Errors: OSError where it cannot be written."""
    listed = [[name, list(array.shape), str(array.dtype)] for name, array in arrays.items()]
    parts = [json.dumps(listed).encode() + b"\n", *(array.tobytes() for array in arrays.values())]
    path = Path(folder) / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.truncate(end.size)
        file.seek(end.size)
        for part in parts:
            file.write(part)
            end = End(end.size + len(part), zlib.crc32(part, end.checksum))
        file.flush()
        os.fsync(file.fileno())
    return end


def check(folder: str | os.PathLike[str], end: End) -> None:
    """ValueError where the file up to `end` is not what was written; OSError where it cannot be read."""
    checksum, left = 0, end.size
    if end == End():
        return
    with open(Path(folder) / _NAME, "rb") as file:
        while left and (block := file.read(min(left, _BLOCK))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
    if left or checksum != end.checksum:
        raise ValueError(f"the metrics in {_NAME} are not what was saved")


def read(folder: str | os.PathLike[str], end: End) -> dict[str, np.ndarray]:
    """The arrays of all pieces up to `end`, each name's one after another. Errors: as of `check`."""
    check(folder, end)
    pieces: dict[str, list[np.ndarray]] = {}
    if end != End():
        with open(Path(folder) / _NAME, "rb") as file:
            while file.tell() < end.size:
                for name, shape, dtype in json.loads(file.readline()):
                    kind = jnp.dtype(dtype)
                    flat = np.frombuffer(file.read(math.prod(shape) * kind.itemsize), kind)
                    pieces.setdefault(name, []).append(flat.reshape(shape))
    return {name: np.concatenate(parts) for name, parts in pieces.items()}
