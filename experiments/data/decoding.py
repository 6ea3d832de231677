"""One share of a prepared data set, decoded to raw pixels on standard output: a process of `experiments.data.sources`.

    python -m experiments.data.decoding NAME SHARE OF      writes share SHARE (from 0) of OF of every split

Decoding 60,000 small images takes 7 s in one process, and threads share Python's lock, so `sources` starts one process
per core. This module imports neither JAX nor TensorFlow. The stream is one JSON line per split (name, shape, format),
followed by its pixels (uint8) and labels (int32).
"""

import io
import json
import sys
from typing import Any, BinaryIO

import numpy as np

from experiments.data.prepare import data_dir

SPLITS = ("train", "test")


def bounds(size: int, share: int, shares: int) -> tuple[int, int]:
    """Rows [start, stop) of share `share`: shares differ by at most one row and cover all of them in order."""
    return size * share // shares, size * (share + 1) // shares


def format_of(encoded: bytes) -> str:
    """ "jpeg" or "png" by the file's first bytes, otherwise "unknown"."""
    if encoded.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "png" if encoded.startswith(b"\x89PNG") else "unknown"


def decode(encoded: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels (H, W, C) uint8 of a JPEG or PNG file; a grey image has C = 1."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
        pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def first_format(name: str) -> str:
    """How the first image of the data set is stored. Errors: whatever TFDS raises for an unreadable folder."""
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    # The folder is passed on: TFDS reads its environment variable once, when it is imported.
    source = tfds.data_source(name, split=SPLITS[0], data_dir=data_dir(), download=False, decoders=skip)
    return format_of(source[0]["image"])


def write(name: str, share: int, shares: int, out: BinaryIO) -> None:
    """The stream described above, from TFDS's prepared folder. Errors: whatever TFDS raises for an unreadable one."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    for split in SPLITS:
        source = tfds.data_source(name, split=split, data_dir=data_dir(), download=False)
        # The records as they are stored: TFDS's own way from one to numpy takes ten times as long as its parser.
        records = source.data_source.__getitems__(list(range(*bounds(len(source), share, shares))))
        rows = [tf_example_pb2.Example.FromString(record).features.feature for record in records]
        labels = np.asarray([row["label"].int64_list.value[0] for row in rows], np.int32)
        encoded = [row["image"].bytes_list.value[0] for row in rows]
        pixels = np.stack([decode(image) for image in encoded])
        header = {"split": split, "shape": pixels.shape, "format": format_of(encoded[0])}
        out.write(json.dumps(header).encode() + b"\n")
        out.write(pixels.data)
        out.write(labels.data)
    out.flush()


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.stdout.buffer)
