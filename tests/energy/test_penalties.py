"""Penalties: zero on states that satisfy the groups, and heavy enough for the minimum to satisfy them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qjax import Gram, Implicit, Qubo, Sparse
from qjax.energy import penalties

N = 6
STATES = np.array(list(itertools.product([0, 1], repeat=N)), np.int8)
GROUPS = np.array([[0, 2, 4], [1, 3, 5]])
RNG = np.random.default_rng(3)


def _qubo(form, batch=()):
    matrix = RNG.normal(size=(N, N)).astype(np.float32)
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0)
    rows, cols = np.triu_indices(N, 1)
    couplings = {
        "dense": lambda: matrix,
        "sparse": lambda: Sparse.from_edges(N, rows, cols, matrix[rows, cols]),
        "gram": lambda: Gram(jnp.asarray(RNG.normal(size=(3, N)), jnp.float32)),
        "implicit": lambda: Implicit(Partial(jnp.matmul, jnp.asarray(matrix)), N),
    }[form]()
    return Qubo.from_terms(RNG.normal(size=(*batch, N)), couplings, scale=RNG.uniform(0.5, 2.0, size=batch))


@pytest.mark.parametrize("form", ["dense", "sparse", "gram", "implicit"])
def test_one_hot_is_the_squared_violation(form):
    qubo = _qubo(form)
    penalty = penalties.one_hot(qubo, GROUPS, weight=3.0)
    violation = ((STATES[:, GROUPS].sum(-1) - 1) ** 2).sum(-1)
    np.testing.assert_allclose(penalty.energies(STATES), float(qubo.scale) * 3.0 * violation, atol=1e-4)
    both = (qubo + penalty).energies(STATES)
    np.testing.assert_allclose(both, qubo.energies(STATES) + penalty.energies(STATES), atol=1e-4)


@pytest.mark.parametrize("form", ["dense", "sparse", "gram", "implicit"])
def test_the_automatic_weight_keeps_the_minimum_feasible(form):
    for _ in range(5):
        qubo = _qubo(form)
        for penalty, satisfied in (
            (penalties.one_hot(qubo, GROUPS), (STATES[:, GROUPS].sum(-1) == 1).all(-1)),
            (penalties.cardinality(qubo, 4), STATES.sum(-1) == 4),
        ):
            best = int(np.argmin((qubo + penalty).energies(STATES)))
            assert satisfied[best]
            assert float(qubo.energies(STATES[best])) == pytest.approx(
                float(qubo.energies(STATES[satisfied]).min()), abs=1e-4
            )


def test_a_batch_keeps_sharing_its_couplings():
    qubo = _qubo("dense", (2,))
    whole = qubo + penalties.cardinality(qubo, 2, indices=[0, 1, 2], weight=1.5)
    violation = (STATES[:, :3].sum(-1) - 2) ** 2
    states = np.broadcast_to(STATES, (2, *STATES.shape))
    expected = qubo.energies(states) + 1.5 * np.asarray(qubo.scale)[:, None] * violation
    np.testing.assert_allclose(whole.energies(states), expected, atol=1e-4)
    assert whole.couplings.to_dense().shape == (N, N)


def test_sparsity_counts():
    qubo = _qubo("sparse")
    counts = np.arange(N)
    penalty = penalties.sparsity(qubo, counts, 0.5)
    np.testing.assert_allclose(penalty.energies(STATES), float(qubo.scale) * 0.5 * (STATES @ counts), atol=1e-4)


def test_no_groups_no_penalty():
    qubo = _qubo("dense")
    np.testing.assert_array_equal(penalties.constraints(qubo, []).energies(STATES), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: penalties.one_hot(q, [[0, 9]]), "groups"),
        (lambda q: penalties.one_hot(q, [0, 1]), "groups"),
        (lambda q: penalties.cardinality(q, 7), "cannot have 7"),
        (lambda q: penalties.cardinality(q, -1), "cannot have -1"),
        (lambda q: penalties.cardinality(q, 2, weight=-1.0), "positive"),
        (lambda q: penalties.cardinality(q, 2, weight=float("nan")), "positive"),
        (lambda q: penalties.sparsity(q, np.ones(N), -1.0), "negative"),
        (lambda q: penalties.sparsity(q, np.ones(N), float("nan")), "finite"),
        (lambda q: penalties.cardinality(q, 2, weight=float("inf")), "finite"),
        (lambda q: penalties.one_hot(q, [[0, 2, 2]]), "once"),
        (lambda q: penalties.sparsity(q, np.ones(2), 1.0), "counts"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(_qubo("dense"))


def _ferromagnet(form):
    """E = -sum of x_i x_j over the pairs of bits 0 .. 59 of 100: each bit set lowers E by the number set before it."""
    matrix = np.zeros((100, 100), np.float32)
    matrix[:60, :60] = -1.0
    np.fill_diagonal(matrix, 0)
    rows, cols = np.triu_indices(60, 1)
    couplings = matrix if form == "dense" else Sparse.from_edges(100, rows, cols, matrix[rows, cols])
    return Qubo.from_terms(np.zeros(100, np.float32), couplings)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_the_bound_keeps_the_minimum_feasible_where_random_states_miss_the_largest_flip(form):
    qubo = _ferromagnet(form)
    # By symmetry the minimum sets the first bits: k of them for every k.
    states = np.tril(np.ones((101, 100), np.int8), -1)
    estimated = (qubo + penalties.cardinality(qubo, 50)).energies(states)
    bounded = (qubo + penalties.cardinality(qubo, 50, weight=penalties.flip_bound(qubo))).energies(states)
    assert int(np.argmin(estimated)) > 50
    assert int(np.argmin(bounded)) == 50


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_no_flip_passes_the_bound(form):
    qubo = _qubo(form)
    largest = float(jnp.abs(qubo.flips(STATES)).max() / qubo.scale)
    assert largest <= float(penalties.flip_bound(qubo)) * (1 + 1e-5)
    with pytest.raises(ValueError, match="flip_bound"):
        penalties.flip_bound(_qubo("gram"))


@pytest.mark.parametrize("form", ["dense", "sparse", "gram", "implicit"])
def test_a_penalty_costs_also_under_a_negative_scale(form):
    qubo = -1.0 * _qubo(form)
    violation = (STATES[:, :3].sum(-1) - 2) ** 2
    penalty = penalties.cardinality(qubo, 2, indices=[0, 1, 2], weight=1.5)
    np.testing.assert_allclose(penalty.energies(STATES), -float(qubo.scale) * 1.5 * violation, atol=1e-4)
    sparse = penalties.sparsity(qubo, np.ones(N), 0.5)
    np.testing.assert_allclose(sparse.energies(STATES), -float(qubo.scale) * 0.5 * STATES.sum(-1), atol=1e-4)


@pytest.mark.parametrize("batch", [(), pytest.param((2,), marks=pytest.mark.slow)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("form", ["dense", "sparse", "gram", "implicit"])
def test_a_compiled_penalty_is_the_eager_one(form, sign, batch):
    """With the Qubo an argument, whose scale is of unknown sign then, and as a constant; its own weight and a given."""
    qubo = sign * _qubo(form, batch)
    states = np.broadcast_to(STATES, (*batch, *STATES.shape))

    def energies(problem, weight):
        penalty = penalties.one_hot(problem, GROUPS, weight) + penalties.sparsity(problem, np.arange(N), 0.5)
        return penalty.energies(states), (problem + penalty).energies(states), penalty.flips(states)

    for weight in (None, 3.0):
        eager = energies(qubo, weight)
        assert np.all(np.asarray(eager[0]) > -1e-4)
        compiled = jax.jit(lambda problem, weight=weight: energies(problem, weight))(qubo)
        constant = jax.jit(lambda weight=weight: energies(qubo, weight))()
        for values in (compiled, constant):
            for found, expected in zip(values, eager, strict=True):
                np.testing.assert_allclose(found, expected, atol=2e-4)
    traced = jax.jit(lambda problem, weight: energies(problem, weight))(qubo, 3.0)
    np.testing.assert_allclose(traced[1], eager[1], atol=2e-4)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_compiled_bound_is_the_eager_one(form):
    qubo = -1.0 * _qubo(form)
    np.testing.assert_allclose(jax.jit(penalties.flip_bound)(qubo), penalties.flip_bound(qubo), rtol=1e-6)


def test_scales_of_both_signs_are_refused():
    mixed = Qubo.from_terms(np.zeros((2, N), np.float32), np.zeros((N, N), np.float32), scale=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="one sign"):
        penalties.cardinality(mixed, 2, weight=1.0)
    unknown = jax.jit(lambda qubo: penalties.cardinality(qubo, 2, weight=1.0).energies(np.ones((2, 1, N))))
    assert np.isnan(unknown(mixed)).all()


def test_groups_of_one_shape_are_drawn_apart():
    coupled = np.zeros((5, 5), np.float32)
    coupled[0, 4] = coupled[4, 0] = 1.0
    coupled[1, 4] = coupled[4, 1] = -1.0
    cancelling = Qubo.from_terms(np.zeros(5, np.float32), coupled)
    # The field of bit 4 is x_0 - x_1, which would always be 0 if both groups shared their random numbers.
    fields = penalties.flip_range(cancelling, [([[0, 2]], 1), ([[1, 3]], 1), ([[4]], 0)])
    assert float(fields) == 1.0
