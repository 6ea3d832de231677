"""Checkpoints: a flat dict of arrays and a JSON record, written by Orbax in one piece, read back only if intact.

    folder/00000007/   the newest; folder/00000006/ the one before, kept in case the newest cannot be read

A save makes a new numbered folder (Orbax writes beside it and renames), then deletes the ones before the last two. So a
process killed at any moment leaves a folder that `restore` reads. Each array's CRC-32 is stored in the record.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Arrays = dict[str, np.ndarray]

KEPT = 2
_NUMBER = re.compile(r"\d{8}")
_RECORD = "record"


class Restored(NamedTuple):
    """`arrays` by name, the JSON `record`, and one line for each newer checkpoint that could not be read."""

    arrays: Arrays
    record: dict[str, Any]
    discarded: tuple[str, ...]


def save(folder: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> Path:
    """Write a checkpoint and return its folder; OSError where it cannot be written (full disk, no permission)."""
    import orbax.checkpoint as ocp

    root = Path(folder).absolute()
    stored = {name: array for name, array in arrays.items() if array.size}  # Orbax refuses arrays of no elements
    header = {
        "arrays": {name: [list(array.shape), str(array.dtype), _checksum(array)] for name, array in arrays.items()},
        "record": dict(record),
    }
    payload = json.dumps(header).encode()
    stored[_RECORD] = np.frombuffer(payload + zlib.crc32(payload).to_bytes(4, "little"), np.uint8)
    try:
        root.mkdir(parents=True, exist_ok=True)
        present = _numbered(root)
        target = root / f"{int(present[-1].name) + 1 if present else 0:08d}"
        ocp.PyTreeCheckpointer().save(target, stored)
    except OSError as error:
        raise OSError(error.errno, f"cannot write a checkpoint to {root}: {error}") from error
    except Exception as error:  # the storage layer reports a full disk as a ValueError of its own
        raise OSError(f"cannot write a checkpoint to {root}: {error}") from error
    for old in present[: len(present) + 1 - KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    for partial in root.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(partial, ignore_errors=True)
    return target


def restore(folder: str | os.PathLike[str]) -> Restored | None:
    """The newest readable checkpoint, None where there never was one.

    A corrupt or truncated one is passed over and named in `discarded`; ValueError where none of them can be read.
    """
    root = Path(folder).absolute()
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder of checkpoints")
    discarded: list[str] = []
    for path in reversed(_numbered(root)):
        try:
            arrays, record = _read(path)
        except Exception as error:  # damage shows as any exception of the storage layer
            discarded.append(f"{path.name}: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}")
            continue
        return Restored(arrays, record, tuple(discarded))
    if discarded:
        raise ValueError(f"{root}: no checkpoint can be read ({'; '.join(discarded)}); delete the folder to start anew")
    return None


def flatten(tree: Tree, prefix: str) -> Arrays:
    """{prefix/leaf: array} on the host; random keys by their data."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(prefix, path): np.asarray(jax.device_get(_plain(leaf))) for path, leaf in named}


def unflatten(like: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
    """The tree that `flatten` took apart, in the structure of `like`; ValueError where names, shapes, dtypes differ."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    stored = {name for name in arrays if name.startswith(prefix + "/")}
    if unknown := stored - {_name(prefix, path) for path, _ in paths}:
        raise ValueError(f"the checkpoint holds {sorted(unknown)}, which this run does not have")
    leaves = []
    for path, leaf in paths:
        name = _name(prefix, path)
        plain = _plain(leaf)
        if name not in stored:
            raise ValueError(f"the checkpoint does not hold {name}")
        found = arrays[name]
        if found.shape != plain.shape or found.dtype != plain.dtype:
            raise ValueError(
                f"the checkpoint holds {name} as {found.dtype}{found.shape}, this run as {plain.dtype}{plain.shape}"
            )
        restored = jnp.asarray(found)
        leaves.append(restored if plain is leaf else jax.random.wrap_key_data(restored, impl=jax.random.key_impl(leaf)))
    return jax.tree_util.tree_unflatten(structure, leaves)


def with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays under `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix + "/"): array for name, array in arrays.items() if name.startswith(prefix + "/")}


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    import orbax.checkpoint as ocp

    stored = dict(ocp.PyTreeCheckpointer().restore(path))
    payload = np.asarray(stored[_RECORD]).tobytes()
    if zlib.crc32(payload[:-4]).to_bytes(4, "little") != payload[-4:]:
        raise ValueError("its record is damaged")
    header = json.loads(payload[:-4])
    arrays: Arrays = {}
    for name, (shape, dtype, checksum) in header["arrays"].items():
        array = np.asarray(stored[name]) if name in stored else np.zeros(shape, jnp.dtype(dtype))
        if list(array.shape) != shape or str(array.dtype) != dtype or _checksum(array) != checksum:
            raise ValueError(f"{name} is damaged")
        arrays[name] = array
    return arrays, header["record"]


def _numbered(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _NUMBER.fullmatch(path.name))


def _name(prefix: str, path: Any) -> str:
    return prefix + "/" + jax.tree_util.keystr(path, simple=True, separator="/")


def _plain(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())
