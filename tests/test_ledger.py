"""The ledger: phases add up, results are waited for, records survive JSON."""

import json
import time
from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from qjax import Qubo, samplers
from qjax.ledger import PHASES, Ledger


def test_phases_add_up_to_the_total() -> None:
    ledger = Ledger()
    for index, phase in enumerate(PHASES):
        ledger = ledger.add(phase, 0.1 * (index + 1))
    ledger = ledger.add("anneal", 2.0)
    assert list(ledger.phases) == list(PHASES)
    assert ledger.total == pytest.approx(0.1 * 78 + 2.0)
    assert sum(ledger.phases.values()) == pytest.approx(ledger.total)
    assert ledger["anneal"] == pytest.approx(2.7)
    assert Ledger()["anneal"] == 0.0


def test_ledger_is_immutable_and_booking_leaves_the_old_one_alone() -> None:
    first = Ledger().add("data", 1.0)
    second = first.add("data", 1.0)
    assert (first.total, second.total) == (1.0, 2.0)
    with pytest.raises(FrozenInstanceError):
        first.booked = ()  # type: ignore[misc]
    assert hash(first) == hash(Ledger().add("data", 1.0))


def test_run_returns_the_value_and_books_at_least_its_seconds() -> None:
    def slow(x: float, *, scale: float) -> float:
        time.sleep(0.05)
        return x * scale

    value, ledger = Ledger().run("formulate", slow, 2.0, scale=3.0)
    assert value == 6.0
    assert 0.05 <= ledger["formulate"] < 5.0


def test_run_waits_for_asynchronous_work() -> None:
    def wait(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda y: (time.sleep(0.1), y)[1], jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    waiting = jax.jit(wait)
    _, ledger = Ledger().run("anneal", waiting, jnp.ones((2,)))
    assert ledger["anneal"] >= 0.1


def test_run_books_nothing_where_the_call_fails() -> None:
    ledger = Ledger()
    with pytest.raises(ZeroDivisionError):
        ledger.run("other", lambda: 1 / 0)
    assert ledger.total == 0.0


def test_compile_books_its_seconds_and_the_executable_does_not_trace_again() -> None:
    traces = []

    def double(x: jax.Array) -> jax.Array:
        traces.append(1)
        return x + x

    compiled, ledger = Ledger().compile(jax.jit(double), jax.ShapeDtypeStruct((3,), jnp.float32))
    assert ledger["compile"] > 0.0
    for _ in range(2):
        assert compiled(jnp.ones((3,), jnp.float32)).tolist() == [2.0, 2.0, 2.0]
    assert len(traces) == 1


def test_unknown_phase_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'anneal'"):
        Ledger().add("aneal", 1.0)
    with pytest.raises(ValueError, match="did you mean 'refine'"):
        Ledger().run("refin", lambda: None)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_seconds_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        Ledger().add("data", seconds)
    with pytest.raises(ValueError, match="seconds"):
        Ledger().report("qpu_access_time", seconds)


def test_reported_seconds_stay_out_of_the_total() -> None:
    ledger = Ledger().add("wait", 1.0).report("qpu_access_time", 0.02).report("qpu_access_time", 0.03)
    assert ledger.total == 1.0
    assert dict(ledger.reported) == {"qpu_access_time": 0.05}


def test_balance_books_the_rest_as_other_and_refuses_double_booking() -> None:
    ledger = Ledger().add("data", 1.0).add("refine", 2.0)
    assert ledger.balance(5.0)["other"] == pytest.approx(2.0)
    assert ledger.balance(5.0).total == pytest.approx(5.0)
    with pytest.raises(ValueError, match="more than the elapsed"):
        ledger.balance(2.5)


def test_sum_of_ledgers() -> None:
    both = Ledger().add("data", 1.0).report("a", 1.0) + Ledger().add("data", 2.0).add("other", 0.5).report("a", 2.0)
    assert both == Ledger().add("other", 0.5).add("data", 3.0).report("a", 3.0)


def test_record_survives_json_and_a_wrong_one_is_refused() -> None:
    ledger = Ledger().add("refine", 0.1).add("refine", 0.2).add("compile", 1e-9).report("readout", 0.3)
    record = json.loads(json.dumps(ledger.to_dict()))
    assert Ledger.from_dict(record) == ledger
    with pytest.raises(ValueError, match="add up"):
        Ledger.from_dict({**record, "total": 9.0})
    with pytest.raises(ValueError, match="not a ledger"):
        Ledger.from_dict({"phases": {}})
    with pytest.raises(ValueError, match="unknown phase"):
        Ledger.from_dict({**record, "phases": {"refined": 0.3}})


def test_printed_table_names_every_phase() -> None:
    text = str(Ledger().add("anneal", 1.0).add("refine", 3.0))
    assert "anneal" in text and "75.0%" in text and "total" in text


def test_a_sampler_that_accounts_for_itself_is_booked_by_phase() -> None:
    class Samples(NamedTuple):
        info: dict[str, Any]

    def host(pause: float) -> Samples:
        time.sleep(pause)
        return Samples({"seconds": {"embed": 0.004, "wait": 0.001}, "reported": {"qpu_access_time": 9.0}})

    samples, ledger = Ledger().sample(host, 0.02)
    assert ledger["embed"] == 0.004 and ledger["wait"] == 0.001 and ledger["anneal"] == 0.0
    assert ledger["other"] >= 0.015 and ledger.total >= 0.02
    assert dict(ledger.reported) == {"qpu_access_time": 9.0} and samples.info
    _, plain = Ledger().sample(lambda x: x + 1, jnp.zeros(3))
    assert set(plain.phases) == {"anneal"}


def test_a_budget_of_seconds_is_booked_as_annealing_and_its_compilation_apart() -> None:
    sampler = samplers.within(samplers.get("random"), 0.01)
    samples, ledger = Ledger().sample(sampler, jax.random.key(0), Qubo.from_matrix(jnp.eye(3)), 2)
    assert set(ledger.phases) == {"compile", "anneal"}
    assert ledger["compile"] == pytest.approx(float(samples.info["compile_seconds"]))
    assert ledger["anneal"] >= float(samples.info["seconds"])
