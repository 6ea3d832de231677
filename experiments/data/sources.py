"""Data sets by name, decoded once per process to uint8 arrays; a new one is one entry of `SOURCES`.

    data = load("cifar10");  data.train_images (N, H, W, C) uint8;  data.train_labels (N,) int32;  data.title

Prepared sets are read through TensorFlow Datasets' own folder (`TFDS_DATA_DIR`), without TensorFlow. `digits` is
embedded in scikit-learn. `title` names the copy: images stored as JPEG are not the official pixels.
"""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from experiments.data.decoding import SPLITS, first_format
from experiments.data.prepare import data_dir
from experiments.data.unavailable import DataUnavailable
from experiments.harness.presentation.environment import cores
from qjax.spelling import unknown

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Dataset:
    """Pixels (N, H, W, C) uint8 and labels (N,) int32 of both splits; seconds: what decoding took in this process."""

    name: str
    title: str
    num_classes: int
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    seconds: float = 0.0


@dataclass(frozen=True)
class Source:
    """How to get a data set: title and classes for people, and what reads it."""

    title: str
    num_classes: int
    read: Callable[[str, "Source"], Dataset]


def load(name: str) -> Dataset:
    """The data set, decoded at the first call of a process.

    Errors: ValueError for an unknown name (suggests the nearest), DataUnavailable where it cannot be read.
    """
    _source(name)
    return _load(name, str(data_dir()))


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]


def title(name: str) -> str:
    """The data set's name with that of its copy, by looking at one image. Errors: as `load`."""
    source = _source(name)
    return source.title if source.read is not prepared else _title(name, str(data_dir()))


@functools.cache
def _title(name: str, folder: str) -> str:
    source = _source(name)
    _found(name, source)
    try:
        return _copy(source, first_format(name))
    except Exception as error:  # a damaged folder surfaces as whatever TFDS's parsers raise
        raise DataUnavailable(f"{source.title}: cannot read {Path(folder) / name}: {_last_line(str(error))}") from error


@functools.cache
def _load(name: str, folder: str) -> Dataset:
    start = time.perf_counter()
    data = SOURCES[name].read(name, SOURCES[name])
    return replace(data, seconds=time.perf_counter() - start)


def prepared(name: str, source: Source) -> Dataset:
    """A set in TFDS's folder, decoded by one process per core. Errors: DataUnavailable."""
    _found(name, source)
    shares = [_Share(part) for part in _decoded(name, source.title, min(cores(), 8))]

    def joined(split: str) -> tuple[Array, Array]:
        pixels, labels = zip(*(share.splits[split] for share in shares), strict=True)
        return np.concatenate(pixels), np.concatenate(labels)

    copy, (train, test) = _copy(source, shares[0].file_format), (joined(split) for split in SPLITS)
    return Dataset(name, copy, source.num_classes, *train, *test)


def _copy(source: Source, file_format: str) -> str:
    return source.title + (", JPEG copy" if file_format == "jpeg" else "")


def _found(name: str, source: Source) -> None:
    folder = data_dir() / name
    try:
        versions = list(folder.iterdir())
    except FileNotFoundError:
        versions = []
    except OSError as error:
        raise DataUnavailable(f"{source.title}: cannot read {folder}: {error.strerror}") from error
    if not any((version / "dataset_info.json").is_file() for version in versions):
        raise DataUnavailable(f"{source.title}: nothing prepared in {folder} (`make data` prepares CIFAR-10)")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _decoded(name: str, title: str, shares: int) -> list[bytes]:
    """What the processes of `experiments.data.decoding` wrote, in order."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "experiments.data.decoding", name]
    processes = [
        subprocess.Popen(
            [*command, str(share), str(shares)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        for share in range(shares)
    ]
    try:
        outputs = _drain(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            line = _last_line(errors.decode(errors="replace"))
            raise DataUnavailable(f"{title}: cannot read {data_dir() / name}: {line}")
    return [output for output, _ in outputs]


def _drain(processes: list[subprocess.Popen[bytes]]) -> list[tuple[bytes, bytes]]:
    from concurrent.futures import ThreadPoolExecutor

    # A full pipe stops its writer, so every process has a reader at the same time.
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda process: process.communicate(), processes))


class _Share:
    """One parsed stream: splits[name] = (pixels, labels)."""

    def __init__(self, stream: bytes) -> None:
        self.splits: dict[str, tuple[Array, Array]] = {}
        self.file_format = "unknown"
        start = 0
        for _ in SPLITS:
            begin = stream.index(b"\n", start) + 1
            header = json.loads(stream[start:begin])
            shape = tuple(header["shape"])
            # Views of the stream: its pixels are copied once, when the shares are joined.
            pixels = np.frombuffer(stream, np.uint8, int(np.prod(shape)), begin).reshape(shape)
            labels = np.frombuffer(stream, np.int32, shape[0], begin + pixels.size)
            start = begin + pixels.size + labels.nbytes
            self.splits[header["split"]] = (pixels, labels)
            self.file_format = header["format"]


def digits(name: str, source: Source) -> Dataset:
    """1797 handwritten digits of 8 x 8 pixels, embedded in scikit-learn: 1500 to train on, 297 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    # Grey levels 0 .. 16 to 0 .. 240.
    pixels = (bunch.images[order] * 15).astype(np.uint8)[..., None]
    labels = bunch.target[order].astype(np.int32)
    cut = 1500
    return Dataset(name, source.title, source.num_classes, pixels[:cut], labels[:cut], pixels[cut:], labels[cut:])


SOURCES: dict[str, Source] = {
    "cifar10": Source("CIFAR-10", 10, prepared),
    "cifar100": Source("CIFAR-100", 100, prepared),
    "fashion_mnist": Source("Fashion-MNIST", 10, prepared),
    "mnist": Source("MNIST", 10, prepared),
    "digits": Source("digits (scikit-learn)", 10, digits),
}
