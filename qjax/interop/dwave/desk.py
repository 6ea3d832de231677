"""Submissions: sent together, answered one by one, retried where that can help, journaled before anything else.

Seconds are this machine's wall-clock:

    program   until the client has taken a submission (encoding, upload); nothing for a device that answers at once
    wait      from then until its answer is here: network, queue and the processor's own time
    anneal    the whole call of a device that computes its answer in place, such as a mock
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from qjax.interop.dwave.errors import AnswerTimeout, DWaveError, JournalFailed, PartialAnswer, fault, secrets_of
from qjax.interop.dwave.journal import Journal
from qjax.interop.host import HostSampler

_POLL = 0.05


@dataclass(frozen=True)
class Retry:
    """Tries of one submission where the fault may pass: `attempts` in all, with delays first, first * factor, ... up
    to longest, in seconds."""

    attempts: int = 4
    first: float = 1.0
    factor: float = 2.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.factor < 1:
            raise ValueError(f"retry needs attempts >= 1, first >= 0 and factor >= 1, got {self}")

    def delay(self, attempt: int) -> float:
        return min(self.first * self.factor**attempt, self.longest)


class Request(NamedTuple):
    """A model, the keyword arguments of the device's `sample`, the reads asked for (None: its own choice), a digest."""

    model: Any
    parameters: dict[str, Any]
    num_reads: int | None
    digest: str


def digest_of(text: str, vectors: Any) -> str:
    """What names a submission in the journal: a text, and the coefficients of the model as vectors."""
    digest = hashlib.sha256(text.encode())
    for part in (vectors.linear_biases, *vectors.quadratic):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


class Answer(NamedTuple):
    """sampleset as returned; replayed: it came from the journal and was not paid for now."""

    sampleset: Any
    replayed: bool


class Desk:
    """One call's dealings with one device."""

    def __init__(
        self,
        device: Any,
        retry: Retry,
        timeout: float | None,
        journal: str | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.device, self.retry, self.timeout, self.sleep = device, retry, timeout, sleep
        self.seconds = {"program": 0.0, "wait": 0.0, "anneal": 0.0}
        self._secrets = secrets_of(device)
        self._journal = Journal(journal, self._secrets) if journal is not None else None
        if self._journal is not None:
            self._journal.check()
        self._known, self._ids = self._journal.read() if self._journal is not None else ({}, {})
        self._earlier = set(self._ids)

    def booked(self, **seconds: float) -> dict[str, float]:
        """The seconds by phase, with those that passed outside."""
        return {phase: self.seconds.get(phase, 0.0) + seconds.get(phase, 0.0) for phase in {**self.seconds, **seconds}}

    def answers(self, requests: list[Request]) -> list[list[Answer]]:
        """The sample sets of every request; more than one where an answer came in parts.

        Errors: DWaveError with everything that arrived in `.answers`.
        """
        pending: list[Any] = []
        for request in requests:
            refused = next((p for p in pending if isinstance(p, DWaveError) and not p.transient), None)
            pending.append(self._submitted(request) if refused is None else refused)
        for i, request in enumerate(requests):
            pending[i] = self._named(request, pending[i])
        collected: list[list[Answer]] = []
        first: DWaveError | None = None
        for request, begun in zip(requests, pending, strict=True):
            answers, trouble = self._completed(request, begun, final=first is not None)
            collected.append(answers)
            first = first or trouble
        if first is not None:
            first.answers = tuple(answer.sampleset for answers in collected for answer in answers)
            raise first
        return collected

    def _submitted(self, request: Request) -> Any:
        """A sample set, perhaps not yet resolved, or the fault."""
        if request.digest in self._known:
            return Answer(self._known[request.digest], True)
        if request.digest in self._ids:
            fetched = self._fetched(self._ids[request.digest])
            if fetched is not None:
                return fetched
        begun, trouble = time.perf_counter(), None
        try:
            sampleset = self.device.sample(request.model, **request.parameters)
            at_once = sampleset.done()
        except Exception as error:
            trouble = fault(error, self._secrets)
        taken = time.perf_counter() - begun
        if trouble is not None:
            self.seconds["program"] += taken
            return trouble
        self.seconds["anneal" if at_once else "program"] += taken
        return sampleset

    def _fetched(self, problem_id: str) -> Any:
        """The sample set of a problem that was submitted before, or a fault that may pass; None where it cannot be had,
        and must be submitted anew."""
        retrieve = getattr(getattr(self.device, "client", None), "retrieve_answer", None)
        if retrieve is None:
            return None
        try:
            import dimod

            return dimod.SampleSet.from_future(retrieve(problem_id), lambda future: future.sampleset)
        except Exception as error:
            # A fault that may pass is tried again: to submit anew would be to pay twice.
            trouble = fault(error, self._secrets)
            return trouble if trouble.transient else None

    def _named(self, request: Request, begun: Any) -> Any:
        """The same, its problem id noted: whatever happens from here on, the answer can be fetched by it."""
        if isinstance(begun, Answer | DWaveError) or request.digest in self._ids or begun.done():
            return begun
        started, problem_id = time.perf_counter(), None
        # Without an id the answer can still be waited for; what is wrong shows then.
        with contextlib.suppress(Exception):
            problem_id = begun.wait_id(timeout=self.timeout)
        self.seconds["wait"] += time.perf_counter() - started
        if problem_id:
            self._ids[request.digest] = problem_id
            if self._journal is not None:
                with contextlib.suppress(OSError):
                    self._journal.submitted(request.digest, problem_id)
        return begun

    def _resolved(self, request: Request, begun: Any) -> tuple[Any, DWaveError | None]:
        """(the sample set, or None where none came; the fault). The journal is written before anything else."""
        if isinstance(begun, DWaveError):
            return None, begun
        started, trouble = time.perf_counter(), None
        remote = not begun.done()
        try:
            self._wait(begun, started)
            begun.resolve()
        except Exception as error:
            trouble = fault(error, self._secrets)
        if remote:
            self.seconds["wait"] += time.perf_counter() - started
        if trouble is not None:
            return None, trouble
        try:
            if self._journal is not None:
                self._journal.answered(request.digest, begun)
        except OSError as error:
            return begun, JournalFailed(str(error))
        return begun, None

    def _wait(self, sampleset: Any, started: float) -> None:
        if self.timeout is None:
            return
        while not sampleset.done():
            if time.perf_counter() - started > self.timeout:
                raise AnswerTimeout(f"no answer within {self.timeout:g} s")
            self.sleep(_POLL)

    def _completed(self, request: Request, begun: Any, final: bool) -> tuple[list[Answer], DWaveError | None]:
        """All reads of a request, tried again while the fault may pass; `final`: another request has failed, so only
        what has been paid for is taken in."""
        if isinstance(begun, Answer):
            answers, missing = [begun], _missing(begun.sampleset, request.num_reads)
        else:
            answers, missing = [], request.num_reads
        trouble: DWaveError | None = None
        # Fetching what an earlier process submitted is a try of its own.
        attempts = self.retry.attempts + (request.digest in self._earlier)
        for attempt in range(attempts):
            if not isinstance(begun, Answer):
                sampleset, trouble = self._resolved(request, begun)
                if sampleset is not None:
                    answers.append(Answer(sampleset, False))
                    missing = _missing(sampleset, missing)
            if trouble is None and not missing:
                return answers, None
            gone = trouble is not None and not trouble.transient and request.digest in self._earlier
            if gone and not final:
                # What an earlier process submitted cannot be had any more: submit it anew.
                self._earlier.discard(request.digest)
                self._ids.pop(request.digest, None)
                trouble, begun = None, self._named(request, self._submitted(request))
                continue
            if final or (trouble is not None and not trouble.transient) or attempt + 1 == attempts:
                break
            self.sleep(self.retry.delay(attempt))
            if trouble is None and request.num_reads is not None:
                # Only what is missing is asked for again, under a name of its own.
                parameters = {**request.parameters, "num_reads": missing}
                request = Request(request.model, parameters, missing, f"{request.digest}+{missing}")
            begun = self._named(request, self._submitted(request))
            if isinstance(begun, Answer):
                answers.append(begun)
                missing, trouble = _missing(begun.sampleset, missing), None
        if trouble is None:
            trouble = PartialAnswer(f"{missing} of the reads are missing")
        return answers, trouble


def _missing(sampleset: Any, wanted: int | None) -> int | None:
    if wanted is None:
        # A solver that decides the number itself: one sample will do.
        return None if len(sampleset) else 1
    return max(0, wanted - int(np.sum(sampleset.record.num_occurrences)))


@dataclass(frozen=True, kw_only=True)
class Remote(HostSampler):
    """The fields of every sampler that submits to a device. timeout: seconds to wait for an answer, None for as long
    as it takes; journal: a file, see journal.py. Errors: ValueError for a negative timeout."""

    retry: Retry = Retry()
    timeout: float | None = None
    journal: str | None = None
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout >= 0:
            raise ValueError(f"timeout must not be negative, got {self.timeout!r}")

    def _desk(self, device: Any) -> Desk:
        return Desk(device, self.retry, self.timeout, self.journal, self.sleep)
