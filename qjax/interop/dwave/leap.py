"""Leap's hybrid solver for binary quadratic models as a qjax sampler."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qjax.energy.qubo import Qubo
from qjax.interop.bqm import to_bqm
from qjax.interop.dimod import checked
from qjax.interop.dwave.client import check_client, hybrid_solver
from qjax.interop.dwave.desk import Remote, Request, digest_of
from qjax.interop.dwave.errors import TimeLimitExceeded
from qjax.interop.dwave.reported import is_mock, reported


@dataclass(frozen=True)
class Leap(Remote):
    """The best states that Leap's hybrid solver finds in `time_limit` seconds.

    time_limit    seconds; None: Leap's minimum for the problem
    device        a `LeapHybridSampler`; None: one made from `client`
    client        (name, value) pairs for `LeapHybridSampler`
    retry, timeout, journal: see `Remote`

    Every problem is one submission. Leap returns few samples, mostly one, which are repeated up to num_reads. Initial
    states are refused, and calls cannot be traced.
    info: returned (), the number of samples from Leap; replayed (), 1 for an answer from the journal; `seconds` by
    ledger phase; `reported`, seconds by Leap's own names (not for a mock).
    Errors: ValueError for a time_limit below Leap's minimum; TimeLimitExceeded above its maximum; those of errors.py.
    """

    time_limit: float | None = None
    device: Any = None
    client: tuple[tuple[str, Any], ...] = ()

    counts: ClassVar[frozenset[str]] = frozenset({"returned", "replayed"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_client(self.client)
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit must be positive, got {self.time_limit!r}")

    def _reads(
        self, seed: int, qubo: Qubo, num_reads: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if initial is not None:
            raise ValueError("initial_states: Leap's hybrid solver takes none")
        device = self.device if self.device is not None else hybrid_solver(self.client)
        started = time.perf_counter()
        bqm = to_bqm(qubo)
        limit = self._limit(device, bqm)
        digest = digest_of(device, bqm, f"leap {seed} {limit}")
        built = time.perf_counter()
        desk = self._desk(device)
        (arrived,), trouble = desk.answers([Request(bqm, {"time_limit": limit}, None, digest)])
        if trouble is not None and not any(len(answer.sampleset) for answer in arrived):
            raise trouble
        answer = arrived[-1]
        decoding = time.perf_counter()
        bits = checked(answer.sampleset, qubo.num_bits, num_reads, type(device).__name__)
        info: dict[str, Any] = {"returned": np.int64(len(answer.sampleset)), "replayed": np.int64(answer.replayed)}
        if not is_mock(device) and not answer.replayed:
            info["reported"] = reported(answer.sampleset)
        info["seconds"] = desk.booked(program=built - started, decode=time.perf_counter() - decoding)
        if trouble is not None:
            trouble.reads = bits, info
            raise trouble
        return bits, info

    def _limit(self, device: Any, bqm: Any) -> float:
        """The time limit in seconds, within Leap's own."""
        least = float(device.min_time_limit(bqm))
        limit = least if self.time_limit is None else self.time_limit
        if limit < least:
            raise ValueError(f"time_limit must be at least {least:g} s for this problem, got {limit:g}")
        hours = device.properties.get("maximum_time_limit_hrs")
        if hours is not None and limit > 3600 * hours:
            raise TimeLimitExceeded(f"time_limit is {limit:g} s, the solver allows {3600 * hours:g} s")
        return limit
