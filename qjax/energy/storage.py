"""Qubos on disk: one .npz without pickle, written in one piece."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.energy.labels import Labels

if TYPE_CHECKING:
    from qjax.energy.qubo import Qubo

_FORMAT = "qjax-qubo-1"


def save_qubo(path: str | os.PathLike[str], qubo: Qubo) -> None:
    arrays: dict[str, Any] = {name: getattr(qubo, name) for name in ("offset", "linear", "scale")}
    header: dict[str, Any] = {"format": _FORMAT, "blocks": _encoded_blocks(qubo.labels)}
    if qubo.labels.kept is not None:
        arrays["kept"] = np.frombuffer(qubo.labels.kept, np.int64)
    match qubo.couplings:
        case Dense(matrix):
            header["couplings"], arrays["matrix"] = "dense", matrix
        case Gram(factor):
            header["couplings"], arrays["factor"] = "gram", factor
        case Sparse():
            header["couplings"] = "sparse"
            arrays["rows"], arrays["cols"], arrays["weights"] = qubo.couplings.edges()
        case Implicit():
            raise ValueError("implicit couplings are a function and cannot be saved; save couplings.to_dense() instead")
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    target = Path(path)
    # Not by tempfile, whose files are their owner's alone.
    partial_file = target.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        with open(partial_file, "xb") as stream:
            np.savez(stream, allow_pickle=False, **jax.device_get(arrays))
        os.replace(partial_file, target)
    except BaseException:
        partial_file.unlink(missing_ok=True)
        raise


def load_qubo(path: str | os.PathLike[str]) -> Qubo:
    from qjax.energy.qubo import Qubo

    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r}, expected {_FORMAT!r}")
        kept = arrays["kept"].tobytes() if "kept" in arrays else None
        labels = Labels(tuple((_decoded(name), tuple(shape)) for name, shape in header["blocks"]), kept)
        couplings = _couplings(header["couplings"], arrays)
        return Qubo.from_terms(arrays["linear"], couplings, arrays["offset"], arrays["scale"], labels)
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not a readable Qubo file: {error}") from error


def _couplings(kind: str, arrays: dict[str, np.ndarray]) -> Couplings:
    match kind:
        case "dense":
            return Dense(jnp.asarray(arrays["matrix"]))
        case "gram":
            return Gram(jnp.asarray(arrays["factor"]))
        case "sparse":
            return Sparse.from_edges(arrays["linear"].shape[-1], arrays["rows"], arrays["cols"], arrays["weights"])
    raise ValueError(f"unknown couplings {kind!r}")


def _encoded_blocks(labels: Labels) -> list[Any]:
    for name, _ in labels.blocks:
        if not (name is None or isinstance(name, str | int | tuple)):
            raise ValueError(f"only labels made of text, numbers and tuples can be saved, got {name!r}")
    return [[list(name) if isinstance(name, tuple) else name, shape] for name, shape in labels.blocks]


def _decoded(name: Any) -> Any:
    return tuple(_decoded(part) for part in name) if isinstance(name, list) else name
