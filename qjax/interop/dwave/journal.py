"""The journal: a file to which every sample set is written before anything else is done with it.

One JSON line per event, appended under a lock (the file PATH.lock) and flushed to disk:

    {"digest": ..., "problem_id": ...}     the solver has accepted a submission
    {"digest": ..., "answer": ...}         its sample set, as dimod serialises it

The digest names a submission: the solver and its topology, the physical model with its qubits, parameters, the seed. A
call whose digest has an answer takes that answer and pays nothing; a call whose digest has only a problem id fetches
the answer by that id. Lines that a killed process left incomplete are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from qjax.interop.dwave.errors import redacted


class Journal:
    """The journal at a path; tokens among secrets never enter it."""

    def __init__(self, path: str | os.PathLike[str], secrets: Iterable[str] = ()) -> None:
        self.path, self._secrets = os.fspath(path), tuple(secrets)

    def check(self) -> None:
        """Errors: OSError where the file cannot be written, before anything is paid for."""
        with open(self.path, "ab"), self._lock():
            pass

    def submitted(self, digest: str, problem_id: str) -> None:
        self._append({"digest": digest, "problem_id": problem_id})

    def answered(self, digest: str, answer: Any) -> None:
        self._append({"digest": digest, "answer": answer.to_serializable()})

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """({digest: sample set}, {digest: problem id})."""
        import dimod

        answers, ids = {}, {}
        for line in _lines(self.path):
            try:
                fact = json.loads(line)
                if "answer" in fact:
                    answers[fact["digest"]] = dimod.SampleSet.from_serializable(fact["answer"])
                else:
                    ids[fact["digest"]] = str(fact["problem_id"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return answers, ids

    def _append(self, fact: dict[str, Any]) -> None:
        line = redacted(json.dumps(fact, default=_plain), self._secrets) + "\n"
        with open(self.path, "a+b") as stream, self._lock():
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(size - 1)
                # A process killed while writing leaves an incomplete line; the new one must not continue it.
                line = line if stream.read(1) == b"\n" else "\n" + line
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def _lock(self) -> Any:
        from filelock import FileLock

        return FileLock(self.path + ".lock")


def recover(path: str | os.PathLike[str]) -> list[Any]:
    """All sample sets of a journal as the devices returned them, that is of physical qubits; oldest first."""
    return list(Journal(path).read()[0].values())


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as stream:
            return stream.read().splitlines()
    except FileNotFoundError:
        return []


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else str(value)
