"""What can go wrong between a problem and its answer: one type per fault, whose message says what to do next.

`fault(error, secrets)` turns an exception of a client into one of these, with tokens removed from its text. Callers
raise it outside the `except` block, so that a chained traceback cannot show a token either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, ClassVar

# The form of Leap's tokens: a prefix of letters and 40 hexadecimal digits.
_TOKEN = re.compile(r"\b[A-Za-z]{2,8}-[0-9a-fA-F]{32,}\b")


class DWaveError(RuntimeError):
    """Base class. answers: the raw sample sets that the call had already received, and paid for, before the fault;
    reads: the same decoded, of one problem, where there are any; samples: of the whole call (qjax.interop.host).

    transient: whether the fault may pass, so that a retry makes sense. advice: what to do, part of the message.
    """

    transient: ClassVar[bool] = False
    advice: ClassVar[str] = "see the message; the call may be repeated"

    def __init__(self, detail: str = "", answers: Iterable[Any] = ()) -> None:
        super().__init__(f"{detail}: {self.advice}" if detail else self.advice)
        self.answers: tuple[Any, ...] = tuple(answers)
        self.reads: tuple[Any, dict[str, Any]] | None = None
        self.samples: Any = None


class NoToken(DWaveError):
    advice = "no API token was found: run `dwave config create`, or set DWAVE_API_TOKEN, and try again"


class TokenRefused(DWaveError):
    advice = "the token was refused: renew it in the Leap dashboard, and check that the solver belongs to your project"


class SolverOffline(DWaveError):
    advice = "the solver is offline or there is none of this description: `dwave solvers --all` lists those that are up"


class AnswerTimeout(DWaveError):
    transient = True
    advice = (
        "no answer in time: repeat the call (with the same journal, an answer that has been computed meanwhile is "
        "fetched by its problem id), or raise timeout"
    )


class ConnectionLost(DWaveError):
    transient = True
    advice = "the connection failed: check the network and repeat the call; with a journal no answer is paid for twice"


class TimeLimitExceeded(DWaveError):
    advice = (
        "the run would take longer than the solver or the account allows: fewer reads per submission, a shorter "
        "annealing_time or time_limit, or more solver access time"
    )


class NoEmbedding(DWaveError):
    advice = (
        "the problem does not fit the chip: fewer bits, sparser couplings, a larger solver, another embedding_seed, "
        "or Leap's hybrid solver"
    )


class PartialAnswer(DWaveError):
    advice = "fewer reads than requested; those that arrived are in .answers and in the journal: repeat the call"


class BrokenChains(PartialAnswer):
    advice = (
        "every read has a broken chain and is therefore discarded: raise chain_strength or choose another "
        "chain_break_method; the reads are in .answers, and with a journal they are not paid for again"
    )


class JournalFailed(DWaveError):
    advice = "an answer could not be written to the journal: keep .answers, make room, and repeat the call"


class OutOfRange(DWaveError):
    advice = "coefficients exceed what the device takes: leave auto_scale on, or scale the problem"


class DeviceError(DWaveError):
    advice = "the device or its client refused the problem; the message above says why"


# By name, so that D-Wave's client need not be imported here.
_KINDS: tuple[tuple[type[DWaveError], frozenset[str]], ...] = (
    (
        TokenRefused,
        frozenset({"SolverAuthenticationError", "ResourceAuthenticationError", "ResourceAccessForbiddenError"}),
    ),
    (SolverOffline, frozenset({"SolverOfflineError", "SolverNotFoundError", "ResourceNotFoundError"})),
    (AnswerTimeout, frozenset({"RequestTimeout", "PollingTimeout", "TimeoutError", "Timeout"})),
    (TimeLimitExceeded, frozenset({"ResourceLimitsExceededError"})),
    (
        ConnectionLost,
        frozenset({"ConnectionError", "ProblemUploadError", "InvalidAPIResponseError", "InternalServerError"}),
    ),
    (NoToken, frozenset({"ConfigFileError"})),
)
_LIMITS = re.compile(r"time.?limit|run.?duration|quota|insufficient|access time|exceeds? the max", re.IGNORECASE)


def fault(error: BaseException, secrets: Iterable[str] = ()) -> DWaveError:
    """The `DWaveError` for an exception of a client, with tokens removed from its message."""
    if isinstance(error, DWaveError):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    text = redacted(str(error), secrets)
    detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ValueError) and re.search(r"token not defined|token.*(missing|required)", text, re.IGNORECASE):
        return NoToken(detail)
    for kind, members in _KINDS:
        if names & members:
            return kind(detail)
    return TimeLimitExceeded(detail) if _LIMITS.search(text) else DeviceError(detail)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without tokens: those in secrets, DWAVE_API_TOKEN, and anything of the form of a token."""
    for secret in (*secrets, os.environ.get("DWAVE_API_TOKEN", "")):
        if secret:
            text = text.replace(secret, "[token]")
    return _TOKEN.sub("[token]", text)


def secrets_of(device: Any) -> tuple[str, ...]:
    """The tokens that a device's client holds, to be removed from texts."""
    token = getattr(getattr(device, "client", None), "token", None)
    return (token,) if isinstance(token, str) else ()
