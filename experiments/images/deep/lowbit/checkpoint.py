"""The trained network that all methods make bits of: trained once for a results folder, then read from there.

It is the network of a row of `cifar10-conv`, by the same function, with the same numbers. Its file is named by all that
decides them: configuration, method, seed, data, device, versions, and the code that trains.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from filelock import FileLock

from experiments.data.sources import title
from experiments.harness import artefacts
from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import Progress, plain, plain_errors, unheard, write_atomic
from experiments.images.deep import networks, recipe, training
from experiments.images.deep.training import Deep
from qjax.descend import step

_trained: dict[tuple[Deep, str, int], Checkpoint] = {}


class Checkpoint(NamedTuple):
    """variables: {"params", "batch_stats"}; final, validation: accuracies (percent); seconds: of the training."""

    variables: Any
    final: float
    validation: float
    seconds: float


def checkpoint(config: Deep, method: str, seed: int, progress: Progress = unheard) -> Checkpoint:
    """That of this row: from this process, else from the folder of `artefacts`, else trained and kept there.

    Errors: StoreError where it cannot be written.
    """
    known = config, method, seed
    if known not in _trained:
        folder = artefacts.folder()
        _trained[known] = _train(*known, progress, None) if folder is None else _stored(*known, progress, folder)
    return _trained[known]


def _stored(config: Deep, method: str, seed: int, progress: Progress, folder: Path) -> Checkpoint:
    path = folder / f"{method}-{seed}-{_digest(config, method, seed)}.npz"
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()  # another process that trains it is waited for
    with lock:
        found = _read(path)
        if found is None:
            unfinished = path.with_suffix(".unfinished")
            found = _train(config, method, seed, progress, unfinished)
            _write(path, found)
            shutil.rmtree(unfinished, ignore_errors=True)
    return found


def _train(config: Deep, method: str, seed: int, progress: Progress, folder: Path | None) -> Checkpoint:
    """In the folder its state is kept, from which it goes on where the process was killed."""
    kept: list[Any] = []

    def heard(fraction: float, text: str = "", standing: Any = None) -> None:
        progress(fraction, "checkpoint")  # its evaluations are none of the cell's

    outcome = training.run(config, method, seed, heard, folder, kept.append)
    results = outcome["results"]
    return Checkpoint(kept[0], results["final"], results["validation"], outcome["timed"]["seconds"])


def _digest(config: Deep, method: str, seed: int) -> str:
    made = environment.made_by(environment.environment())
    made.pop("code")  # of everything; what trains is less, and minutes are lost where it is trained again
    facts = [plain(config), method, seed, title(config.dataset), made]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    folder = Path(str(step.__file__)).parent
    for file in (
        *(Path(str(module.__file__)) for module in (networks, recipe, training)),
        *sorted(folder.glob("*.py")),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _write(path: Path, found: Checkpoint) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(found.variables)
    arrays: dict[str, Any] = {"/".join(key.key for key in where): np.asarray(leaf) for where, leaf in leaves}
    arrays |= {name: np.float64(value) for name, value in found._asdict().items() if name != "variables"}
    content = io.BytesIO()
    np.savez(content, **arrays)
    with plain_errors(path.parent):
        write_atomic(path, content.getvalue())


def _read(path: Path) -> Checkpoint | None:
    """None where there is none, or a damaged one."""
    try:
        # Opened here, for np.load would leave a damaged file open.
        with path.open("rb") as file, np.load(file) as content:
            arrays = {name: content[name] for name in content.files}
        numbers = {name: float(arrays.pop(name)) for name in Checkpoint._fields[1:]}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        *path_to, leaf = name.split("/")
        node = variables
        for part in path_to:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(array)
    return Checkpoint(variables, **numbers)
