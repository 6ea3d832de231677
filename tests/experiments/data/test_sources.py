"""Data sets: names, copies, shares that cover everything, and folders that cannot be read."""

import io
from pathlib import Path

import numpy as np
import pytest

from experiments.data import decoding, prepare, sources


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        sources.load("cifar-10")
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        sources.title("digit")


def test_every_source_has_a_title_and_classes() -> None:
    assert {"cifar10", "cifar100", "fashion_mnist", "mnist", "digits"} <= set(sources.SOURCES)
    assert all(source.title and source.num_classes >= 10 for source in sources.SOURCES.values())


def test_digits_are_split_without_overlap_and_decoded_once() -> None:
    digits = sources.load("digits")
    assert sources.load("digits") is digits
    assert digits.train_images.shape == (1500, 8, 8, 1) and digits.test_images.shape == (297, 8, 8, 1)
    assert digits.train_images.dtype == np.uint8 and digits.train_labels.dtype == np.int32
    assert set(np.unique(digits.train_labels)) == set(range(10))
    assert digits.title.startswith("digits")


@pytest.mark.parametrize(("size", "shares"), [(10, 3), (7, 7), (5, 8), (50000, 2)])
def test_shares_cover_every_row_once(size: int, shares: int) -> None:
    rows = [row for share in range(shares) for row in range(*decoding.bounds(size, share, shares))]
    assert rows == list(range(size))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("PNG", "RGB"), ("JPEG", "RGB")])
def test_images_decode_to_height_width_channels(kind: str, mode: str) -> None:
    from PIL import Image

    pixels = np.full((6, 4) if mode == "L" else (6, 4, 3), 77, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    decoded = decoding.decode(file.getvalue())
    assert decoded.shape == (6, 4, 1 if mode == "L" else 3)
    np.testing.assert_allclose(decoded, 77, atol=2)
    assert decoding.format_of(file.getvalue()) == kind.lower()


def test_nothing_prepared_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(sources.DataUnavailable, match=r"CIFAR-10: nothing prepared in .*cifar10") as caught:
        sources.load("cifar10")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10").write_text("not a folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(sources.DataUnavailable, match="CIFAR-10: cannot read") as caught:
        sources.load("cifar10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ask", [sources.load, sources.title])
def test_a_damaged_folder_is_one_clear_line(ask: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{ truncated")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(sources.DataUnavailable, match="CIFAR-10: cannot read") as caught:
        ask("cifar10")  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_the_prepared_copy_is_read_whole_and_named() -> None:
    if not prepare.is_prepared("cifar10"):
        with pytest.raises(sources.DataUnavailable):
            sources.load("cifar10")
        return
    cifar = sources.load("cifar10")
    assert cifar.train_images.shape == (50000, 32, 32, 3) and cifar.test_images.shape == (10000, 32, 32, 3)
    assert np.bincount(cifar.test_labels).tolist() == [1000] * 10
    assert cifar.title == sources.title("cifar10") and cifar.title.startswith("CIFAR-10")
