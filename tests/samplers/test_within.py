"""Wall-clock budgets: what a chunk is, when there is no further one, and what is kept. The clock is a fake."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import dimod
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.energy.qubo import Qubo
from qjax.interop.dimod import DimodSampler, neal
from qjax.samplers import Samples, within
from tests.samplers import problems


class Clock:
    """Moves only by what the sampler says to have spent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[int, Any]] = []


CLOCK = Clock()
MODULE = import_module("qjax.samplers.within")  # the function hides the module of its name


@dataclass(frozen=True)
class Host:
    """Random bits, at a second per 10 sweeps; remembers its calls."""

    num_sweeps: int = 10
    is_host: ClassVar[bool] = True

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        CLOCK.now += self.num_sweeps / 10
        CLOCK.calls.append((self.num_sweeps, initial_states))
        bits = jax.random.bernoulli(key, 0.5, (*qubo.batch_shape, num_reads, qubo.num_bits)).astype(jnp.int8)
        sweeps = np.full((*qubo.batch_shape, num_reads), self.num_sweeps)
        info = {"read_sweeps": sweeps, "angles": np.zeros((2, 4)), "of_all": 3}
        return Samples(bits, qubo.energies(bits), info, frozenset({"read_sweeps"}))


@dataclass(frozen=True)
class Wrapper(Host):
    """Neither a host sampler nor one of the contract, whose steps could be repeated."""

    is_host: ClassVar[bool] = False


@dataclass(frozen=True)
class Onward(samplers.Random):
    """Says that it goes on from its states, and records when it is traced."""

    with_more_time: ClassVar[str] = "continue"

    def init(self, task: Any, prepared: Any) -> Any:
        assert isinstance(task.seeds, jax.core.Tracer)
        CLOCK.calls.append((int(CLOCK.now), task.initial))
        return super().init(task, prepared)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_clock", lambda: CLOCK.now)
    CLOCK.now, CLOCK.calls = 0.0, []


def test_chunks_grow_and_the_last_fills_the_budget() -> None:
    qubo = problems.qubo("dense", batch=(2,))
    samples = within(Host(), 20)(jax.random.key(0), qubo, 4)
    assert [sweeps for sweeps, _ in CLOCK.calls] == [10, 20, 40, 80, 50] and CLOCK.now == 20
    assert samples.info["chunk_seconds"].tolist() == [1, 3, 7, 15, 20]
    assert samples.info["sweeps"] == 200 and samples.info["chunks"] == 5 and samples.info["seconds"] == 20
    # The angles have the shape of the energies, but are not of single reads.
    assert samples.info["of_all"] == 3 and "angles" in samples.info and samples.by_read == {"read_sweeps"}
    every = [Host()(jax.random.fold_in(jax.random.key(0), k), qubo, 4) for k in range(5)]
    np.testing.assert_array_equal(samples.energies, np.min([s.energies for s in every], axis=0))
    chunk = np.argmin([s.energies for s in every], axis=0)
    np.testing.assert_array_equal(samples.info["read_sweeps"], np.array([10, 20, 40, 80, 50])[chunk])
    np.testing.assert_array_equal(samples.energies, qubo.energies(samples.bits))
    lowest = np.minimum.accumulate(np.stack([s.best_energy for s in every], axis=-1), axis=-1)
    np.testing.assert_array_equal(samples.info["chunk_lowest"], lowest)


def test_one_chunk_runs_whatever_the_budget() -> None:
    samples = within(Host(num_sweeps=100), 0.5)(jax.random.key(0), problems.qubo("dense"), 4)
    assert samples.info["chunks"] == 1 and samples.info["seconds"] == 10
    within(Host(), 8, growth=1)(jax.random.key(0), problems.qubo("dense"), 4)
    assert [sweeps for sweeps, _ in CLOCK.calls][1:] == [10] * 8
    CLOCK.calls.clear()
    info = within(Wrapper(), 3)(jax.random.key(0), problems.qubo("dense"), 4).info
    assert [sweeps for sweeps, _ in CLOCK.calls] == [10, 10, 20]
    assert info["compile_seconds"] == 1 and info["seconds"] == 3


@dataclass(frozen=True)
class Fails(Host):
    """A host sampler of one's own, without a number of sweeps, that fails after `calls` calls."""

    num_sweeps: Any = None
    calls: int = 2

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        if len(CLOCK.calls) == self.calls:
            raise OSError("no answer")
        samples = Host()(key, qubo, num_reads, initial_states)
        # The second call says less than the first.
        return samples if len(CLOCK.calls) == 1 else Samples(samples.bits, samples.energies)


def test_a_failing_host_sampler_loses_nothing() -> None:
    qubo, key = problems.qubo("dense"), jax.random.key(0)
    samples = within(Fails(), 20)(key, qubo, 4)
    assert CLOCK.now == samples.info["seconds"] == 2 and str(samples.info["error"]) == "OSError: no answer"
    calls = [Host()(jax.random.fold_in(key, k), qubo, 4).energies for k in range(2)]
    np.testing.assert_array_equal(samples.energies, np.minimum(*calls))
    with pytest.raises(OSError, match="no answer"):
        within(Fails(calls=len(CLOCK.calls)), 20)(key, qubo, 4)


def test_dimod_samplers_take_whole_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neal's given schedules cannot be stretched; an exact solver has nothing to add."""

    def tick() -> float:
        CLOCK.now += 1
        return CLOCK.now

    monkeypatch.setattr(MODULE, "_clock", tick)
    qubo, key = problems.qubo("dense", n=6), jax.random.key(0)
    custom = neal(num_sweeps=2, beta_schedule_type="custom", beta_schedule=(0.1, 3.0))
    for sampler, chunks, sweeps in (
        (custom, 3, 6),
        (neal(num_sweeps=3), 3, 15),
        (DimodSampler(dimod.ExactSolver(), deterministic=True), 1, 1),
    ):
        samples = within(sampler, 3)(key, qubo, 4)
        assert "error" not in samples.info and samples.info["chunks"] == chunks and samples.info["sweeps"] == sweeps


def test_what_more_time_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that each kind of sampler gets in 8 seconds, where a chunk takes a second per repeat."""
    expected = [
        (samplers.Anneal(), [0, 1, 2, 4, 1], [None] * 5),
        (samplers.Tabu(), [0, 0] + [1] * 8, [None, 0, None, 0, 1, 0, 1, 0, 1, 0]),
        (samplers.Decompose(Host()), [1] * 8, [None, 0, 1, 0, 1, 0, 1, 0]),
        (samplers.Greedy(), [0] + [1] * 8, [None] * 9),
        (samplers.Exact(), [0, 1], [None] * 2),
    ]
    for sampler, expected_repeats, starts in expected:
        seen: list[tuple[int, Any]] = []

        def chunk(
            self: Any, key: Any, qubo: Qubo, num_reads: int, states: Any, repeats: int, blocks: Any, seen: Any = seen
        ) -> Samples:
            CLOCK.now += repeats
            bits = jnp.full((num_reads, qubo.num_bits), len(seen) % 2, jnp.int8)
            seen.append((repeats, states))
            return Samples(bits, qubo.energies(bits), {})

        monkeypatch.setattr(samplers.Within, "_chunk", chunk)
        within(sampler, 8)(jax.random.key(0), problems.qubo("dense"), 4)
        assert [repeats for repeats, _ in seen] == expected_repeats, sampler
        assert [None if states is None else int(states[0, 0]) for _, states in seen] == starts, sampler


def test_nothing_is_compiled_once_the_clock_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that start from states are a separate program. The clock ticks when it is read, and shows 1 while the
    programs are compiled."""

    def tick() -> float:
        CLOCK.now += 1
        return CLOCK.now

    monkeypatch.setattr(MODULE, "_clock", tick)
    samples = within(Onward(), 3)(jax.random.key(0), problems.qubo("dense"), 4)
    assert samples.info["chunks"] == 3 and samples.info["compile_seconds"] == 1
    assert [(now, states is None) for now, states in CLOCK.calls] == [(1, True), (1, False)]


def test_pieces_for_a_host_go_on_from_the_states_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second per piece, one piece per chunk."""
    begun: list[Any] = []
    ended: list[Any] = []

    class Spied(samplers.Decompose):
        def init(self, task: Any, prepared: Any) -> Any:
            begun.append(task.initial)
            return super().init(task, prepared)

        def finish(self, task: Any, prepared: Any, state: Any) -> Any:
            ended.append(state.x)
            return super().finish(task, prepared, state)

    sampler = Spied(Host(), size=10, num_rounds=1, sub_reads=1)
    qubo = problems.qubo("dense")
    samples = within(sampler, 2)(jax.random.key(0), qubo, 1)
    assert samples.info["chunks"] == samples.info["sweeps"] == 2 and samples.info["seconds"] == 2
    assert begun[0] is None
    np.testing.assert_array_equal(begun[1], ended[0])
    np.testing.assert_array_equal(samples.energies, qubo.energies(ended[1].T))


@pytest.mark.parametrize("name", ["anneal", "bifurcation", "tabu"])
def test_samplers_of_repeated_steps_find_the_minimum_by_one_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"num_sweeps": 10}
    if name == "bifurcation":
        fields = {"num_steps": 50, "variant": "generalized", "readout_every": 10}
    sampler, qubo, traces = samplers.get(name, **fields), problems.qubo("dense", batch=(2,)), []
    init = type(sampler).init
    monkeypatch.setattr(type(sampler), "init", lambda self, *a: (traces.append(name), init(self, *a))[1])
    runs = [sampler.repeated(jax.random.key(3), qubo, 8, None, jnp.int32(k)) for k in (0, 1, 5)]
    assert len(traces) == 1
    np.testing.assert_allclose(runs[2].best_energy, problems.lowest(qubo), rtol=1e-6)
    np.testing.assert_allclose(runs[0].energies, qubo.energies(runs[0].bits), rtol=1e-6, atol=1e-5)


def test_errors() -> None:
    qubo, key = problems.qubo("dense"), jax.random.key(0)
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            within(Host(), seconds)
    with pytest.raises(ValueError, match="growth"):
        within(Host(), 1, growth=0.5)
    with pytest.raises(ValueError, match="sampler"):
        within("anneal", 1)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda key: within(Host(), 1)(key, qubo).energies)(key)
    with pytest.raises(ValueError, match="num_reads"):
        within(Host(), 1)(key, qubo, 0)
