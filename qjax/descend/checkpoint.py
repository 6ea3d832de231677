"""Checkpoints: a flat dict of arrays and a JSON record, saved by Orbax's CheckpointManager, restored only if intact.

    folder/qjax-checkpoint_00000007/
        content        the bytes of all arrays one after the other, then a CRC-32 of them and of the description
        description    JSON: the record, and name, shape and dtype of every array

A save takes the next number and its folder is renamed into place when complete; the newest two are kept. A process
killed at any moment therefore leaves a folder that `restore` reads. Other files in the folder are left alone.

Why one array: Orbax verifies its indices but not the numbers, and refuses arrays of no elements; when one of several
arrays is damaged, the reads of the others fail later, in threads where nothing can catch the error.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Arrays = dict[str, np.ndarray]

KEPT = 2
_PREFIX, _DIGITS = "qjax-checkpoint", 8


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
    listed = [[name, list(array.shape), str(array.dtype)] for name, array in arrays.items()]
    description = {"record": dict(record), "arrays": listed}
    content = b"".join(array.tobytes() for array in arrays.values())
    content += _checksum(content, description)
    items = {
        "content": ocp.args.PyTreeSave({"bytes": np.frombuffer(content, np.uint8)}),
        "description": ocp.args.JsonSave(description),
    }
    try:
        with _manager(root) as manager:
            number = max(manager.all_steps(), default=-1) + 1
            manager.save(number, args=ocp.args.Composite(**items))
    except OSError as error:
        raise OSError(error.errno, f"cannot write a checkpoint to {root}: {error}") from error
    except Exception as error:  # Orbax's storage reports a full disk as a ValueError
        raise OSError(f"cannot write a checkpoint to {root}: {error}") from error
    return _path(root, number)


def restore(
    folder: str | os.PathLike[str], check: Callable[[dict[str, Any]], None] = lambda record: None
) -> Restored | None:
    """The newest intact checkpoint; None where the folder holds none.

    check: called with a checkpoint's record; raises where a file beside it, of which the record speaks, is damaged.
    Damaged ones that are newer are skipped, and named in `discarded`.
    Errors: ValueError where there are checkpoints, but none is intact; NotADirectoryError where folder is a file.
    """
    root = Path(folder).absolute()
    if not root.exists():
        return None
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder of checkpoints")
    discarded: list[str] = []
    with _manager(root) as manager:
        for number in sorted(manager.all_steps(), reverse=True):
            path = _path(root, number)
            try:
                arrays, record = _read(manager, number)
                check(record)
                return Restored(path, arrays, record, tuple(discarded))
            except Exception as error:  # Orbax raises errors of many types for damaged files
                discarded.append(f"{path.name}: {error}")
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


def _manager(root: Path) -> Any:
    """The CheckpointManager of a folder, which it makes."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT, step_prefix=_PREFIX, step_format_fixed_length=_DIGITS, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(root, options=options)


def _path(root: Path, number: int) -> Path:
    return root / f"{_PREFIX}_{number:0{_DIGITS}d}"


def _read(manager: Any, number: int) -> tuple[Arrays, dict[str, Any]]:
    """(arrays, record) of a checkpoint. Errors: ValueError, or Orbax's own, where it is damaged."""
    import orbax.checkpoint as ocp

    items = {"content": ocp.args.PyTreeRestore(), "description": ocp.args.JsonRestore()}
    found = manager.restore(number, args=ocp.args.Composite(**items))
    content, description = found.content["bytes"].tobytes(), found.description
    if content[-4:] != _checksum(content[:-4], description):
        raise ValueError("the arrays or the record are not what was saved")
    arrays, start = {}, 0
    for name, shape, dtype in description["arrays"]:
        flat = np.frombuffer(content, jnp.dtype(dtype), math.prod(shape), start)
        arrays[name], start = flat.reshape(shape), start + flat.nbytes
    return arrays, description["record"]


def _checksum(content: bytes, description: Mapping[str, Any]) -> bytes:
    """CRC-32 of content and description, 4 bytes."""
    return zlib.crc32(json.dumps(description, sort_keys=True).encode(), zlib.crc32(content)).to_bytes(4, "big")


def _name(prefix: str, path: Any) -> str:
    return prefix + "/" + jax.tree_util.keystr(path, simple=True, separator="/")


def _plain(leaf: Any) -> Any:
    """The leaf; of a random key, its key data."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
