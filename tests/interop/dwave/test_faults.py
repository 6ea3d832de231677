"""Every fault, injected: a typed error that says what to do, or a retry; no answer is lost, no token is shown."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import dimod
import dwave.system
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dwave.cloud import exceptions as cloud
from filelock import FileLock

from qjax.energy.qubo import Qubo
from qjax.interop.dwave import (
    QPU,
    AnswerTimeout,
    ConnectionLost,
    DeviceError,
    DWaveError,
    JournalFailed,
    NoToken,
    PartialAnswer,
    Retry,
    SolverOffline,
    TimeLimitExceeded,
    TokenRefused,
    client,
    recover,
)
from qjax.interop.dwave import journal as journal_module
from qjax.interop.dwave.errors import fault
from qjax.interop.dwave.journal import Journal
from qjax.samplers import within
from tests.interop.dwave.fakes import TOKEN, Fake
from tests.interop.dwave.test_qpu import KEY, RING

LEAK = f"refused for token {TOKEN}"


class Naps(list):
    """A `sleep` that returns immediately and keeps its arguments."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def sampler(device: Any, **fields: Any) -> QPU:
    return QPU(device, **{"sleep": Naps(), "retry": Retry(attempts=3, first=0.5), **fields})


@pytest.mark.parametrize(
    ("raised", "expected", "advice"),
    [
        (ValueError("API token not defined"), NoToken, "DWAVE_API_TOKEN"),
        (cloud.SolverAuthenticationError(LEAK), TokenRefused, "renew"),
        (cloud.SolverOfflineError("solver is offline"), SolverOffline, "dwave solvers"),
        (cloud.SolverNotFoundError("none"), SolverOffline, "dwave solvers"),
        (cloud.SolverFailureError("problem run duration exceeds the maximum"), TimeLimitExceeded, "fewer reads"),
        (cloud.SolverFailureError("insufficient remaining solver access time"), TimeLimitExceeded, "access time"),
        (cloud.SolverFailureError(LEAK), DeviceError, "refused"),
    ],
)
@pytest.mark.parametrize("when", ["submitted", "late"])
def test_lasting_faults_are_typed_and_not_retried(
    raised: Exception, expected: type[DWaveError], advice: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    device = Fake((raised if when == "submitted" else ("late", raised),))
    naps = Naps()
    with pytest.raises(expected, match=advice) as caught:
        sampler(device, sleep=naps)(KEY, RING, 20)
    assert type(caught.value) is expected and not naps
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert TOKEN not in shown and caught.value.__context__ is None
    # The other submissions of the call have been paid for, and their answers come with the error.
    assert len(caught.value.answers) == (0 if when == "submitted" else 2)


@pytest.mark.parametrize(
    "raised", [cloud.PollingTimeout("poll"), cloud.RequestTimeout("slow"), ConnectionError("killed"), TimeoutError()]
)
@pytest.mark.parametrize("when", ["submitted", "lost"])
def test_passing_faults_are_retried_with_growing_delays(raised: Exception, when: str) -> None:
    event = raised if when == "submitted" else ("lost", raised)
    device, naps = Fake((event, event) if when == "submitted" else (event,)), Naps()
    samples = sampler(device, sleep=naps)(KEY, RING, 8)
    assert samples.bits.shape == (8, 8)
    assert naps == ([0.5, 1.0] if when == "submitted" else [0.5])
    if when == "lost":
        # The computed answer is fetched by its id, instead of being submitted and paid for again.
        assert device.client.retrieved == ["problem-1"] and len(device.calls) == 1


def test_a_connection_lost_while_fetching_is_not_paid_for_again() -> None:
    device = Fake((("lost", ConnectionError("dropped")),))
    fetch, drops = device.client.retrieve_answer, [ConnectionError("dropped again")]

    def dropping(problem_id: str) -> Any:
        if drops:
            raise drops.pop()
        return fetch(problem_id)

    device.client.retrieve_answer = dropping
    samples = sampler(device, sleep=Naps())(KEY, RING, 8)
    assert samples.bits.shape[0] == 8
    assert not drops and device.client.retrieved == ["problem-1"] and len(device.calls) == 1


def test_retries_end() -> None:
    device, naps = Fake((ConnectionError("a"),) * 9), Naps()
    with pytest.raises(ConnectionLost, match="check the network"):
        sampler(device, sleep=naps)(KEY, RING, 8)
    assert len(naps) == 2 and len(device.script) == 6


def test_a_timeout_ends_the_wait() -> None:
    with pytest.raises(AnswerTimeout, match="raise timeout"):
        sampler(Fake(), timeout=0.0, retry=Retry(attempts=1))(KEY, RING, 8)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], Fake]:
    """A device that makes the clock of `within` go: a submission takes a second."""

    def of(device: Fake) -> Fake:
        monkeypatch.setattr(import_module("qjax.samplers.within"), "_clock", lambda: len(device.calls))
        return device

    return of


def test_within_seconds_whole_calls_are_paid_and_added_up(timed: Callable[[Fake], Fake]) -> None:
    """10 reads are two submissions: a third call, which would end at 6 s, is not begun."""
    device = timed(Fake())
    samples = within(sampler(device, num_spin_reversals=1), 5)(KEY, RING, 10)
    assert len(device.calls) == int(samples.info["submissions"]) == 4
    assert samples.info["chunk_seconds"].tolist() == [2, 4] and "error" not in samples.info
    assert samples.info["reported"]["qpu_access_time"] == pytest.approx(4 * 9e-3)
    assert samples.info["seconds"].keys() >= {"embed", "decode"}
    calls = [QPU(Fake(), num_spin_reversals=1)(jax.random.fold_in(KEY, k), RING, 10) for k in range(2)]
    assert samples.bits.shape == (10, 8) and samples.info["chain_break_fraction"].shape == (10,)
    assert float(samples.best_energy) <= min(float(call.best_energy) for call in calls) + 1e-6
    np.testing.assert_array_equal(samples.energies, RING.energies(samples.bits))


@pytest.mark.parametrize("paid", [0, 1, 2, 3])
def test_within_returns_what_was_paid_before_a_fault(paid: int, timed: Callable[[Fake], Fake]) -> None:
    """The submission after `paid` others fails for good, in the first call or in the second of two submissions each."""
    offline = cloud.SolverOfflineError("gone")
    device = timed(Fake((None,) * paid + (("late", offline),) + (offline,) * 9))
    limited = within(sampler(device), 30)
    if not paid:
        with pytest.raises(SolverOffline):
            limited(KEY, RING, 10)
        return
    samples = limited(KEY, RING, 10)
    assert isinstance(samples.info["error"].error, SolverOffline) and "offline" in str(samples.info["error"])
    assert len(samples.info["chunk_seconds"]) == (1 if paid < 3 else 2)
    np.testing.assert_array_equal(samples.energies, RING.energies(samples.bits))
    returned = jax.jit(lambda samples: samples.sort())(samples)
    answers = [device.client.answers[f"problem-{k + 1}"] for k in range(paid)]
    lowest = min(float(QPU(Replayed(answer))(KEY, RING, 8).best_energy) for answer in answers)
    assert float(returned.best_energy) == pytest.approx(lowest)


class Replayed(Fake):
    """Answers as another device did, reads repeated."""

    def __init__(self, answer: Any) -> None:
        super().__init__(remote=False)
        self.answer = answer

    def sample(self, bqm: Any, **arguments: Any) -> Any:
        rows = np.resize(self.answer.record.sample, (arguments["num_reads"], len(self.answer.variables)))
        return dimod.SampleSet.from_samples_bqm((rows, list(self.answer.variables)), bqm)


def test_within_returns_a_batch_only_if_each_problem_has_reads(timed: Callable[[Fake], Fake]) -> None:
    two = replace(RING, linear=jnp.stack([RING.linear, -RING.linear]), offset=jnp.zeros(2), scale=jnp.ones(2))
    offline = cloud.SolverOfflineError("gone")
    with pytest.raises(SolverOffline) as caught:
        within(sampler(timed(Fake((None, ("late", offline))))), 30)(KEY, two, 8)
    assert np.isfinite(caught.value.samples.energies).all(-1).tolist() == [True, False]
    np.testing.assert_allclose(caught.value.samples.energies[0], RING.energies(caught.value.samples.bits[0]), rtol=1e-6)
    samples = within(sampler(timed(Fake((None, None, None, ("late", offline))))), 30)(KEY, two, 8)
    np.testing.assert_allclose(samples.energies, two.energies(samples.bits), rtol=1e-6)
    assert samples.info["chunks"] == 2 and int(samples.info["submissions"].sum()) == 3


def test_missing_reads_are_asked_for_again() -> None:
    device = Fake((("short", 5),))
    samples = sampler(device)(KEY, RING, 8)
    assert samples.bits.shape == (8, 8)
    assert [arguments["num_reads"] for _, arguments in device.calls] == [8, 3]
    stubborn = Fake((("short", 2),) * 3)
    with pytest.raises(PartialAnswer, match="2 of the reads") as caught:
        sampler(stubborn)(KEY, RING, 8)
    assert sum(len(answer) for answer in caught.value.answers) == 6


def test_no_device_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**configuration: Any) -> None:
        raise ValueError("API token not defined")

    monkeypatch.setattr(dwave.system, "DWaveSampler", refuse)
    client.processor.cache_clear()
    with pytest.raises(NoToken, match="dwave config create"):
        QPU()(KEY, RING, 2)


def test_journaled_answers_are_not_paid_for_twice(tmp_path: Path) -> None:
    journal = str(tmp_path / "answers.jsonl")
    # The second of three submissions fails for good: the first and third have been paid for.
    device = Fake((None, ("late", cloud.SolverOfflineError("down")), None))
    with pytest.raises(SolverOffline) as caught:
        sampler(device, journal=journal)(KEY, RING, 20)
    assert len(caught.value.answers) == 2 and len(recover(journal)) == 2
    device.client.answers.clear()
    again = sampler(device, journal=journal)(KEY, RING, 20)
    assert len(device.calls) == 4, "one submission was missing"
    assert int(again.info["replayed"]) == 2
    assert dict(again.info["reported"])["qpu_access_time"] == pytest.approx(9e-3)
    replayed = sampler(device, journal=journal)(KEY, RING, 20)
    assert len(device.calls) == 4 and int(replayed.info["replayed"]) == 3 and not replayed.info["reported"]
    np.testing.assert_array_equal(replayed.bits, again.bits)
    sampler(device, journal=journal)(jax.random.key(9), RING, 8)
    assert len(device.calls) == 5, "another key gives another submission"
    text = Path(journal).read_text()
    assert TOKEN not in text and "[token]" in text


PAIR = Qubo.from_matrix({(0, 0): -1.0, (0, 1): 1.5, (1, 1): -0.5})


@pytest.mark.parametrize(
    ("first", "second", "chains"),
    [
        ({"chip_id": "Advantage_A"}, {"chip_id": "Advantage_B"}, ((1,), (5,))),
        ({"topology": {"type": "chimera", "shape": [2, 2, 4]}}, {"topology": {"type": "chimera"}}, ((1,), (5,))),
        ({}, {}, ((2,), (6,))),
        ({}, {}, ((5,), (1,))),
    ],
    ids=["solver", "topology", "qubits", "order of qubits"],
)
def test_an_answer_belongs_to_its_solver_and_qubits(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], chains: Any
) -> None:
    """The same problem, key and coefficients on another solver, or on other qubits of one, are another submission."""
    journal = str(tmp_path / "answers.jsonl")
    one, other = Fake(**first), Fake(**second)
    sampler(one, embedding=((1,), (5,)), journal=journal)(KEY, PAIR, 8)
    samples = sampler(other, embedding=chains, journal=journal)(KEY, PAIR, 8)
    assert len(other.calls) == 1 and int(samples.info["replayed"]) == 0
    for device, its, properties in ((one, ((1,), (5,)), first), (other, chains, second)):
        for again in (device, Fake(**properties)):
            asked = len(again.calls)
            replayed = sampler(again, embedding=its, journal=journal)(KEY, PAIR, 8)
            assert len(again.calls) == asked and int(replayed.info["replayed"]) == 1


def test_an_answer_is_on_disk_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qjax.interop.dwave import qpu

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qpu, "unembedded", killed)
    journal = str(tmp_path / "answers.jsonl")
    with pytest.raises(KeyboardInterrupt):
        sampler(Fake(), journal=journal)(KEY, RING, 8)
    (answer,) = recover(journal)
    assert len(answer) == 8 and answer.info["problem_id"] == "problem-1"


def test_a_killed_process_is_resumed_by_problem_id(tmp_path: Path) -> None:
    """The first process is killed while it waits; the second fetches the answer instead of submitting again."""
    journal = tmp_path / "answers.jsonl"
    device = Fake((("lost", TimeoutError()),))
    with pytest.raises(AnswerTimeout):
        sampler(device, journal=str(journal), retry=Retry(attempts=1))(KEY, RING, 8)
    assert not recover(journal) and json.loads(journal.read_text())["problem_id"] == "problem-1"
    samples = sampler(device, journal=str(journal))(KEY, RING, 8)
    assert len(device.calls) == 1 and samples.bits.shape == (8, 8) and len(recover(journal)) == 1
    # A problem whose answer is no longer available is submitted again.
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    device.client.answers["problem-1"] = cloud.SolverFailureError("cancelled")
    assert sampler(device, journal=str(journal))(KEY, RING, 8).bits.shape == (8, 8)
    assert len(device.calls) == 2


def test_a_long_run_parses_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve calls of two submissions each, and all of them again: of 48 lines each is parsed once for the index, and
    the 24 that hold answers once more, when they are taken."""
    parsed: list[int] = []

    def counted(text: Any) -> Any:
        parsed.append(len(text))
        return loads(text)

    loads = journal_module.json.loads
    monkeypatch.setattr(journal_module.json, "loads", counted)
    path, device = str(tmp_path / "answers.jsonl"), Fake()
    keys = jax.random.split(KEY, 12)
    first = [sampler(device, journal=path)(key, RING, 16) for key in keys]
    again = [sampler(device, journal=path)(key, RING, 16) for key in keys]
    assert len(device.calls) == 24 and all(int(samples.info["replayed"]) == 2 for samples in again)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.bits, other.bits)
    assert sum(size > 0 for size in parsed) == 48 + 24


def test_a_journal_that_others_change_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal, other = Journal(path), tmp_path / "other.jsonl"
    assert journal.problem_id("a") is None
    path.write_text('{"digest": "a", "problem_id": "1"}\n{"digest": "b", "prob')
    assert journal.problem_id("a") == "1" and journal.problem_id("b") is None
    with path.open("a") as stream:
        stream.write('lem_id": "2"}')
    assert journal.problem_id("b") == "2", "a whole line without its end counts"
    journal.submitted("c", "3")
    assert [journal.problem_id(digest) for digest in "abc"] == ["1", "2", "3"]
    path.write_text('{"digest": "d", "problem_id": "4"}\n')
    assert [journal.problem_id(digest) for digest in "ad"] == [None, "4"], "cut short"
    sampler(Fake(), journal=str(other))(KEY, RING, 8)
    other.replace(path)
    assert journal.problem_id("d") is None and len(recover(path)) == 1, "another file"
    path.unlink()
    assert not recover(path)


def test_an_incomplete_line_is_skipped(tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    sampler(Fake(), journal=str(journal))(KEY, RING, 16)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-40])
    assert len(recover(journal)) == 1
    device = Fake()
    sampler(device, journal=str(journal))(KEY, RING, 16)
    assert len(recover(journal)) == 2


def test_a_line_waits_for_the_lock_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.touch()
    with FileLock(f"{path}.lock"):
        writing = threading.Thread(target=Journal(path).submitted, args=("digest", "problem-1"))
        writing.start()
        writing.join(0.3)
        assert writing.is_alive() and not path.read_bytes()
    writing.join(60)
    assert Journal(path).problem_id("digest") == "problem-1" and Journal(path).answer("digest") is None


def test_a_journal_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Fake()
    with pytest.raises(OSError):
        sampler(device, journal=str(tmp_path / "missing" / "answers.jsonl"))(KEY, RING, 8)
    assert not device.calls, "the error comes before anything is paid for"

    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Journal, "answered", full)
    with pytest.raises(JournalFailed, match="no space left") as caught:
        sampler(device, journal=str(tmp_path / "answers.jsonl"))(KEY, RING, 16)
    assert [len(answer) for answer in caught.value.answers] == [8, 8] and len(device.calls) == 2


def test_tokens_are_removed_from_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWAVE_API_TOKEN", "an odd token")
    assert "odd" not in str(fault(RuntimeError("bad: an odd token")))
    assert "secret" not in str(fault(RuntimeError("bad secret"), ("secret",)))
    assert TOKEN not in repr(QPU(Fake())) and TOKEN not in str(fault(RuntimeError(LEAK)))
