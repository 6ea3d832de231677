"""Samples, the registry, polish, fixed cardinality, and the hyperparameters of each sampler."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qjax.samplers as samplers
from qjax.annealers import Noisy
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers import Samples, streams
from qjax.samplers.moves import rows
from tests.samplers import problems


def _samples() -> Samples:
    bits = jnp.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]], jnp.int8)
    info = {"place": np.arange(4), "rates": jnp.arange(8.0).reshape((4, 2)), "beta_range": jnp.ones(2)}
    return Samples(bits, jnp.array([2.0, -1.0, 2.0, 0.0]), info, frozenset({"place", "rates"}))


def test_best_lowest_sort_and_unique() -> None:
    samples = _samples()
    np.testing.assert_array_equal(samples.best_bits, [0, 1, 0])
    assert float(samples.best_energy) == -1.0
    ordered = samples.sort()
    np.testing.assert_array_equal(ordered.energies, [-1, 0, 2, 2])
    np.testing.assert_array_equal(ordered.bits[1], [1, 1, 1])
    np.testing.assert_array_equal(ordered.info["place"], [1, 3, 0, 2])
    np.testing.assert_array_equal(ordered.info["rates"][:, 1], [3, 7, 1, 5])
    assert ordered.info["beta_range"].shape == (2,) and ordered.by_read == samples.by_read
    np.testing.assert_array_equal(jax.jit(Samples.sort)(samples).info["place"], [1, 3, 0, 2])
    once = samples.unique()
    np.testing.assert_array_equal(once.energies, [-1, 0, 2])
    np.testing.assert_array_equal(once.info["num_occurrences"], [1, 1, 2])
    np.testing.assert_array_equal(once.info["place"], [1, 3, 0])
    twice = once.concatenate(once).unique()
    np.testing.assert_array_equal(twice.info["num_occurrences"], [2, 2, 4])
    np.testing.assert_array_equal(twice.sort().info["num_occurrences"], [2, 2, 4])
    with pytest.raises(ValueError, match="one problem"):
        Samples(samples.bits[None], samples.energies[None], {}).unique()


@dataclasses.dataclass(frozen=True)
class Numbered(samplers.Random):
    """Says of each read its first word, under a name that no other sampler has; of the problem as many numbers."""

    def finish(self, task: Any, prepared: Any, state: Any) -> Any:
        word = streams.words(task.seeds, 1, jnp.arange(1))[0].astype(jnp.float32)
        shape = (task.num_problems, task.num_reads)
        return samplers.Outcome((state,), {"first_word": word}, {"of_all": jnp.zeros(shape)})


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_sampler_of_ones_own_says_what_is_by_read(batch: tuple[int, ...]) -> None:
    qubo, key = problems.qubo("dense", batch=batch), jax.random.key(0)
    samples = Numbered()(key, qubo, 5)
    assert samples.by_read == {"first_word"} and samples.info["first_word"].shape == (*batch, 5)
    ordered = samples.sort()
    order = np.argsort(samples.energies, axis=-1, kind="stable")
    np.testing.assert_array_equal(
        ordered.info["first_word"], np.take_along_axis(np.asarray(samples.info["first_word"]), order, axis=-1)
    )
    assert ordered.info["of_all"].shape == (*batch, 5)
    both = samples.concatenate(ordered)
    np.testing.assert_array_equal(both.info["first_word"][..., 5:], ordered.info["first_word"])
    assert set(both.info) == both.by_read == {"first_word"}
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("reads",))
    assert samplers.Sharded(Numbered(), mesh)(key, qubo, 5).by_read == {"first_word"}
    noisy = Noisy(Numbered(), sigma_h=0.1)(key, qubo, 5)
    assert noisy.by_read == {"first_word"} and "scale_factor" in noisy.info
    inside = jax.jit(lambda key: Numbered()(key, qubo, 5).sort())(key)
    np.testing.assert_array_equal(inside.info["first_word"], ordered.info["first_word"])


def test_info_by_read_and_by_problem_have_different_names() -> None:
    class Both(samplers.Random):
        def finish(self, task: Any, prepared: Any, state: Any) -> Any:
            zeros = jnp.zeros(task.num_columns)
            return samplers.Outcome((state,), {"rate": zeros}, {"rate": zeros[: task.num_problems]})

    with pytest.raises(ValueError, match="rate"):
        Both()(jax.random.key(0), problems.qubo("dense"), 2)


def test_concatenate_and_join() -> None:
    samples = _samples()
    both = samples.concatenate(samples)
    assert both.bits.shape == (8, 3) and both.energies.shape == (8,)
    np.testing.assert_array_equal(both.info["place"], [0, 1, 2, 3, 0, 1, 2, 3])
    assert set(both.info) == {"place", "rates"}
    assert not samples.concatenate(Samples(samples.bits, samples.energies)).info
    batch = Samples(jnp.stack([samples.bits, 1 - samples.bits]), jnp.stack([samples.energies, jnp.arange(4.0)]), {})
    joined = batch.join()
    assert joined.bits.shape == (4, 6)
    np.testing.assert_array_equal(joined.bits[0], [0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(joined.energies, [-1, 1, 4, 5])
    np.testing.assert_array_equal(samples.join().info["place"], samples.sort().info["place"])


def test_joined_energies_are_those_of_the_joint_problem() -> None:
    qubo = problems.qubo("dense", n=6, batch=(3,))
    samples = samplers.Random()(jax.random.key(0), qubo, 5)
    joined = samples.join()
    parts = joined.bits.reshape((5, 3, 6)).transpose((1, 0, 2))
    np.testing.assert_allclose(problems.energies(qubo, parts).sum(0), joined.energies, rtol=1e-6)
    assert float(joined.best_energy) == pytest.approx(float(samples.best_energy.sum()))


def test_the_registry_names_every_sampler() -> None:
    assert set(samplers.names()) >= {"exact", "random", "greedy", "anneal", "bifurcation", "neal"}
    exported = [
        kind for kind in vars(samplers).values() if isinstance(kind, type) and issubclass(kind, samplers.Sampler)
    ]
    registered = {samplers.sampler_class(name) for name in samplers.names()}
    assert set(exported) - {samplers.Sampler} <= registered
    assert [row.name for row in samplers.table()] == list(samplers.names())
    assert {row.name for row in samplers.table() if row.thermal} >= {"anneal", "population", "temper"}
    with pytest.raises(ValueError, match="did you mean 'anneal'"):
        samplers.get("aneal")
    with pytest.raises(ValueError, match="did you mean 'num_sweeps'"):
        samplers.get("anneal", num_sweep=3)
    assert samplers.get("anneal", num_sweeps=3) == samplers.Anneal(num_sweeps=3)
    assert hash(samplers.get("anneal", num_sweeps=3)) == hash(samplers.Anneal(num_sweeps=3))


@pytest.mark.parametrize(
    ("name", "fields", "match"),
    [
        ("anneal", {"num_sweeps": 0}, "num_sweeps"),
        ("anneal", {"beta_range": (2.0, 1.0)}, "beta_range"),
        ("anneal", {"beta_range": [1.0, 2.0]}, "beta_range"),
        ("anneal", {"beta_range": (0.0, 1.0)}, "beta_range"),
        ("anneal", {"beta_schedule": (1.0, float("nan"))}, "beta_schedule"),
        ("anneal", {"beta_schedule_type": "cubic"}, "beta_schedule_type"),
        ("anneal", {"acceptance": "never"}, "acceptance"),
        ("anneal", {"return_states": "all"}, "return_states"),
        ("bifurcation", {"num_steps": 0}, "num_steps"),
        ("bifurcation", {"variant": "adiabatic"}, "variant"),
        ("bifurcation", {"time_step": 0.0}, "time_step"),
        ("bifurcation", {"heat": -1.0}, "heat"),
        ("greedy", {"max_steps": 0}, "max_steps"),
        ("mean_field", {"optimizer": "steepest"}, "optimizer"),
        ("mean_field", {"learning_rate": 0.0}, "learning_rate"),
        ("mean_field", {"temperature_range": (1.0, 0.0)}, "temperature_range"),
        ("path_integral", {"num_slices": 3}, "num_slices"),
        ("path_integral", {"gamma_range": (1.0, 0.0)}, "gamma_range"),
        ("path_integral", {"beta": 0.0}, "beta"),
        ("population", {"population_size": 0}, "population_size"),
        ("population", {"beta_schedule": (2.0, 1.0)}, "beta_schedule"),
        ("tabu", {"num_elites": 0}, "num_elites"),
        ("tabu", {"perturbation": 2.0}, "perturbation"),
        ("temper", {"num_betas": 0}, "num_betas"),
        ("temper", {"betas": (2.0, 1.0)}, "betas"),
        ("temper", {"cluster_every": -1}, "cluster_every"),
        ("exact", {"max_bits": 40}, "max_bits"),
    ],
)
def test_bad_hyperparameters_are_named(name: str, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        samplers.get(name, **fields)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_polish_ends_in_local_minima_below_its_start(form: str) -> None:
    qubo = problems.qubo(form, n=12, batch=(2,))
    start = np.random.default_rng(0).integers(0, 2, (2, 3, 5, 12))
    end = samplers.polish(qubo, start)
    assert end.shape == start.shape and end.dtype == jnp.int8
    assert np.all(problems.energies(qubo, end) <= problems.energies(qubo, start))
    assert np.all(qubo.flips(end) >= -1e-5)
    np.testing.assert_array_equal(samplers.polish(qubo, end), end)
    with pytest.raises(ValueError, match="bits"):
        samplers.polish(qubo, start[..., :3])
    with pytest.raises(ValueError, match="0 and 1 only"):
        samplers.polish(qubo, jnp.full(start.shape, 0.2))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_fixed_number_of_ones(form: str) -> None:
    """In a batch: polish ends where no exchange of two bits helps, annealing finds the best of all choices of k."""
    n, k = 12, 4
    qubo = problems.qubo(form, n=n, batch=(2,))
    states = problems.all_states(n)[problems.all_states(n).sum(-1) == k]
    energies = problems.energies(qubo, np.broadcast_to(states, (2, *states.shape)))
    start = np.stack([states[:6], states[-6:]])
    end = np.asarray(samplers.polish(qubo, start, fixed_cardinality=k))
    reached = problems.energies(qubo, end)
    assert np.all(end.sum(-1) == k) and np.all(reached <= problems.energies(qubo, start))
    for problem in range(2):
        for state, energy in zip(end[problem], reached[problem], strict=True):
            near = np.abs(states - state).sum(-1) == 2
            assert energies[problem][near].min() >= energy - 1e-4
    samples = samplers.Anneal(60, fixed_cardinality=k)(jax.random.key(0), qubo, 8)
    assert np.all(np.asarray(samples.bits).sum(-1) == k)
    np.testing.assert_allclose(samples.best_energy, energies.min(-1))


def test_cardinalities_at_their_ends_and_beyond() -> None:
    qubo = problems.qubo("dense", n=10)
    for sampler in (samplers.Anneal(5, fixed_cardinality=0), samplers.Greedy(fixed_cardinality=0)):
        assert not np.any(sampler(jax.random.key(0), qubo, 3).bits)
        full = dataclasses.replace(sampler, fixed_cardinality=10)
        assert np.all(np.asarray(full(jax.random.key(0), qubo, 3).bits) == 1)
        with pytest.raises(ValueError, match="fixed_cardinality"):
            dataclasses.replace(sampler, fixed_cardinality=11)(jax.random.key(0), qubo, 3)
        with pytest.raises(ValueError, match="fixed_cardinality"):
            dataclasses.replace(sampler, fixed_cardinality=-1)
    assert {row.name for row in samplers.table() if row.fixed_cardinality} >= {"anneal", "greedy"}


def test_schedules() -> None:
    """A schedule of the user's from infinite to low temperature, and a linear one, find the minimum and end where they
    were asked to."""
    qubo = problems.qubo("dense", n=10)
    minimum = problems.lowest(qubo)
    for sampler in (
        samplers.Anneal(40, beta_schedule=(0.0, 0.1, 0.5, 5.0)),
        samplers.Anneal(40, beta_range=(0.05, 5.0), beta_schedule_type="linear"),
    ):
        samples = sampler(jax.random.key(0), qubo, 16)
        np.testing.assert_allclose(samples.best_energy, minimum)
        np.testing.assert_allclose(samples.info["beta_range"][1], 5.0, rtol=1e-5)


def test_automatic_range_scales_with_the_energy() -> None:
    """beta is in 1/units of E: ten times the energy, a tenth of both ends, and the same bits."""
    qubo = problems.qubo("dense", n=10)
    one, ten = (samplers.Anneal(5)(jax.random.key(0), q, 4) for q in (qubo, qubo * 10.0))
    np.testing.assert_allclose(one.info["beta_range"], 10 * ten.info["beta_range"], rtol=1e-4)
    np.testing.assert_array_equal(one.bits, ten.bits)


@pytest.mark.parametrize("form", problems.FORMS)
def test_rows_beyond_the_size_of_a_matrix(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbour lists and products with unit vectors give the rows of the matrix; a diagonal is left out."""
    monkeypatch.setattr(rows, "_DENSE_LIMIT", 4)
    held = problems.couplings(form)
    matrix = problems.matrix_of(held)
    np.fill_diagonal(matrix, 0)
    index, states = np.array([3, 0, 3, 9]), np.random.default_rng(0).integers(0, 2, (4, 10)).astype(np.float32)
    view = rows.Rows(held, jnp.float32)
    np.testing.assert_allclose(view.rows(jnp.asarray(index), jnp.eye(10)[index]), matrix[index])
    np.testing.assert_allclose(view.image(jnp.asarray(states)), states @ matrix)


def test_mean_field_takes_any_optimizer_and_keeps_reads_apart() -> None:
    """By name, and as a transformation that would mix reads (by a norm over all of them) if they shared one state."""
    qubo = problems.qubo("gram", n=10)
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1))
    for optimizer in ("sgd", clipped):
        sampler = samplers.MeanField(100, optimizer, learning_rate=1.0)
        few, many = (sampler(jax.random.key(1), qubo, reads) for reads in (4, 12))
        np.testing.assert_array_equal(few.bits, many.bits[:4])
        np.testing.assert_allclose(many.best_energy, problems.lowest(qubo))


@pytest.mark.parametrize("variant", ["ballistic", "discrete"])
@pytest.mark.parametrize("heat", [0.0, 0.06])
def test_bifurcation_with_strong_fields(variant: str, heat: float) -> None:
    """Linear terms of 0.3, 3 and 30 times the couplings, 14 bits: the exact minimum each time."""
    rng = np.random.default_rng(1)
    half = np.triu(rng.normal(size=(14, 14)), 1).astype(np.float32)
    linear = np.stack([rng.normal(size=14) * size for size in (0.3, 3.0, 30.0)]).astype(np.float32)
    qubo = Qubo.from_terms(linear, half + half.T)
    sampler = samplers.Bifurcation(300, variant=variant, heat=heat)
    np.testing.assert_allclose(
        sampler(jax.random.key(0), qubo, 32).best_energy, problems.lowest(qubo), rtol=1e-5, atol=1e-4
    )


def test_bifurcation_estimates_an_unknown_diagonal() -> None:
    known = problems.qubo("implicit", n=12)
    unknown = dataclasses.replace(known, couplings=dataclasses.replace(known.couplings, diagonal=None))
    sampler = samplers.Bifurcation(200)
    np.testing.assert_allclose(sampler(jax.random.key(0), unknown, 16).best_energy, problems.lowest(known))


def test_a_complete_graph_given_as_sparse_and_a_disconnected_one() -> None:
    """The complete one, of 18 bits, is swept as a matrix."""
    n, rng = 18, np.random.default_rng(2)
    rows, cols = np.triu_indices(n, 1)
    complete = Sparse.from_edges(n, rows, cols, rng.choice([-1, 1], rows.size))
    dense = Qubo.from_terms(np.zeros(n, np.float32), problems.matrix_of(complete))
    crowded = Qubo.from_terms(np.zeros(n, np.float32), complete)
    sampler = samplers.Anneal(60)
    np.testing.assert_array_equal(
        sampler(jax.random.key(0), crowded, 8).best_energy, sampler(jax.random.key(0), dense, 8).best_energy
    )
    apart = Qubo.from_terms(np.ones(9, np.float32), Sparse.from_edges(9, [0, 3], [1, 4], [-3.0, -5.0]))
    assert float(sampler(jax.random.key(0), apart, 8).best_energy) == -4.0
