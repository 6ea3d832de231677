"""Submissions to a device: all sent first, then waited for one after another; retried, and written to the journal.

Every answer is in the journal before anything else is done with it. Seconds are wall-clock of this machine:

    program   until the client has accepted a submission: encoding, upload; 0 for a device that answers immediately
    wait      from then until its answer has arrived: network, queue, and the processor's own time
    anneal    the whole call of a device that computes its answer in this process, such as a mock
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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
    """How often a submission is tried when it fails by a fault that may pass (`DWaveError.transient`).

    attempts    in all
    delays      min(first * factor^k, longest) seconds before retry k = 0, 1, ...

    Errors: ValueError for attempts < 1, first < 0 or factor < 1.
    """

    attempts: int = 4
    first: float = 1.0
    factor: float = 2.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.factor < 1:
            raise ValueError(f"retry needs attempts >= 1, first >= 0 and factor >= 1, got {self}")

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt 0, 1, ... has failed."""
        return min(self.first * self.factor**attempt, self.longest)


class Request(NamedTuple):
    """A submission to be made.

    model         the `dimod.BinaryQuadraticModel` to submit
    parameters    keyword arguments of the device's `sample`
    num_reads     the number of reads requested; None: the device chooses
    digest        the name of the submission in the journal
    """

    model: Any
    parameters: dict[str, Any]
    num_reads: int | None
    digest: str


def digest_of(device: Any, model: Any, text: str) -> str:
    """The name of a submission in the journal: a digest of the solver and its topology, of the model with its variables
    (the qubits), and of a text for everything else."""
    properties = device.properties
    linear, quadratic, _, variables = model.to_numpy_vectors(sort_indices=True, return_labels=True)
    named = [_solver_name(device), properties.get("topology"), model.vartype.name, list(variables), text]
    digest = hashlib.sha256(json.dumps(named, default=str).encode())
    for part in (linear, *quadratic):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _solver_name(device: Any) -> str:
    solver = getattr(device, "solver", None)
    found = device.properties.get("chip_id") or getattr(solver, "name", None) or getattr(solver, "id", None)
    return str(found or type(device).__name__)


class Answer(NamedTuple):
    """A sample set as the device returned it; replayed: whether it is from the journal, and so cost nothing now."""

    sampleset: Any
    replayed: bool


class Desk:
    """All submissions of one sampler call to one device, and their seconds."""

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
        # Problem ids of this call's submissions, and which of these an earlier call or process has made.
        self._ids: dict[str, str] = {}
        self._earlier: set[str] = set()
        self._looked_up: set[str] = set()

    def booked(self, **seconds: float) -> dict[str, float]:
        """{phase: seconds}, with the given seconds, measured by the caller, added."""
        return {phase: self.seconds.get(phase, 0.0) + seconds.get(phase, 0.0) for phase in {**self.seconds, **seconds}}

    def answers(self, requests: list[Request]) -> tuple[list[list[Answer]], DWaveError | None]:
        """(the sample sets of each request, the first fault or None).

        More than one where missing reads had to be requested again; after a fault, those that did arrive, which are
        also in its `.answers`.
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
        return collected, first

    def _submitted(self, request: Request) -> Any:
        """Submits a request: a sample set, which may still be a future; an `Answer` from the journal; or the fault."""
        known = self._looked_for(request.digest)
        if known is not None:
            return Answer(known, True)
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

    def _looked_for(self, digest: str) -> Any:
        """The sample set that the journal has of a submission, or None; its problem id is noted where there is one."""
        if self._journal is None or digest in self._looked_up:
            return None
        self._looked_up.add(digest)
        problem_id = self._journal.problem_id(digest)
        if problem_id is not None:
            self._ids[digest] = problem_id
            self._earlier.add(digest)
        return self._journal.answer(digest)

    def _fetched(self, problem_id: str) -> Any:
        """The sample set of a problem that was submitted before, as a future, or a transient fault.

        None where it cannot be fetched, so that the problem has to be submitted again.
        """
        retrieve = getattr(getattr(self.device, "client", None), "retrieve_answer", None)
        if retrieve is None:
            return None
        try:
            import dimod

            return dimod.SampleSet.from_future(retrieve(problem_id), lambda future: future.sampleset)
        except Exception as error:
            # After a transient fault the fetch is retried: a new submission would be paid for again.
            trouble = fault(error, self._secrets)
            return trouble if trouble.transient else None

    def _named(self, request: Request, begun: Any) -> Any:
        """Waits for the problem id of a submission and journals it: the answer can then be fetched by it later.

        Returns begun. No error where no id comes.
        """
        if isinstance(begun, Answer | DWaveError) or request.digest in self._ids or begun.done():
            return begun
        started, problem_id = time.perf_counter(), None
        # Without an id the answer is still waited for, and an error shows then.
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
        """(the sample set or None, the fault or None), after the answer has arrived and has been journaled."""
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
        """Returns when the answer is there. Errors: AnswerTimeout."""
        if self.timeout is None:
            return
        while not sampleset.done():
            if time.perf_counter() - started > self.timeout:
                raise AnswerTimeout(f"no answer within {self.timeout:g} s")
            self.sleep(_POLL)

    def _completed(self, request: Request, begun: Any, final: bool) -> tuple[list[Answer], DWaveError | None]:
        """(sample sets with all reads of a request, the fault or None), retried after transient faults.

        final: another request has failed for good, so nothing is submitted again: only answers already paid for are
        taken.
        """
        if isinstance(begun, Answer):
            answers, missing = [begun], _missing(begun.sampleset, request.num_reads)
        else:
            answers, missing = [], request.num_reads
        trouble: DWaveError | None = None
        # Fetching the answer to an earlier process's submission counts as an attempt of its own.
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
                # The answer to an earlier process's submission is no longer available: submit again.
                self._earlier.discard(request.digest)
                self._ids.pop(request.digest, None)
                trouble, begun = None, self._named(request, self._submitted(request))
                continue
            if final or (trouble is not None and not trouble.transient) or attempt + 1 == attempts:
                break
            self.sleep(self.retry.delay(attempt))
            if trouble is None and request.num_reads is not None:
                # Only the missing reads are requested again, with a digest of their own.
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
    """The number of reads that a sample set lacks."""
    if wanted is None:
        # The solver chooses the number of reads: at least one is needed.
        return None if len(sampleset) else 1
    return max(0, wanted - int(np.sum(sampleset.record.num_occurrences)))


@dataclass(frozen=True, kw_only=True)
class Remote(HostSampler):
    """Base class of the samplers that submit problems to a device.

    retry      see `Retry`
    timeout    seconds to wait for an answer; None: no limit
    journal    path of a file that keeps every answer (journal.py); None: no journal
    sleep      called to wait, with seconds

    Errors: ValueError for a negative timeout.
    """

    retry: Retry = Retry()
    timeout: float | None = None
    journal: str | None = None
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout >= 0:
            raise ValueError(f"timeout must not be negative, got {self.timeout!r}")

    def _desk(self, device: Any) -> Desk:
        return Desk(device, self.retry, self.timeout, self.journal, self.sleep)
