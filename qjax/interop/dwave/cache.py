"""A cache of minor embeddings, by graph: in memory, and in a folder that processes may share.

The key is a digest of the problem's graph, the chip's qubits and couplers, the method and its seed, so problems whose
couplings differ only in value share an embedding. Files are written under another name and renamed when complete. A
lock per key makes a second process wait for the search of the first instead of repeating it. Chains read from disk are
checked against both graphs; a file with wrong or unreadable chains is replaced after a new search.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

Chains: TypeAlias = tuple[tuple[int, ...], ...]

_memory: dict[str, Chains] = {}
_guard = threading.Lock()


def key_of(source: np.ndarray, n: int, target: np.ndarray, nodes: np.ndarray, method: str, seed: int) -> str:
    """The key, as hexadecimal digits.

    source (m, 2), target (couplers, 2): the pairs that are coupled in the problem of n bits, and on the chip. nodes
    (qubits,): the chip's qubits.
    """
    digest = hashlib.sha256(f"qjax-embedding-1 {n} {method} {seed}".encode())
    for edges in (source, target):
        ordered = np.unique(np.sort(np.asarray(edges, np.int64).reshape(-1, 2), axis=1), axis=0)
        digest.update(str(ordered.shape).encode() + ordered.tobytes())
    digest.update(np.unique(np.asarray(nodes, np.int64)).tobytes())
    return digest.hexdigest()


def fetched(
    key: str, folder: str | None, valid: Callable[[Chains], bool], search: Callable[[], Chains]
) -> tuple[Chains, str]:
    """(chains, their origin: "memory", "disk" or "search").

    folder: None for memory only. valid: whether chains from disk fit. Errors: those of `search`; OSError.
    """
    with _guard:
        if key in _memory:
            return _memory[key], "memory"
    if folder is None:
        chains, source = search(), "search"
    else:
        from filelock import FileLock

        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{key}.json")
        with FileLock(os.path.join(folder, f"{key}.lock")):
            stored = _read(path, key)
            if stored is not None and valid(stored):
                chains, source = stored, "disk"
            else:
                chains, source = search(), "search"
                _write(path, key, chains)
    with _guard:
        _memory[key] = chains
    return chains, source


def forget() -> None:
    """Clears the cache in memory; folders keep their files."""
    with _guard:
        _memory.clear()


def _read(path: str, key: str) -> Chains | None:
    try:
        with open(path, "rb") as stream:
            stored = json.loads(stream.read())
        if stored["key"] != key:
            return None
        return tuple(tuple(int(q) for q in chain) for chain in stored["chains"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: str, key: str, chains: Iterable[Iterable[int]]) -> None:
    record: dict[str, Any] = {"key": key, "chains": [[int(q) for q in chain] for chain in chains]}
    with open(path + ".partial", "w") as stream:
        json.dump(record, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".partial", path)
