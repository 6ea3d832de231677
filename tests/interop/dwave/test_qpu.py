"""A processor as a sampler, with D-Wave's mock and with a fake that enforces the limits of a processor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dimod
import jax
import numpy as np
import pytest
from dwave.embedding import chain_breaks
from dwave.system import EmbeddingComposite, FixedEmbeddingComposite

import qjax
from qjax.energy.couplings import Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo
from qjax.interop.bqm import to_bqm, to_sampleset
from qjax.interop.dimod import DimodSampler
from qjax.interop.dwave import (
    QPU,
    BrokenChains,
    NoEmbedding,
    OutOfRange,
    TimeLimitExceeded,
    chains_by_label,
    embedding,
    forget,
    pause,
    reverse,
)
from qjax.interop.dwave.programming import fitting_factor
from qjax.interop.dwave.unembed import unembedded
from qjax.ledger import Ledger
from tests.interop.dwave.fakes import Fake, mock
from tests.samplers import problems

KEY = jax.random.key(4)
# A ring of eight bits: sparse, and no clique.
RING = Qubo.from_terms(
    np.linspace(-1, 1, 8), Sparse.from_edges(8, np.arange(8), (np.arange(8) + 1) % 8, np.linspace(-1.5, 1.1, 8))
)


@pytest.fixture(autouse=True)
def _no_memory() -> None:
    forget()


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("topology", ["chimera", "pegasus", "zephyr"])
def test_mock_end_to_end(topology: str, form: str) -> None:
    """The minimum of a problem of 6 bits is found on every topology; seeds are fixed."""
    qubo = replace(problems.qubo(form, n=6), labels=Labels((("w", (2, 3)),)))
    samples = QPU(mock(topology))(KEY, qubo, 12)
    assert samples.bits.shape == (12, 6)
    np.testing.assert_allclose(samples.best_energy, problems.lowest(qubo), rtol=1e-6)
    np.testing.assert_allclose(samples.energies, qubo.energies(samples.bits))
    assert samples.info["chain_break_fraction"].shape == (12,)
    assert samples.info["chain_length"].shape == samples.info["chain_breaks"].shape == (6,)
    assert "reported" not in samples.info, "the times of a mock are constants, not measured"
    assert chains_by_label(qubo, samples)["w", (1, 2)][0] == int(samples.info["chain_length"][5])
    named = to_sampleset(qubo, samples)
    assert ("w", (1, 2)) in named.variables and "chain_break_fraction" in named.record.dtype.names


def test_a_second_call_on_the_same_graph_embeds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    found = embedding._found
    monkeypatch.setattr(embedding, "_found", lambda *a: searches.append(1) or found(*a))
    device = mock("chimera")
    for seed in range(3):
        draw = np.random.default_rng(seed)
        ring = Sparse.from_edges(8, np.arange(8), (np.arange(8) + 1) % 8, draw.normal(size=8))
        sampler = QPU(device, embedding="search", annealing_time=None)
        samples = sampler(jax.random.key(seed), Qubo.from_terms(draw.normal(size=8), ring), 4)
        assert int(samples.info["embedding_searches"]) == (seed == 0)
    assert len(searches) == 1
    QPU(device)(KEY, problems.qubo("dense", n=8), 4)
    QPU(device)(KEY, problems.qubo("dense", n=8, seed=5, batch=(2,)), 4)
    assert len(searches) == 2, "all dense problems of one size share the layout of a clique"
    QPU(mock("pegasus"))(KEY, problems.qubo("dense", n=8), 4)
    assert len(searches) == 3, "another chip, another embedding"


def test_it_agrees_with_the_composite_of_dwave_system() -> None:
    """With the same chains, strength and device: the same broken chains, and the same spins in reads without any."""
    qubo, device = problems.qubo("dense", n=5), mock("chimera", sweeps=3)
    chains = embedding.embed(qubo, device, "clique", 0, None).chains
    ours = QPU(device, embedding=chains, chain_strength=0.5)(KEY, qubo, 40)
    theirs = FixedEmbeddingComposite(device, dict(enumerate(chains))).sample(
        _scaled(qubo, float(ours.info["scale_factor"])),
        num_reads=40,
        answer_mode="raw",
        chain_strength=0.5 * float(ours.info["scale_factor"]),
    )
    broken = theirs.record.chain_break_fraction
    np.testing.assert_allclose(ours.info["chain_break_fraction"], broken)
    assert 0 < broken.mean() < 1
    whole = broken == 0
    spins = theirs.record.sample[:, [theirs.variables.index(i) for i in range(5)]]
    np.testing.assert_array_equal(2 * np.asarray(ours.bits)[whole] - 1, spins[whole])
    plain = DimodSampler(EmbeddingComposite(mock("chimera"), embedding_parameters={"random_seed": 7}))
    np.testing.assert_allclose(plain(KEY, qubo, 8).best_energy, problems.lowest(qubo))


def _scaled(qubo: Qubo, factor: float) -> Any:
    model = to_bqm(qubo).change_vartype("SPIN", inplace=False)
    model.scale(factor)
    return model


@pytest.mark.parametrize("rule", ["majority_vote", "weighted_random", "minimize_energy", "discard"])
def test_broken_chains_are_resolved_by_every_rule(rule: str) -> None:
    qubo, device = problems.qubo("dense", n=6), mock("chimera", sweeps=3)
    samples = QPU(device, chain_strength=2.0, chain_break_method=rule)(KEY, qubo, 40)
    again = QPU(device, chain_strength=2.0, chain_break_method=rule)(KEY, qubo, 40)
    np.testing.assert_array_equal(samples.bits, again.bits)
    np.testing.assert_allclose(samples.energies, qubo.energies(samples.bits))
    fraction, intact = np.asarray(samples.info["chain_break_fraction"]), int(samples.info["intact_reads"])
    assert samples.bits.shape == (40, 6) and 0 < intact < 40
    assert (not fraction.any()) if rule == "discard" else (fraction.mean() > 0)
    assert np.any(samples.info["chain_breaks"] > 0)
    if rule == "discard":
        with pytest.raises(BrokenChains, match="raise chain_strength") as caught:
            QPU(device, chain_strength=0.3, chain_break_method=rule)(KEY, qubo, 40)
        assert len(caught.value.answers[0]) == 40


def test_rules_on_known_chains() -> None:
    spin = dimod.BinaryQuadraticModel({0: 0.1, 1: -3.0}, {(0, 1): 2.0}, "SPIN")
    qubits = np.array([[1, 1, -1, 1], [1, -1, 1, 1], [1, 1, 1, -1]])
    lengths, draw = np.array([3, 1]), np.random.default_rng(0)
    voted, broken = unembedded("majority_vote", qubits, lengths, spin, draw)
    np.testing.assert_array_equal(voted, [[1, 1], [1, 1], [1, -1]])
    np.testing.assert_array_equal(broken, [[True, False], [True, False], [False, False]])
    settled, _ = unembedded("minimize_energy", qubits, lengths, spin, draw)
    np.testing.assert_array_equal(settled, [[-1, 1], [-1, 1], [1, -1]])
    ties, _ = unembedded("majority_vote", np.tile([1, -1], (400, 1)), np.array([2]), spin, draw)
    assert abs(ties.mean()) < 5 / 20  # a fair coin: false failure below 1e-6
    weighted, _ = unembedded("weighted_random", np.tile([1, 1, 1, -1], (400, 1)), np.array([4]), spin, draw)
    assert abs(weighted.mean() - 0.5) < 5 * np.sqrt(0.75 / 400)


def test_rules_agree_with_those_of_dwave_embedding() -> None:
    """On random couplings and chains of odd length, where no vote is tied."""
    draw = np.random.default_rng(3)
    lengths = draw.choice([1, 3, 5], size=9)
    columns = np.split(np.arange(lengths.sum()), np.cumsum(lengths)[:-1])
    spin = dimod.BinaryQuadraticModel(draw.normal(size=9), np.triu(draw.normal(size=(9, 9)), 1), "SPIN")
    qubits = draw.choice(np.array([-1, 1], np.int8), size=(50, lengths.sum()))
    voted, broken = unembedded("majority_vote", qubits, lengths, spin, draw)
    np.testing.assert_array_equal(broken, chain_breaks.broken_chains(qubits, columns))
    np.testing.assert_array_equal(voted, chain_breaks.majority_vote(qubits, columns)[0])
    theirs = chain_breaks.MinimizeEnergy(spin, {v: column.tolist() for v, column in enumerate(columns)})
    settled, _ = unembedded("minimize_energy", qubits, lengths, spin, draw)
    np.testing.assert_array_equal(settled, theirs(qubits, columns)[0])
    assert broken.mean() > 0.3 and np.any(settled != voted)


def test_ranges_are_kept_and_filled() -> None:
    """The fake asserts its ranges; problems of any size are scaled until some limit is reached."""
    for size in (1e-3, 1.0, 1e3):
        device = Fake()
        info = QPU(device)(KEY, size * problems.qubo("dense", n=6), 4).info
        model = device.calls[0][0]
        largest = max(
            max(abs(b) for b in model.linear.values()) / 4.0, max(abs(b) for b in model.quadratic.values()) / 1.0
        )
        assert largest == pytest.approx(1.0, rel=1e-6)
        assert float(info["precision_bits"]) > 1 and float(info["weakest_coefficient"]) > 0
    standard = float(QPU(Fake())(KEY, problems.qubo("dense", n=6), 4).info["scale_factor"])
    wider = float(QPU(Fake(), extended_range=True)(KEY, problems.qubo("dense", n=6), 4).info["scale_factor"])
    assert standard < wider <= 2 * standard * (1 + 1e-9)
    with pytest.raises(OutOfRange, match="auto_scale"):
        QPU(Fake(), auto_scale=False)(KEY, problems.qubo("dense", n=6), 4)
    crowded = dimod.BinaryQuadraticModel({}, {(0, i): -0.9 for i in range(1, 30)}, "SPIN")
    assert fitting_factor(crowded, Fake().properties, True) == pytest.approx(18 / (29 * 0.9))


def test_reads_beyond_the_limit_are_split_and_merged() -> None:
    device = Fake()
    samples = QPU(device)(KEY, RING, 21)
    assert [arguments["num_reads"] for _, arguments in device.calls] == [8, 8, 5]
    assert samples.bits.shape == (21, 8) and int(samples.info["submissions"]) == 3
    assert all(arguments["answer_mode"] == "raw" and arguments["auto_scale"] is False for _, arguments in device.calls)
    with pytest.raises(ValueError, match="max_submissions"):
        QPU(device, max_submissions=2)(KEY, RING, 21)
    slow = Fake(problem_run_duration_range=[0.0, 100.0])
    QPU(slow, annealing_time=30.0)(KEY, RING, 8)
    assert len(slow.calls) == 4, "two reads of 30 us fit into 100 us, three do not, and reads are halved"
    with pytest.raises(TimeLimitExceeded, match="annealing_time"):
        QPU(slow, annealing_time=200.0)(KEY, RING, 8)


def test_gauges_flip_whole_chains_and_are_undone() -> None:
    device, qubo = Fake(), problems.qubo("dense", n=6)
    plain = Fake()
    QPU(plain)(KEY, qubo, 12)
    samples = QPU(device, num_spin_reversals=3)(KEY, qubo, 12)
    assert len(device.calls) == 3
    models = [model for model, _ in device.calls]
    for model in models:
        sizes = sorted(abs(b) for b in model.quadratic.values())
        np.testing.assert_allclose(sizes, sorted(abs(b) for b in plain.calls[0][0].quadratic.values()), atol=1e-9)
    assert any(a != b for a, b in zip(models[0].linear.values(), models[1].linear.values(), strict=True))
    np.testing.assert_allclose(samples.best_energy, problems.lowest(qubo), rtol=1e-6)


def test_reverse_annealing_takes_one_state_per_submission() -> None:
    device = Fake()
    states = np.array([[0] * 8, [1] * 8, [0, 1] * 4, [1] * 8, [0] * 8])
    schedule = reverse(5.0, 0.4, 10.0)
    assert schedule == ((0.0, 1.0), (5.0, 0.4), (15.0, 0.4), (20.0, 1.0))
    samples = QPU(device, anneal_schedule=schedule)(KEY, RING, 5, states)
    assert samples.bits.shape == (5, 8) and len(device.calls) == 3
    given = {
        (tuple(sorted(set(a["initial_state"].values()))), a["num_reads"], a["reinitialize_state"])
        for _, a in device.calls
    }
    assert given == {((-1,), 2, True), ((-1, 1), 1, True), ((1,), 2, True)}
    assert device.calls[0][1]["anneal_schedule"] == [list(point) for point in schedule]
    with pytest.raises(ValueError, match="initial_states"):
        QPU(device)(KEY, RING, 2, states[:2])
    with pytest.raises(ValueError, match="initial_states"):
        QPU(device, anneal_schedule=schedule)(KEY, RING, 2)


def test_schedules_and_parameters_are_checked_first() -> None:
    device = Fake()
    rest = pause(20.0, 0.5, 100.0)
    assert rest == ((0.0, 0.0), (10.0, 0.5), (110.0, 0.5), (120.0, 1.0))
    QPU(device, anneal_schedule=rest)(KEY, RING, 2)
    bad = {
        "points": (*rest[:-1], (111.0, 0.6), (120.0, 1.0)),
        "forward in time": ((0.0, 0.0), (0.0, 1.0)),
        "end at s = 1": ((0.0, 0.0), (5.0, 0.5)),
        "lasts": ((0.0, 0.0), (5000.0, 1.0)),
    }
    for message, schedule in bad.items():
        with pytest.raises(ValueError, match=message):
            QPU(device, anneal_schedule=schedule)(KEY, RING, 2)
    with pytest.raises(ValueError, match="annealing_time"):
        QPU(device, annealing_time=1e5)(KEY, RING, 2)
    with pytest.raises(ValueError, match="has no 'speed'"):
        QPU(device, parameters=(("speed", 3),))(KEY, RING, 2)
    assert len(device.calls) == 1
    for fields in (
        {"embedding": "best"},
        {"chain_strength": "strong"},
        {"chain_strength": -1.0},
        {"chain_break_method": "vote"},
        {"client": (("token", "x"),)},
        {"annealing_time": 5.0, "anneal_schedule": rest},
        {"num_spin_reversals": -1},
        {"timeout": -1.0},
    ):
        with pytest.raises(ValueError):
            QPU(device, **fields)


def test_no_embedding_and_wrong_chains() -> None:
    with pytest.raises(NoEmbedding, match="fewer bits"):
        QPU(mock("chimera"), embedding="clique")(KEY, problems.qubo("dense", n=30), 2)
    with pytest.raises(ValueError, match="given chains"):
        QPU(mock("chimera"), embedding=tuple((q,) for q in range(8)))(KEY, problems.qubo("dense", n=8), 2)


def test_a_trace_is_refused() -> None:
    sampler = QPU(mock("chimera"))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda key: sampler(key, RING, 2).bits)(KEY)
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.vmap(lambda key: sampler(key, RING, 2).bits)(KEY[None])


def test_seconds_go_to_phases_and_reported_times_to_another_table() -> None:
    batch = problems.qubo("dense", n=5, batch=(2,))
    samples, ledger = Ledger().sample(QPU(Fake()), KEY, batch, 10)
    assert samples.bits.shape == (2, 10, 5) and samples.info["chain_strength"].shape == (2,)
    assert {"embed", "program", "wait", "decode"} <= set(ledger.phases)
    assert ledger.total < 60 and ledger["wait"] > 0
    reported = dict(ledger.reported)
    assert reported["qpu_access_time"] == pytest.approx(4 * 9e-3)  # two problems in two submissions each
    assert reported["qpu_anneal_time"] == pytest.approx(20 * 20e-6)
    _, of_mock = Ledger().sample(QPU(mock("chimera")), KEY, batch, 10)
    assert not of_mock.reported and of_mock["anneal"] > 0 and of_mock["wait"] == 0


def test_an_outer_loop_embeds_once_and_books_every_phase() -> None:
    """Two rounds of `hybrid` on a mock: other coefficients on the same graph, so one search."""
    features = jax.random.normal(jax.random.key(1), (20, 4))
    targets = features @ np.array([1.0, -1.0, 1.0, 1.0], np.float32)
    params = {"w": np.zeros((4, 1), np.float32)}

    def loss(p: Any) -> jax.Array:
        return (((features @ p["w"])[:, 0] - targets) ** 2).mean()

    def formulate(p: Any, radius: float) -> Any:
        quadratic = qjax.least_squares(p, "w", features, targets[:, None])
        return quadratic, qjax.encode(p, {"w": qjax.Sign(step=1.0)})

    searches: list[int] = []

    class Counted(QPU):
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            samples = super().__call__(*arguments, **named)
            searches.append(int(samples.info["embedding_searches"].sum()))
            return samples

    trained = qjax.hybrid(KEY, loss, params, formulate, Counted(mock("chimera")), num_rounds=2, num_reads=8)
    assert searches == [1, 0]
    assert {"embed", "program", "anneal", "decode"} <= set(trained.ledger.phases) and not trained.ledger.reported
    assert float(loss(trained.params)) < 1e-6
