"""Leap's hybrid solver as a sampler, with a fake in place of Leap."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import dimod
import jax
import numpy as np
import pytest
from dwave.cloud import exceptions as cloud

from qjax.interop.dwave import Leap, SolverOffline, TimeLimitExceeded
from qjax.ledger import Ledger
from tests.interop.dwave.fakes import Client
from tests.samplers import problems

KEY = jax.random.key(0)


class Hybrid(dimod.Sampler):
    """One exact minimum per problem, with Leap's times in microseconds."""

    parameters: ClassVar[dict[str, Any]] = {"time_limit": [], "label": []}
    properties: ClassVar[dict[str, Any]] = {
        "minimum_time_limit": [[1, 3.0], [1024, 3.0]],
        "maximum_time_limit_hrs": 1.0,
    }

    def __init__(self, *script: Exception) -> None:
        self.script, self.calls, self.client = list(script), [], Client()

    def min_time_limit(self, bqm: Any) -> float:
        return 3.0

    def sample(self, bqm: Any, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.script:
            raise self.script.pop(0)
        answer = dimod.ExactSolver().sample(bqm).truncate(1)
        answer.info.update(qpu_access_time=31000.0, charge_time=3_000_000.0, run_time=2_990_000.0)
        return answer


def test_the_best_state_by_time_limit() -> None:
    device, qubo = Hybrid(), problems.qubo("sparse", n=8, batch=(2,))
    samples, ledger = Ledger().sample(Leap(5.0, device), KEY, qubo, 4)
    assert samples.bits.shape == (2, 4, 8)
    np.testing.assert_allclose(samples.energies, np.tile(problems.lowest(qubo)[:, None], 4), rtol=1e-6)
    assert device.calls == [{"time_limit": 5.0}] * 2
    assert dict(ledger.reported)["charge_time"] == pytest.approx(6.0)
    assert ledger.total < 30
    Leap(device=device)(KEY, qubo, 1)
    assert device.calls[-1] == {"time_limit": 3.0}


def test_limits_states_traces_and_faults(tmp_path: Path) -> None:
    qubo = problems.qubo("dense", n=4)
    with pytest.raises(ValueError, match="at least 3 s"):
        Leap(1.0, Hybrid())(KEY, qubo, 1)
    with pytest.raises(TimeLimitExceeded, match="3600 s"):
        Leap(4000.0, Hybrid())(KEY, qubo, 1)
    with pytest.raises(ValueError, match="initial_states"):
        Leap(5.0, Hybrid())(KEY, qubo, 1, np.zeros(4, int))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda key: Leap(5.0, Hybrid())(key, qubo, 1).bits)(KEY)
    with pytest.raises(SolverOffline):
        Leap(5.0, Hybrid(cloud.SolverOfflineError("down")))(KEY, qubo, 1)
    for fields in ({"time_limit": 0.0}, {"client": (("token", "x"),)}, {"timeout": -1.0}):
        with pytest.raises(ValueError):
            Leap(**fields)
    naps: list[float] = []
    journal = str(tmp_path / "leap.jsonl")
    flaky = Hybrid(ConnectionError("gone"))
    leap = Leap(5.0, flaky, journal=journal, sleep=naps.append)
    first = leap(KEY, qubo, 2)
    second = leap(KEY, qubo, 2)
    assert len(naps) == 1 and len(flaky.calls) == 2 and int(second.info["replayed"]) == 1
    np.testing.assert_array_equal(first.bits, second.bits)
    other = Hybrid()
    other.solver = SimpleNamespace(name="hybrid_v3")
    assert int(Leap(5.0, other, journal=journal)(KEY, qubo, 2).info["replayed"]) == 0 and len(other.calls) == 1
