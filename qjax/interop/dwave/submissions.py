"""How the reads of one call are split into submissions, and the arguments of each. `qpu` is the sampler (qpu.py)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qjax.interop.dwave.desk import Request, digest_of
from qjax.interop.dwave.errors import TimeLimitExceeded
from qjax.interop.dwave.programming import Programmed
from qjax.interop.dwave.reported import is_mock


class Piece(NamedTuple):
    """The part of a call that is one submission.

    gauge: row of `Programmed.gauges`. reads (reads of the submission,): indices among those of the call.
    """

    gauge: int
    reads: np.ndarray


def split(
    qpu: Any, device: Any, num_reads: int, num_gauges: int, initial: np.ndarray | None, num_qubits: int
) -> list[Piece]:
    """The submissions of a call: each of one gauge and one initial state, with at most as many reads as allowed.

    initial: bits (num_reads, n), or None. Errors: ValueError for more than max_submissions; TimeLimitExceeded.
    """
    groups = [np.arange(num_reads)]
    if initial is not None:
        _, member = np.unique(initial, axis=0, return_inverse=True)
        groups = [np.flatnonzero(member.reshape(-1) == g) for g in range(member.max() + 1)]  # type: ignore[call-overload, unused-ignore]
    most = _most_reads(qpu, device, num_qubits)
    pieces = []
    for group in groups:
        for gauge, reads in enumerate(np.array_split(group, num_gauges)):
            pieces += [Piece(gauge, reads[i : i + most]) for i in range(0, reads.size, most)]
    if len(pieces) > qpu.max_submissions:
        raise ValueError(
            f"this call takes {len(pieces)} submissions, max_submissions allows {qpu.max_submissions}: fewer "
            "reads, gauges or distinct initial states, or a higher limit"
        )
    return pieces


def _most_reads(qpu: Any, device: Any, num_qubits: int) -> int:
    """The reads allowed in one submission, halved until they fit into the device's limit on time."""
    most = int(device.properties.get("num_reads_range", (1, 10**9))[1])
    longest = device.properties.get("problem_run_duration_range", (0.0, np.inf))[1]
    anneal = qpu.annealing_time if qpu.annealing_time is not None else device.properties.get("default_annealing_time")
    if qpu.anneal_schedule is not None:
        anneal = qpu.anneal_schedule[-1][0]
    estimate = getattr(getattr(device, "solver", None), "estimate_qpu_access_time", None)

    def microseconds(reads: int) -> float:
        if estimate is None:
            return float(reads * (anneal or 0.0))  # a lower bound: without programming and readout
        schedule = {} if qpu.anneal_schedule is None else {"anneal_schedule": list(qpu.anneal_schedule)}
        timed = {} if qpu.annealing_time is None else {"annealing_time": qpu.annealing_time}
        return float(estimate(num_qubits, num_reads=reads, **schedule, **timed))

    while most > 1 and microseconds(most) > longest:
        most //= 2
    if microseconds(most) > longest:
        raise TimeLimitExceeded(f"one read takes {microseconds(1):g} us, the device allows {longest:g} us")
    return most


def request(
    qpu: Any, device: Any, programmed: Programmed, piece: Piece, chains: Any, initial: np.ndarray | None, seed: int
) -> Request:
    known, model = device.parameters, programmed.models[piece.gauge]
    arguments: dict[str, Any] = dict(qpu.parameters)
    arguments["num_reads"] = max(piece.reads.size, int(device.properties.get("num_reads_range", (1,))[0]))
    for name, value in (("answer_mode", "raw"), ("auto_scale", False)):
        # A mock never scales, and warns of arguments that it does not imitate.
        if name in known and not (name == "auto_scale" and is_mock(device)):
            arguments[name] = value
    if qpu.annealing_time is not None:
        arguments["annealing_time"] = qpu.annealing_time
    if qpu.anneal_schedule is not None:
        arguments["anneal_schedule"] = [list(point) for point in qpu.anneal_schedule]
    if initial is not None:
        spins = (2 * initial[piece.reads[0]].astype(np.int64) - 1) * programmed.gauges[piece.gauge]
        arguments["initial_state"] = {q: int(spins[i]) for i, chain in enumerate(chains) for q in chain}
        arguments.setdefault("reinitialize_state", True)
    text = f"{seed} {piece.reads.tolist()} {sorted(arguments.items())!r}"
    return Request(model, arguments, arguments["num_reads"], digest_of(device, model, text))
