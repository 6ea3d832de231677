"""Prepares a data set once, from its official archive, with TFDS and TensorFlow: `make data`.

    python experiments/data/prepare.py --check cifar10  0: prepared; 3: not yet, and its archive answers; 1: it does not
    python experiments/data/prepare.py cifar10          downloads and prepares it (this step alone needs TensorFlow)

Runs as a plain script, in an environment that has neither qjax nor JAX. The folder is TFDS's own:
`TFDS_DATA_DIR` where that is set, else `~/tensorflow_datasets`.
"""

import json
import os
import queue
import sys
import threading
import urllib.request
from pathlib import Path

ANSWER_SECONDS = 12.0  # with the import of TFDS this stays under the 20 s a user without network waits


def data_dir() -> Path:
    """The folder TFDS reads."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def is_prepared(name: str) -> bool:
    """Whether a random-access copy lies in the folder: only that format can be read without TensorFlow."""
    for info in sorted((data_dir() / name).glob("*/dataset_info.json")):
        try:
            if json.loads(info.read_text()).get("fileFormat") == "array_record":
                return True
        except (OSError, ValueError):
            continue
    return False


def answers(address: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the archive's server answers in time; a thread, because looking up a name knows no time limit."""
    verdict: queue.Queue[bool] = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                verdict.put(True)
        except OSError:
            verdict.put(False)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return verdict.get(timeout=seconds)
    except queue.Empty:
        return False


def check(name: str) -> int:
    """The exit code described above, with one line where the data set cannot be had."""
    if is_prepared(name):
        return 0
    import tensorflow_datasets as tfds

    try:
        addresses = list(tfds.builder_cls(name).url_infos or {})
    except tfds.core.DatasetNotFoundError:
        print(f"TFDS knows no data set named {name!r}", file=sys.stderr)
        return 1
    if addresses and not answers(addresses[0]):
        print(f"{name} is not prepared in {data_dir()}, and its archive cannot be reached", file=sys.stderr)
        return 1
    return 3


def prepare(name: str) -> int:
    """Downloads and prepares, in the format that `tfds.data_source` reads."""
    import tensorflow_datasets as tfds

    tfds.builder(name, file_format="array_record").download_and_prepare()
    print(f"{name} is prepared in {data_dir()}")
    return 0


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    if len(arguments) != 1:
        sys.exit("usage: python experiments/data/prepare.py [--check] NAME")
    sys.exit(check(arguments[0]) if "--check" in sys.argv else prepare(arguments[0]))
