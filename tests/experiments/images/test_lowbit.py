"""The one-bit head on the embedded digits: what its parts promise, and cells that repeat bit for bit."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import prepare, sources
from experiments.harness.account import Account
from experiments.harness.controls import SAMPLERS, sampler_of
from experiments.harness.presentation.cells import check_outcome
from experiments.images import lowbit, straight_through
from experiments.images.lowbit import CONTROLS, METHODS, Formulation, LowBit
from experiments.images.patch_features import PatchFeatures, features
from experiments.images.straight_through import Schedule
from qjax import samplers
from qjax.rounds import Round

pytestmark = [pytest.mark.optimised, pytest.mark.slow]

SCHEDULE = Schedule(batch_size=100, continuous_steps=100, scale_steps=20, steps=40, long_steps=80)
CONFIG = LowBit(
    dataset="digits",
    features=PatchFeatures(networks=2, filters=2, size=3, stride=1, shown=300, validation=300),
    num_rounds=2,
    num_reads=4,
    sampler=samplers.Anneal(num_sweeps=40),
    curvature_rows=600,
    temperatures=(1e-4, 1e-2),
    schedule=SCHEDULE,
)


@pytest.fixture(scope="module")
def outcomes():
    return {method: lowbit.run(CONFIG, method, 0) for method in METHODS}


@pytest.fixture(scope="module")
def network():
    return features(CONFIG.dataset, CONFIG.features, 0).networks[0]


@pytest.fixture(scope="module")
def start(network):
    return straight_through.continuous(SCHEDULE, jax.random.key(0), network.train, 10, Account())


@pytest.fixture(scope="module")
def formulated(network, start):
    """(problem, first states, rounded states)"""
    return jax.jit(Formulation(CONFIG))(jax.random.key(1), start, *network.train)


def test_features_are_standardised_and_split_without_overlap(network):
    x, y = network.train
    assert x.shape == (1200, 8) and y.shape == (1200,) and network.validation[0].shape == (300, 8)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-3)
    other = features(CONFIG.dataset, CONFIG.features, 0).networks[1]
    assert not np.allclose(other.train[0], x)


def test_the_formulated_problem_is_the_loss_to_second_order(network, start, formulated):
    # At the continuous weights themselves value and slope are exact; the energies of bits are the model's.
    problem, first, _ = formulated
    quadratic = problem.quadratic
    np.testing.assert_allclose(quadratic(start), straight_through.head_loss(start, network.train), rtol=1e-5)
    slope = jax.grad(straight_through.head_loss)(start, network.train)["kernel"]
    np.testing.assert_allclose(quadratic.gradient["kernel"], slope, atol=1e-6)
    assert first.shape == (CONFIG.num_reads, 80)
    modelled = jax.vmap(lambda bits: quadratic(problem.encoding.decode(bits)))(first)
    np.testing.assert_allclose(problem.qubo.energies(first), modelled, rtol=1e-4)


def test_first_states_differ_and_end_with_the_current_weights(start, formulated):
    problem, first, _ = formulated
    energies = problem.qubo.energies(first)
    np.testing.assert_array_equal(first[-1], problem.encoding.nearest(start))
    assert len(np.unique(np.asarray(first), axis=0)) == CONFIG.num_reads
    # Even the hottest is of the kind that rounding gives: below the mean of random bits.
    random = problem.qubo.energies(jax.random.bernoulli(jax.random.key(0), 0.5, (32, 80)))
    assert float(energies.max()) < float(random.mean())


def test_the_rounded_control_is_the_rounded_minimiser(start, formulated):
    problem, _, first = formulated
    assert len(np.unique(np.asarray(first), axis=0)) == 1
    # The continuous weights are near their optimum, so that few signs differ from theirs.
    assert float((first[0] != problem.encoding.nearest(start)).mean()) < 0.25


def test_every_method_but_continuous_ends_with_one_bit_per_weight(network, start):
    bits = {**start, "kernel": jnp.sign(start["kernel"]) * start["step"][None, :]}
    for loop, first in ((straight_through.refined, bits), (straight_through.trained, start)):
        kept, last = loop(SCHEDULE, jax.random.key(2), first, network.train, Account())
        for state in (kept, last):
            size = jnp.abs(state["kernel"])
            np.testing.assert_allclose(size, jnp.broadcast_to(state["step"][None, :], size.shape), rtol=1e-6)


def test_refinement_never_raises_the_training_loss(network, start):
    bits = {**start, "kernel": jnp.sign(start["kernel"]) * start["step"][None, :]}
    before = straight_through.head_loss(bits, network.train)
    kept, _ = straight_through.refined(SCHEDULE, jax.random.key(3), bits, network.train, Account())
    fitted = straight_through.refit(SCHEDULE, jax.random.key(3), bits, network.train, Account())
    assert float(straight_through.head_loss(kept, network.train)) < float(before)
    assert float(straight_through.head_loss(fitted, network.train)) < float(before)
    np.testing.assert_array_equal(jnp.sign(fitted["kernel"]), jnp.sign(bits["kernel"]))


def test_outcomes_keep_the_cells_protocol(outcomes):
    for cell in lowbit.cells("smoke"):
        check_outcome(cell, outcomes[cell.method])
    for method, outcome in outcomes.items():
        assert 0 <= outcome["results"]["final"] <= 100
        assert ("sampled_energies" in outcome["results"]) == (method in SAMPLERS)


def test_controls_differ_from_the_hybrid_in_the_sampler_alone(outcomes):
    # The annealer starts from what greedy starts from, and keeps the best it saw; random bits know nothing.
    energy = {method: outcomes[method]["results"]["best_energy"] for method in ("hybrid", *CONTROLS)}
    assert energy["hybrid"] <= energy["rounded"] and energy["hybrid"] < energy["random-bits"]
    assert energy["hybrid"] < energy["shuffled"]
    anneal = CONFIG.sampler
    named = {method: sampler_of(method, anneal) for method in ("hybrid", *CONTROLS)}
    assert named["shuffled"].sampler == named["hybrid"] == anneal


def test_the_same_cell_gives_the_same_results(outcomes):
    standings = []
    again = lowbit.run(CONFIG, "hybrid", 0, lambda f, text, standing=None: standing and standings.append(standing()))
    assert again["results"] == outcomes["hybrid"]["results"]
    assert len(standings) == CONFIG.features.networks and standings[-1].items() <= again["results"].items()
    assert again["timed"]["phases"]["compile"] == pytest.approx(outcomes["hybrid"]["timed"]["phases"]["compile"])


def test_no_round_is_kept_longer_than_the_next_one_needs_it(monkeypatch):
    """Parameters of a round live on the device: those of the first are gone when the third begins."""
    rounds: list[weakref.ref] = []
    alive: list[int] = []

    def begun(config, method, key, params, train, first, account):
        alive.append(sum(one() is not None for one in rounds))
        kernel = params["kernel"] + 1.0
        rounds.append(weakref.ref(kernel))
        nothing = jnp.zeros(())
        return Round(
            {"kernel": kernel},
            nothing,
            nothing,
            nothing > 0,
            *[nothing] * 6,
            energies_read=jnp.zeros(2),
            info={},
            seconds={},
        )

    monkeypatch.setattr(lowbit, "_round", begun)
    monkeypatch.setattr(straight_through, "continuous", lambda *args: {"kernel": jnp.zeros(3)})
    monkeypatch.setattr(straight_through, "refit", lambda schedule, key, params, train, account: params)
    monkeypatch.setattr(straight_through, "refined", lambda schedule, key, params, train, account: (params, params))
    account = SimpleNamespace(call=lambda phase, function, *args: 0.0)
    network = SimpleNamespace(train=None, test=None, validation=None)
    numbers = lowbit._trained(replace(CONFIG, num_rounds=6), "hybrid", jax.random.key(0), network, account)
    assert alive == [0, 1, 1, 1, 1, 1] and numbers["accepted"] == 0


def test_cells_are_paired_and_named_by_their_data(monkeypatch):
    monkeypatch.setattr(prepare, "is_prepared", lambda name: False)
    cells = lowbit.cells("default")
    assert {cell.seed for cell in cells if cell.method == "hybrid"} == {0, 1, 2}
    assert {(cell.method, cell.seed) for cell in cells} == {(m, s) for m in METHODS for s in range(3)}
    assert {cell.problem for cell in cells} == {"digits-patch-1bit"} and "digits" in cells[0].data
    assert len({cell.key() for cell in cells}) == len(cells)
    monkeypatch.setattr(prepare, "is_prepared", lambda name: True)
    monkeypatch.setattr(sources, "title", lambda name: f"a copy of {name}")
    assert {(cell.problem, cell.data) for cell in lowbit.cells("full")} == {("cifar10-patch-1bit", "a copy of cifar10")}
    assert len(lowbit.cells("full")) == 10 * len(METHODS)
    assert lowbit.comparisons("full")[0].controls == CONTROLS


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="straight-through"):
        lowbit.run(CONFIG, "straight", 0)
    with pytest.raises(ValueError, match="num_rounds"):
        replace(CONFIG, num_rounds=0)
