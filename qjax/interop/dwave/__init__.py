"""D-Wave's processors and hybrid solvers as qjax samplers; dwave-system is imported on the first call.

QPU(...)     a quantum processor, with a minor embedding that is searched once per graph
Leap(...)    Leap's hybrid solver, with a time limit
"""

from qjax.interop.dwave.cache import forget
from qjax.interop.dwave.desk import Retry
from qjax.interop.dwave.errors import (
    AnswerTimeout,
    BrokenChains,
    ConnectionLost,
    DeviceError,
    DWaveError,
    JournalFailed,
    NoEmbedding,
    NoToken,
    OutOfRange,
    PartialAnswer,
    SolverOffline,
    TimeLimitExceeded,
    TokenRefused,
)
from qjax.interop.dwave.journal import recover
from qjax.interop.dwave.leap import Leap
from qjax.interop.dwave.programming import pause, reverse
from qjax.interop.dwave.qpu import QPU
from qjax.interop.dwave.reported import chains_by_label

__all__ = [
    "QPU",
    "AnswerTimeout",
    "BrokenChains",
    "ConnectionLost",
    "DWaveError",
    "DeviceError",
    "JournalFailed",
    "Leap",
    "NoEmbedding",
    "NoToken",
    "OutOfRange",
    "PartialAnswer",
    "Retry",
    "SolverOffline",
    "TimeLimitExceeded",
    "TokenRefused",
    "chains_by_label",
    "forget",
    "pause",
    "recover",
    "reverse",
]
