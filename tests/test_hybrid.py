"""The three steps on problems whose answers are known."""

import itertools
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qjax
from qjax import Refined
from qjax.hybrid import candidates, formulated, initial_states, next_radius, rank_correlation
from qjax.samplers.samples import Samples

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(50, 4)), jnp.float32)
TRUE = {"w": jnp.asarray([[1.5, -0.5], [0.5, 1.5], [-1.5, 0.5], [0.5, 0.5]])}
Y = X @ TRUE["w"]
START = {"w": jnp.full((4, 2), 0.1)}


@jax.jit
def _loss(params):
    return 0.5 * ((X @ params["w"] - Y) ** 2).sum(-1).mean()


def _descent_loss(params, batch):
    return 0.5 * ((batch[0] @ params["w"] - batch[1]) ** 2).sum(-1).mean()


def _grid(params, radius):
    """The grid {-1.5, -0.5, 0.5, 1.5} x radius holds the true weights at radius 1."""
    return qjax.least_squares(params, "w", X, Y), qjax.encode(params, {"w": qjax.FixedPoint(bits=2, step=radius)})


def test_one_round_finds_weights_that_the_grid_holds():
    result = qjax.hybrid(jax.random.key(0), _loss, START, _grid, qjax.samplers.get("exact"))
    np.testing.assert_allclose(result.params["w"], TRUE["w"], atol=1e-6)
    assert float(result.rounds[0].fidelity) > 0.99
    assert float(result.rounds[0].ratio) == pytest.approx(1.0, abs=1e-3)
    assert float(result.rounds[0].feasible) == 1.0
    assert set(result.ledger.phases) == {"compile", "formulate", "anneal", "decode"}


def _local(params, radius):
    specs = {"w": qjax.FixedPoint(bits=2, step=radius, around="current")}
    return qjax.least_squares(params, "w", X, Y), qjax.encode(params, specs)


def test_rounds_recentre_and_shrink_until_the_loss_vanishes():
    result = qjax.hybrid(jax.random.key(1), _loss, START, _local, qjax.samplers.get("exact"), num_rounds=12)
    losses = [float(outcome.loss) for outcome in result.rounds]
    assert all(late <= early for early, late in itertools.pairwise(losses))
    assert losses[-1] < 1e-3 * float(_loss(START))
    assert result.radii[-1] < result.radii[0]


def test_descent_follows_the_rounds():
    step = qjax.Refine(_descent_loss, optax.adam(1e-2), batch_size=10)
    descend = partial(_descend, step)
    result = qjax.hybrid(jax.random.key(2), _loss, START, _grid, qjax.samplers.get("greedy"), descend=descend)
    assert float(_loss(result.params)) < 0.05 * float(result.rounds[-1].loss) + 1e-3
    assert [descent.step for descent in result.descents] == [300] and result.state is None
    assert result.ledger["refine"] > 0


def _descend(step, key, params):
    return step(key, params, (X, Y), 300)


def _counting(params, state, batch):
    """The state counts the steps."""
    return _descent_loss(params, batch), (state + 1, {})


def test_rounds_and_descents_take_turns_and_hand_the_state_on():
    step = qjax.Refine(_counting, optax.sgd(1e-2), batch_size=10)
    seen, ends = [], []

    def loss(params, state):
        return _loss(params) + 0.0 * state.astype(jnp.float32)

    def formulate(params, radius, state):
        seen.append((int(state), params["w"]))
        return _local(params, radius)

    def descend(key, params, state):
        descent = step(key, params, (X, Y), 30, state=state)
        ends.append(np.asarray(descent.params["w"]))
        return descent

    run = partial(qjax.hybrid, jax.random.key(2), loss, START, formulate, qjax.samplers.get("greedy"), num_rounds=3)
    turns = run(descend=descend, descend_every_round=True, state=jnp.zeros((), jnp.int32))
    assert [steps for steps, _ in seen] == [0, 30, 60] and int(turns.state) == 90
    for (_, begun), end in zip(seen[1:], ends[:-1], strict=True):
        np.testing.assert_array_equal(begun, end)
    np.testing.assert_array_equal(turns.params["w"], turns.descents[-1].params["w"])
    after = run(descend=descend, state=jnp.zeros((), jnp.int32))
    assert int(after.state) == 30 and len(after.descents) == 1
    frozen = run(state=jnp.asarray(7, jnp.int32))
    assert int(frozen.state) == 7 and frozen.descents == ()
    np.testing.assert_array_equal(frozen.rounds[-1].bits, after.rounds[-1].bits)


@pytest.mark.parametrize("kind", [Refined, SimpleNamespace])
def test_memory_does_not_grow_by_a_model_a_round(kind):
    """Of all rounds and descents only the last descent holds arrays of the model's size; the numbers are all there."""
    size = START["w"].size

    def descend(key, params):
        descent = qjax.refine(key, _descent_loss, params, (X, Y), optax.adam(1e-2), 3, batch_size=10)
        return descent if kind is Refined else SimpleNamespace(**descent._asdict())

    greedy = qjax.samplers.get("greedy")
    arguments = (jax.random.key(2), _loss, START, _grid, greedy)
    trained = qjax.hybrid(*arguments, num_rounds=3, descend=descend, descend_every_round=True, num_candidates=2)
    assert all(outer.params is None and outer.bits.shape[0] == 2 for outer in trained.rounds)
    *earlier, last = trained.descents
    assert all(one.params is None and one.state is None and one.optimizer is None for one in earlier)
    assert [one.metrics["loss"].shape for one in trained.descents] == [(3,)] * 3
    assert {one.info["status"] for one in earlier} == {"finished"}
    assert isinstance(last, kind) and last.params is trained.params and len(jax.tree.leaves(last.optimizer)) > 2
    arrays = [leaf for leaf in jax.tree.leaves(trained.rounds) if isinstance(leaf, jax.Array)]
    assert arrays and not any(leaf.size == size and leaf.dtype == jnp.float32 for leaf in arrays)


def test_a_round_takes_the_state_as_it_is():
    def shifted(params, state):
        return _loss({"w": params["w"] - state})

    def formulate(params, radius, state):
        quadratic = qjax.least_squares(params, "w", X, Y + X @ state)
        return quadratic, qjax.encode(params, {"w": qjax.FixedPoint(bits=2, step=radius)})

    state = jnp.zeros((4, 2)).at[0, 0].set(-1.0)
    exact = qjax.samplers.get("exact")
    outcome = qjax.outer_round(jax.random.key(0), shifted, START, formulate, exact, state=state)
    np.testing.assert_allclose(outcome.params["w"], TRUE["w"] + state, atol=1e-6)


def test_a_round_is_one_traceable_function():
    def once(key, params):
        return qjax.outer_round(key, _loss, params, _grid, qjax.samplers.get("anneal", num_sweeps=20), num_reads=8)

    eager, jitted = once(jax.random.key(3), START), jax.jit(once)(jax.random.key(3), START)
    np.testing.assert_array_equal(eager.bits, jitted.bits)
    np.testing.assert_allclose(eager.loss, jitted.loss, rtol=1e-5, atol=1e-12)


def test_same_key_same_result():
    run = partial(qjax.hybrid, loss=_loss, params=START, formulate=_local, sampler=qjax.samplers.get("random"))
    first, second = run(jax.random.key(4), num_rounds=2), run(jax.random.key(4), num_rounds=2)
    np.testing.assert_array_equal(first.params["w"], second.params["w"])
    other = run(jax.random.key(5), num_rounds=2)
    assert not np.array_equal(first.rounds[0].bits, other.rounds[0].bits)


def test_worse_candidates_are_taken_only_where_asked():
    best = {"w": TRUE["w"]}
    coarse = partial(_shifted, 0.7)
    kept = qjax.hybrid(jax.random.key(6), _loss, best, coarse, qjax.samplers.get("exact"))
    np.testing.assert_array_equal(kept.params["w"], TRUE["w"])
    assert not bool(kept.rounds[0].accepted)
    forced = qjax.hybrid(jax.random.key(6), _loss, best, coarse, qjax.samplers.get("exact"), accept="always")
    assert float(forced.rounds[0].loss) > 0
    np.testing.assert_allclose(np.abs(forced.params["w"]), 0.7, atol=1e-6)


def _shifted(step, params, radius):
    return qjax.least_squares(params, "w", X, Y), qjax.encode(params, {"w": qjax.Sign(step=step)})


def test_constraints_are_penalised_and_repaired():
    atoms = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    target = {"w": jnp.stack([atoms[3], atoms[1]], axis=1)}
    goal = X @ target["w"]

    def formulate(params, radius):
        return qjax.least_squares(params, "w", X, goal), qjax.encode(params, {"w": qjax.Codebook(atoms, axis=1)})

    problem = formulated(formulate, START, 1.0)
    assert problem.penalised is not None

    def loss(params):
        return 0.5 * ((X @ params["w"] - goal) ** 2).mean()

    result = qjax.hybrid(jax.random.key(7), loss, START, formulate, qjax.samplers.get("exact"))
    np.testing.assert_allclose(result.params["w"], target["w"], atol=1e-6)
    assert bool(problem.encoding.feasible(result.rounds[0].bits).all())
    noisy = qjax.hybrid(jax.random.key(7), loss, START, formulate, qjax.samplers.get("random"))
    assert float(noisy.rounds[0].feasible) < 1.0
    assert bool(problem.encoding.feasible(noisy.rounds[0].bits).all())


def test_blocks_reach_a_sampler_that_moves_them():
    """One-hot slots, and channels of digits: every read is feasible before any repair, and
    its energy has no penalty."""
    atoms = jnp.asarray([[1.5, 0.5, -1.5, 0.5], [-0.5, 1.5, 0.5, 0.5], [0.0, 1.0, 0.0, 0.0]])

    def formulate(params, radius):
        return qjax.least_squares(params, "w", X, Y), qjax.encode(params, {"w": qjax.Codebook(atoms, axis=1)})

    problem = formulated(formulate, START, 1.0)
    assert [family.kind for family in problem.blocks.families] == ["one_hot"]
    result = qjax.hybrid(jax.random.key(0), _loss, START, formulate, qjax.samplers.get("anneal", num_sweeps=10))
    assert float(result.rounds[0].feasible) == 1
    best = result.rounds[0].energies_read[0]
    np.testing.assert_allclose(best, result.rounds[0].energies[0], rtol=1e-6)
    np.testing.assert_allclose(result.params["w"], TRUE["w"], atol=1e-6)
    channels = formulated(_grid, START, 1.0)
    assert channels.qubo.batch_shape == (2,)
    assert channels.blocks.families[0].indices.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_rank_correlation_against_scipy():
    from scipy.stats import spearmanr

    a, b = RNG.normal(size=20).round(1), RNG.normal(size=20).round(1)
    expected = spearmanr(a, b).statistic
    assert float(rank_correlation(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, abs=1e-6)
    assert float(rank_correlation(jnp.ones(3), jnp.arange(3.0))) == 0.0


@pytest.mark.parametrize(("improved", "ratio", "factor"), [(False, 0.9, 0.25), (True, 0.2, 0.5), (True, 0.9, 1.0)])
def test_radius_rule(improved, ratio, factor):
    assert next_radius(2.0, improved, ratio) == 2.0 * factor


@pytest.mark.parametrize("name", ["num_rounds", "num_reads", "num_candidates"])
def test_numbers_below_one_are_named(name):
    with pytest.raises(ValueError, match=name):
        qjax.hybrid(jax.random.key(0), _loss, START, _grid, qjax.samplers.get("random"), **{name: 0})


def test_proposed_states_reach_the_sampler_channel_by_channel():
    def nearest(key, problem, num_reads):
        return jnp.broadcast_to(problem.encoding.nearest(TRUE), (num_reads, problem.encoding.num_bits))

    greedy = qjax.samplers.get("greedy")
    result = qjax.hybrid(jax.random.key(8), _loss, START, _grid, greedy, num_reads=2, propose=nearest)
    np.testing.assert_allclose(result.params["w"], TRUE["w"], atol=1e-6)
    alone = qjax.outer_round(jax.random.key(8), _loss, START, _grid, greedy, num_reads=2, propose=nearest)
    np.testing.assert_array_equal(alone.bits, result.rounds[0].bits)


def test_rounds_pay_for_one_program_once():
    exact = qjax.samplers.get("exact")
    one, three = (qjax.hybrid(jax.random.key(9), _loss, START, _local, exact, num_rounds=n) for n in (1, 3))
    assert three.ledger["compile"] == one.ledger["compile"] > 0


def test_repeated_states_are_no_candidates_while_there_are_others():
    problem = formulated(_grid, START, 1.0)
    states = np.array([[0] * 16, [1] * 16, [0, 1] * 8], np.int8)
    reads = states[[0, 0, 0, 1, 1, 0, 2]]
    joined = Samples(jnp.asarray(reads), jnp.arange(7.0), {})
    bits, energies = candidates(problem, joined, 4)
    np.testing.assert_array_equal(bits, states[[0, 1, 2, 0]])
    np.testing.assert_array_equal(energies, [0, 3, 6, 1])


def test_the_fidelity_is_known_where_most_reads_find_the_optimum():
    def optimum_and_neighbours(key, qubo, num_reads, initial_states=None):
        exact = qjax.samplers.get("exact")(key, qubo, num_reads)
        rest = exact.bits[:, 1:4]
        bits = jnp.concatenate([jnp.repeat(exact.bits[:, :1], num_reads - 3, axis=1), rest], axis=1)
        return Samples(bits, qubo.energies(bits), {})

    outcome = qjax.outer_round(
        jax.random.key(0), _loss, START, _grid, optimum_and_neighbours, num_reads=32, num_candidates=8
    )
    assert float(outcome.fidelity) > 0.9


def test_a_finite_candidate_beats_a_loss_that_is_not_a_number():
    def loss(params):
        return jnp.where(params["w"][0, 0] == START["w"][0, 0], jnp.nan, _loss(params))

    result = qjax.hybrid(jax.random.key(0), loss, START, _grid, qjax.samplers.get("exact"))
    assert bool(result.rounds[0].accepted) and bool(result.rounds[0].improved)
    np.testing.assert_allclose(result.params["w"], TRUE["w"], atol=1e-6)


def test_a_worse_candidate_shrinks_the_radius_though_the_model_predicted_it():
    coarse, exact = partial(_shifted, 0.7), qjax.samplers.get("exact")
    best = {"w": TRUE["w"]}
    result = qjax.hybrid(jax.random.key(6), _loss, best, coarse, exact, accept="always", num_rounds=2)
    assert float(result.rounds[0].ratio) > 0.5 and not bool(result.rounds[0].improved)
    assert result.radii == (1.0, 0.25)


def test_proposals_draw_from_a_key_that_no_read_has():
    seen = []

    def propose(key, problem, num_reads):
        seen.append(jax.random.key_data(key))
        return jnp.zeros((num_reads, problem.encoding.num_bits), jnp.int8)

    key = jax.random.key(0)
    initial_states(key, formulated(_grid, START, 1.0), 2, propose)
    reads = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(1000))
    assert not (np.asarray(jax.random.key_data(reads)) == np.asarray(seen[0])).all(-1).any()


def test_a_later_run_is_charged_what_it_did_not_wait_for():
    sampler = qjax.samplers.get("anneal", num_sweeps=21)
    first, second = (qjax.hybrid(jax.random.key(0), _loss, START, _grid, sampler) for _ in range(2))
    assert first.ledger["compile"] == second.ledger["compile"] > 0
