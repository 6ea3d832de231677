"""Checkpoints: what was saved is read back, what is damaged is skipped or refused, a failed write is an OSError."""

import resource
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.descend.checkpoint import flatten, restore, save, unflatten


class Moments(NamedTuple):
    count: jax.Array
    mean: dict[str, jax.Array]


def arrays_of(value: int) -> dict[str, np.ndarray]:
    """Noise, which compression stores as it is: an overwritten byte then decodes without an error."""
    noise = np.random.default_rng(value).normal(size=(40, 50)).astype(np.float32)
    return {"state/w": noise, "state/step": np.asarray(value, np.int32)}


def numbered(folder: Path, number: int) -> Path:
    return folder / f"qjax-checkpoint_{number:08d}"


def damage(folder: Path, how: str) -> None:
    """Truncate, overwrite or delete the largest file of a checkpoint, or truncate its JSON."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    victim = folder / "description" / "metadata" if how == "json" else largest
    if how == "deleted":
        victim.unlink()
        return
    content = victim.read_bytes()
    middle = len(content) // 2
    wrong = bytes(255 - byte for byte in content[middle : middle + 64])
    victim.write_bytes(content[:middle] + (wrong + content[middle + 64 :] if how == "overwritten" else b""))


def test_tree_survives_with_every_kind_of_leaf(tmp_path: Path) -> None:
    tree = {
        "moments": Moments(jnp.asarray(3, jnp.int32), {"a/b": jnp.arange(6.0).reshape(2, 3)}),
        "half": jnp.asarray([1.5, -2.0], jnp.bfloat16),
        "empty": jnp.zeros((0, 4)),
        "key": jax.random.key(7),
        "bare": (jnp.asarray(True), None),
    }
    save(tmp_path / "new" / "folder", flatten(tree, "state") | {"other/x": np.ones(2)}, {"done": True, "n": [1]})
    found = restore(tmp_path / "new" / "folder")
    assert found is not None and found.record == {"done": True, "n": [1]} and found.discarded == ()
    back = unflatten(tree, found.arrays, "state")
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for new, old in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        assert new.dtype == old.dtype and new.shape == old.shape and bool((new == old).all())


def test_no_checkpoint_is_none_and_a_file_is_no_folder(tmp_path: Path) -> None:
    assert restore(tmp_path / "absent") is None
    assert restore(tmp_path) is None
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="not a folder"):
        restore(tmp_path / "file")


def test_newest_wins_and_only_two_are_kept(tmp_path: Path) -> None:
    for value in range(4):
        save(tmp_path, arrays_of(value), {})
    found = restore(tmp_path)
    assert found is not None and int(found.arrays["state/step"]) == 3
    assert sorted(tmp_path.iterdir()) == [numbered(tmp_path, 2), numbered(tmp_path, 3)]


@pytest.mark.parametrize("how", ["truncated", "overwritten", "deleted", "json"])
def test_damage_falls_back_to_the_one_before_and_then_is_refused(tmp_path: Path, how: str) -> None:
    for value in range(2):
        save(tmp_path, arrays_of(value), {})
    damage(numbered(tmp_path, 1), how)
    found = restore(tmp_path)
    assert found is not None and int(found.arrays["state/step"]) == 0
    assert len(found.discarded) == 1 and found.discarded[0].startswith("qjax-checkpoint_00000001: ")
    damage(numbered(tmp_path, 0), how)
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        restore(tmp_path)


def test_a_save_that_was_cut_off_is_ignored_and_cleared(tmp_path: Path) -> None:
    """Cut off before the new folder is renamed, or while the one that is no longer kept is being removed."""
    for value in range(2):
        save(tmp_path, arrays_of(value), {})
    (tmp_path / "qjax-checkpoint_00000002.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    damage(numbered(tmp_path, 0), "deleted")
    found = restore(tmp_path)
    assert found is not None and found.discarded == () and int(found.arrays["state/step"]) == 1
    save(tmp_path, arrays_of(2), {})
    found = restore(tmp_path)
    assert found is not None and int(found.arrays["state/step"]) == 2
    assert sorted(tmp_path.iterdir()) == [numbered(tmp_path, 1), numbered(tmp_path, 2)]


def test_files_and_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    strangers = [
        "20250101_baseline/log",
        "20250101/log",
        "17/log",
        "0",
        "12345678-notes.txt",
        "00000001",
        "20250102.json",
        "qjax-checkpoint_1/log",
        "qjax-checkpoint_00000001.txt",
        "qjax-checkpoint_baseline/log",
        "model.orbax-checkpoint-tmp/log",
    ]
    for name in strangers:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for value in range(4):
        save(tmp_path, arrays_of(value), {})
    assert [(tmp_path / name).read_text() for name in strangers] == strangers
    found = restore(tmp_path)
    assert found is not None and int(found.arrays["state/step"]) == 3
    assert len(list(tmp_path.iterdir())) == len(strangers) + 2


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((3,)), "v": jnp.zeros((1,))}, "does not hold state/v"),
        ({}, "holds .*state/w"),
        ({"w": jnp.zeros((4,))}, r"state/w as float32\(3,\), this run as float32\(4,\)"),
        ({"w": jnp.zeros((3,), jnp.int32)}, "as float32"),
    ],
)
def test_another_structure_is_refused_by_name(like: dict[str, jax.Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unflatten(like, flatten({"w": jnp.zeros((3,))}, "state"), "state")


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write a checkpoint"):
        save(tmp_path / "file" / "inside", arrays_of(1), {})


def test_a_full_disk_is_an_oserror_and_leaves_the_one_before(tmp_path: Path) -> None:
    """A limit on file sizes in place of a full disk: the write fails at the same point."""
    save(tmp_path, {"x": np.zeros(3)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="cannot write a checkpoint"):
            save(tmp_path, {"x": np.random.default_rng(0).normal(size=100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = restore(tmp_path)
    assert found is not None and found.arrays["x"].shape == (3,)
