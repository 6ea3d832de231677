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
import threading
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

    def answer(self, digest: str) -> Any:
        """The sample set of a submission; None where the journal has none."""
        return _index_of(self.path).answer(digest)

    def problem_id(self, digest: str) -> str | None:
        """The problem id of a submission; None where the journal has none."""
        return _index_of(self.path).problem_id(digest)

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
    index = _index_of(os.fspath(path))
    found = [index.answer(digest) for digest in index.digests()]
    return [answer for answer in found if answer is not None]


class _Index:
    """Where a journal's answers stand in its file. Each line is parsed once: a look reads only what the file has grown
    by, so a run of many calls costs what its answers take, and not their number squared."""

    def __init__(self, path: str) -> None:
        self._path, self._guard = path, threading.Lock()
        self._forget(None)

    def _forget(self, file: tuple[int, int] | None) -> None:
        self._file, self._read = file, 0
        self._places: dict[str, tuple[int, int]] = {}  # first byte and length of the line
        self._ids: dict[str, str] = {}

    def digests(self) -> list[str]:
        """Of all answers, oldest first."""
        with self._guard:
            self._grown()
            return list(self._places)

    def problem_id(self, digest: str) -> str | None:
        with self._guard:
            self._grown()
            return self._ids.get(digest)

    def answer(self, digest: str) -> Any:
        with self._guard:
            self._grown()
            answer = self._at(digest)
            if answer is None and digest in self._places:
                # Another file stands there now, of the same number and no shorter.
                self._forget(None)
                self._grown()
                answer = self._at(digest)
            return answer

    def _at(self, digest: str) -> Any:
        import dimod

        if digest not in self._places:
            return None
        first, length = self._places[digest]
        try:
            with open(self._path, "rb") as stream:
                stream.seek(first)
                fact = json.loads(stream.read(length))
            return dimod.SampleSet.from_serializable(fact["answer"]) if fact["digest"] == digest else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _grown(self) -> None:
        """Takes in the lines that came since the last look."""
        try:
            with open(self._path, "rb") as stream:
                state = os.fstat(stream.fileno())
                if self._file != (state.st_dev, state.st_ino) or state.st_size < self._read:
                    self._forget((state.st_dev, state.st_ino))
                if state.st_size == self._read:
                    return
                stream.seek(self._read)
                *whole, rest = stream.read().split(b"\n")
        except FileNotFoundError:
            self._forget(None)
            return
        for line in whole:
            self._take(line, self._read)
            self._read += len(line) + 1
        if rest:
            # A last line without its end may be whole: taken now, and again when it has ended.
            self._take(rest, self._read)

    def _take(self, line: bytes, first: int) -> None:
        try:
            fact = json.loads(line)
            if "answer" in fact:
                self._places[str(fact["digest"])] = first, len(line)
            else:
                self._ids[str(fact["digest"])] = str(fact["problem_id"])
        except (ValueError, KeyError, TypeError):
            return


_indices: dict[str, _Index] = {}
_guard = threading.Lock()


def _index_of(path: str) -> _Index:
    """The index of a file, one in this process."""
    place = os.path.realpath(path)
    with _guard:
        return _indices.setdefault(place, _Index(place))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else str(value)
