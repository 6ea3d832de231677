"""A Qubo's arrays, couplings and labels as one .npz file, without pickle. A file is written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.energy.labels import Labels

_FORMAT = "qjax-qubo-1"


class Parts(NamedTuple):
    """The fields of a `qjax.Qubo`: offset (*batch), linear (*batch, n), scale (*batch), which multiplies everything."""

    offset: Any
    linear: Any
    scale: Any
    couplings: Couplings
    labels: Labels


def write(path: str | os.PathLike[str], parts: Parts) -> None:
    """Write parts to path. Errors: ValueError for implicit couplings or labels that JSON cannot hold, OSError."""
    arrays: dict[str, Any] = {"offset": parts.offset, "linear": parts.linear, "scale": parts.scale}
    header: dict[str, Any] = {"format": _FORMAT, "labels": _encoded(parts.labels)}
    if parts.labels.kept is not None:
        arrays["kept"] = np.frombuffer(parts.labels.kept, np.int64)
    match parts.couplings:
        case Dense(matrix):
            header["couplings"], arrays["matrix"] = "dense", matrix
        case Gram(factor):
            header["couplings"], arrays["factor"] = "gram", factor
        case Sparse():
            header["couplings"] = "sparse"
            arrays["rows"], arrays["cols"], arrays["weights"] = parts.couplings.edges()
        case Implicit():
            raise ValueError("implicit couplings are a function and cannot be saved; save couplings.to_dense() instead")
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    target = Path(path)
    # Not by tempfile, whose files only their owner may read.
    partial_file = target.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        with open(partial_file, "xb") as stream:
            np.savez(stream, allow_pickle=False, **jax.device_get(arrays))
        os.replace(partial_file, target)
    except BaseException:
        partial_file.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> Parts:
    """What `write` wrote. Shapes and values are not checked here, only the format.

    Errors: ValueError naming the file where it is damaged or no such file, OSError where it cannot be opened.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r}, expected {_FORMAT!r}")
        kept = arrays["kept"].tobytes() if "kept" in arrays else None
        labels = Labels(tuple((_decoded(name), tuple(shape)) for name, shape in header["labels"]), kept)
        couplings = _couplings(header["couplings"], arrays)
        return Parts(arrays["offset"], arrays["linear"], arrays["scale"], couplings, labels)
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """The error to raise for a file that is no Qubo."""
    return ValueError(f"{os.fspath(path)} is not a readable Qubo file: {error}")


def _couplings(kind: str, arrays: dict[str, np.ndarray]) -> Couplings:
    """The couplings from the arrays of the file: matrix (n, n), factor (N, n), or rows, cols, weights (E,)."""
    match kind:
        case "dense":
            return Dense(jnp.asarray(arrays["matrix"]))
        case "gram":
            return Gram(jnp.asarray(arrays["factor"]))
        case "sparse":
            return Sparse.from_edges(arrays["linear"].shape[-1], arrays["rows"], arrays["cols"], arrays["weights"])
    raise ValueError(f"unknown couplings {kind!r}")


def _encoded(labels: Labels) -> list[Any]:
    """`labels.arrays` for JSON, names that are tuples as lists; `_decoded` inverts it name by name."""
    for name, _ in labels.arrays:
        if not (name is None or isinstance(name, str | int | tuple)):
            raise ValueError(f"only labels made of text, numbers and tuples can be saved, got {name!r}")
    return [[list(name) if isinstance(name, tuple) else name, shape] for name, shape in labels.arrays]


def _decoded(name: Any) -> Any:
    return tuple(_decoded(part) for part in name) if isinstance(name, list) else name
