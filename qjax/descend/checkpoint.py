"""Checkpoints: a flat dict of arrays and a JSON record, written by Orbax whole or not at all, read back only if intact.

    folder/00000007/      the arrays, as Orbax writes them
    folder/00000007.json  the manifest, written last: the record, and size and CRC-32 of every file in folder/00000007

Every save takes the next number, and the newest two are kept. So a process that is killed at any moment leaves a folder
that `restore` can read, and a file that was damaged later is noticed before anything is read from it. Other files in
the folder are left alone.
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

# The names that a save makes: a number alone (arrays), or with the ending of a manifest, of a manifest half written, or
# of arrays that Orbax has half written.
_OWN = re.compile(r"([0-9]{8})(|\.json|\.json\.partial|\.orbax-checkpoint-tmp(?:-[0-9]+)?)")


class Restored(NamedTuple):
    """A checkpoint read back: its path, its arrays by name, its record, and `discarded`, one line per newer checkpoint
    that could not be read."""

    path: Path
    arrays: Arrays
    record: dict[str, Any]
    discarded: tuple[str, ...]


def save(folder: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> Path:
    """Write a checkpoint and return its path. Errors: OSError where it cannot be written (full disk, no permission)."""
    import orbax.checkpoint as ocp

    root = Path(folder).absolute()
    stored = {name: array for name, array in arrays.items() if array.size}  # Orbax refuses arrays of no elements
    empty = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items() if not array.size}
    try:
        root.mkdir(parents=True, exist_ok=True)
        used = [int(own[1]) for path in root.iterdir() if (own := _OWN.fullmatch(path.name))]
        target = root / f"{max(used, default=-1) + 1:08d}"
        if stored:
            ocp.PyTreeCheckpointer().save(target, stored)
        _write_manifest(target, {"record": dict(record), "empty": empty, "files": _files(target)})
    except OSError as error:
        raise OSError(error.errno, f"cannot write a checkpoint to {root}: {error}") from error
    except Exception as error:  # Orbax's storage reports a full disk as a ValueError
        raise OSError(f"cannot write a checkpoint to {root}: {error}") from error
    kept = [path.stem for path in _manifests(root) if _ours(path)][-KEPT:]
    for path in root.iterdir():  # deletes older ones, and what a killed process left unfinished
        own = _OWN.fullmatch(path.name)
        if own is None or (own[2] in ("", ".json") and (own[1] in kept or not _ours(path))):
            continue
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    return target


def restore(folder: str | os.PathLike[str]) -> Restored | None:
    """The newest intact checkpoint; None where the folder holds none.

    Damaged ones that are newer are skipped, and named in `discarded`.
    Errors: ValueError where there are checkpoints, but none is intact; NotADirectoryError where folder is a file.
    """
    root = Path(folder).absolute()
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder of checkpoints")
    discarded: list[str] = []
    for manifest in reversed(_manifests(root)):
        target = manifest.with_suffix("")
        try:
            arrays, record = _read(target)
        except (ValueError, KeyError, TypeError, OSError) as error:
            discarded.append(f"{target.name}: {error}")
            continue
        return Restored(target, arrays, record, tuple(discarded))
    if discarded:
        raise ValueError(f"{root}: no checkpoint can be read ({'; '.join(discarded)}); delete the folder to start anew")
    return None


def flatten(tree: Tree, prefix: str) -> Arrays:
    """{prefix/leaf name: array}, on the host; random keys as their key data."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(prefix, path): np.asarray(jax.device_get(_plain(leaf))) for path, leaf in named}


def unflatten(like: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
    """The inverse of `flatten`, in the structure of like. Errors: ValueError where names, shapes or dtypes differ."""
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
    """The arrays whose names begin with prefix/, by the rest of their names."""
    return {name.removeprefix(prefix + "/"): array for name, array in arrays.items() if name.startswith(prefix + "/")}


def _read(target: Path) -> tuple[Arrays, dict[str, Any]]:
    """(arrays, record) of the checkpoint at target. ValueError where a file is damaged or missing."""
    import orbax.checkpoint as ocp

    payload, _, checksum = target.with_suffix(".json").read_text().rpartition("\n")
    if checksum != _checksum(payload.encode()):
        raise ValueError(f"{target.name}.json is damaged")
    manifest = json.loads(payload)
    files = _files(target)
    if wrong := sorted(name for name in manifest["files"] if files.get(name) != manifest["files"][name]):
        raise ValueError(f"{target.name}/{wrong[0]} is damaged or missing")
    arrays = {name: np.zeros(shape, jnp.dtype(dtype)) for name, (shape, dtype) in manifest["empty"].items()}
    if files:
        arrays |= {name: np.asarray(array) for name, array in ocp.PyTreeCheckpointer().restore(target).items()}
    return arrays, manifest["record"]


def _write_manifest(target: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of the arrays at target, whole or not at all: JSON, then a line with its CRC-32."""
    payload = json.dumps(manifest)
    partial = target.with_suffix(".json.partial")
    with open(partial, "w") as stream:
        stream.write(payload + "\n" + _checksum(payload.encode()))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, target.with_suffix(".json"))


def _files(target: Path) -> dict[str, list[Any]]:
    """{path: [size, CRC-32]} of every file under target, by paths relative to it."""
    contents = {path: path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}
    return {str(path.relative_to(target)): [len(data), _checksum(data)] for path, data in contents.items()}


def _manifests(root: Path) -> list[Path]:
    return sorted(root.glob("[0-9]" * 8 + ".json")) if root.is_dir() else []


def _ours(path: Path) -> bool:
    """Whether the contents, too, are a checkpoint's: other files may have eight digits as their name, say a date."""
    if path.is_dir():
        return (path / "_CHECKPOINT_METADATA").exists()  # Orbax writes it first
    start = b'{"record": '
    with open(path, "rb") as stream:
        return stream.read(len(start)) == start


def _name(prefix: str, path: Any) -> str:
    return prefix + "/" + jax.tree_util.keystr(path, simple=True, separator="/")


def _plain(leaf: Any) -> Any:
    """The leaf; of a random key, its key data."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
