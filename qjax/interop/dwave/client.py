"""Connections to Leap, made once a configuration. The token stays where D-Wave's own configuration keeps it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qjax.interop.dwave.errors import fault


def check_client(client: tuple[tuple[str, Any], ...]) -> None:
    """Errors: ValueError for a token, which has no place in a printable record."""
    if any(name == "token" for name, _ in client):
        raise ValueError("client: a token is no field here; `dwave config create` or DWAVE_API_TOKEN holds it")


@lru_cache(maxsize=8)
def processor(client: tuple[tuple[str, Any], ...]) -> Any:
    """The `DWaveSampler` of a configuration, made once. Errors: those of errors.py."""
    from dwave.system import DWaveSampler

    return connected(DWaveSampler, client)


def connected(kind: Any, client: tuple[tuple[str, Any], ...]) -> Any:
    try:
        return kind(**dict(client))
    except Exception as error:
        trouble = fault(error)
    raise trouble


@lru_cache(maxsize=8)
def hybrid_solver(client: tuple[tuple[str, Any], ...]) -> Any:
    """The `LeapHybridSampler` of a configuration, made once. Errors: those of errors.py."""
    from dwave.system import LeapHybridSampler

    return connected(LeapHybridSampler, client)
