"""Connections to Leap, one per configuration. The API token stays in D-Wave's own configuration."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qjax.interop.dwave.errors import fault


def check_client(client: tuple[tuple[str, Any], ...]) -> None:
    """Errors: ValueError for a token: fields are printed and stored, so they must not hold one."""
    if any(name == "token" for name, _ in client):
        raise ValueError("client: a token is no field here; `dwave config create` or DWAVE_API_TOKEN holds it")


@lru_cache(maxsize=8)
def processor(client: tuple[tuple[str, Any], ...]) -> Any:
    """The `DWaveSampler` of a configuration, (name, value) pairs; made once. Errors: those of errors.py."""
    from dwave.system import DWaveSampler

    return connected(DWaveSampler, client)


def connected(kind: Any, client: tuple[tuple[str, Any], ...]) -> Any:
    """kind(**client), with its exceptions as those of errors.py."""
    try:
        return kind(**dict(client))
    except Exception as error:
        trouble = fault(error)
    raise trouble


@lru_cache(maxsize=8)
def hybrid_solver(client: tuple[tuple[str, Any], ...]) -> Any:
    """The `LeapHybridSampler` of a configuration, (name, value) pairs; made once. Errors: those of errors.py."""
    from dwave.system import LeapHybridSampler

    return connected(LeapHybridSampler, client)
