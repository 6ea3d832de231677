"""The energy: every form of couplings against the plain double sum, on all states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qjax import Dense, Gram, Implicit, Labels, Qubo, Sparse
from qjax.energy import couplings as forms
from qjax.energy import penalties

N = 6
STATES = np.array(list(itertools.product([0, 1], repeat=N)), np.int8)


def _multiply(matrix, x):
    return jnp.matmul(matrix, x, precision="highest")


def _couplings(form):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(N, N)).astype(np.float32)
    matrix = matrix + matrix.T
    if form == "implicit":
        return Implicit(Partial(_multiply, jnp.asarray(matrix)), N, jnp.diagonal(jnp.asarray(matrix))), matrix
    if form == "gram":
        factor = rng.normal(size=(4, N)).astype(np.float32)
        matrix = factor.T @ factor
        np.fill_diagonal(matrix, 0)
        return Gram(jnp.asarray(factor)), matrix
    np.fill_diagonal(matrix, 0)
    if form == "dense":
        return Dense(jnp.asarray(matrix)), matrix
    rows, cols = np.triu_indices(N, 1)
    weights = rng.integers(-3, 4, rows.size) if form == "sparse integer" else matrix[rows, cols]
    matrix = np.zeros((N, N), np.float32)
    matrix[rows, cols] = weights
    return Sparse.from_edges(N, rows, cols, weights), matrix + matrix.T


FORMS = ["dense", "gram", "implicit", "sparse", "sparse integer"]


def _qubo(form, batch=()):
    rng = np.random.default_rng(2)
    couplings, matrix = _couplings(form)
    linear, offset = rng.normal(size=(*batch, N)), rng.normal(size=batch)
    scale = rng.uniform(0.5, 2, size=batch)
    qubo = Qubo.from_terms(linear, couplings, offset, scale)
    inner = offset[..., None] + linear @ STATES.T
    quadratic = 0.5 * np.einsum("ri,ij,rj->r", STATES, matrix, STATES)
    return qubo, scale[..., None] * (inner + quadratic)


@pytest.mark.parametrize("form", FORMS)
def test_energies_of_all_states(form):
    qubo, expected = _qubo(form)
    np.testing.assert_allclose(qubo.energies(STATES), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_batched_linear_terms_share_the_couplings(form):
    qubo, expected = _qubo(form, batch=(3,))
    np.testing.assert_allclose(qubo.energies(np.broadcast_to(STATES, (3, *STATES.shape))), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_flips_are_energy_differences(form):
    qubo, energies = _qubo(form)
    by_state = {tuple(s): e for s, e in zip(STATES.tolist(), energies, strict=True)}
    flipped = np.array(
        [[by_state[tuple(np.bitwise_xor(s, np.eye(N, dtype=int)[i]))] for i in range(N)] for s in STATES]
    )
    np.testing.assert_allclose(qubo.flips(STATES), flipped - energies[:, None], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_fields_are_gradients(form):
    qubo, _ = _qubo(form)
    x = jnp.asarray(STATES[13], jnp.float32)
    np.testing.assert_allclose(qubo.fields(x), jax.grad(lambda v: qubo.energies(v))(x), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_spin_view(form):
    qubo, expected = _qubo(form)
    ising = qubo.ising()
    s = 2.0 * STATES - 1
    matrix = np.asarray(ising.couplings.to_dense())
    inner = s @ np.asarray(ising.fields) + 0.5 * ising.factor * np.einsum("ri,ij,rj->r", s, matrix, s)
    np.testing.assert_allclose(float(qubo.scale) * (float(ising.offset) + inner), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_fix_agrees_on_the_states_with_those_values(form):
    qubo, expected = _qubo(form)
    fixed = qubo.fix([4, 1], [1, 0])
    chosen = (STATES[:, 4] == 1) & (STATES[:, 1] == 0)
    np.testing.assert_allclose(fixed.energies(STATES[chosen][:, [0, 2, 3, 5]]), expected[chosen], atol=1e-5)
    assert [fixed.labels[i] for i in range(4)] == [0, 2, 3, 5]
    assert fixed.fix([0, 1, 2, 3], [0, 0, 0, 0]).num_bits == 0


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations_with_replacement(FORMS, 2)))
def test_sums(a, b):
    (left, left_energies), (right, right_energies) = _qubo(a), _qubo(b)
    np.testing.assert_allclose((left + right).energies(STATES), left_energies + right_energies, atol=2e-5)
    shifted = left + Qubo.from_terms(np.zeros(N), right.couplings, scale=-3.0)
    other = -3.0 * Qubo.from_terms(np.zeros(N), right.couplings)
    np.testing.assert_allclose(shifted.energies(STATES), left_energies + other.energies(STATES), atol=3e-5)


@pytest.mark.parametrize("form", FORMS)
def test_passes_through_jit_vmap_and_grad(form):
    qubo, expected = _qubo(form)
    traces = []

    @jax.jit
    def energies(problem, states):
        traces.append(1)
        return problem.energies(states)

    np.testing.assert_allclose(energies(qubo, STATES), expected, atol=1e-5)
    energies(2.0 * qubo, STATES)
    assert len(traces) == 1
    over_states = jax.vmap(lambda state: qubo.energies(state))(jnp.asarray(STATES))
    np.testing.assert_allclose(over_states, expected, atol=1e-5)
    slope = jax.grad(lambda h: Qubo.from_terms(h, qubo.couplings).energies(STATES[-1]))(qubo.linear)
    np.testing.assert_allclose(slope, np.ones(N))


@pytest.mark.parametrize("form", ["dense", "gram", "sparse", "sparse integer"])
def test_save_and_load(form, tmp_path):
    qubo, expected = _qubo(form)
    labelled = Qubo(qubo.offset, qubo.linear, qubo.couplings, qubo.scale, Labels((("head/kernel", (2, 3)),)))
    labelled.save(tmp_path / "problem.npz")
    loaded = Qubo.load(tmp_path / "problem.npz")
    np.testing.assert_allclose(loaded.energies(STATES), expected, atol=1e-5)
    assert loaded.labels[4] == ("head/kernel", (1, 1))
    (tmp_path / "plain").touch()
    assert (tmp_path / "problem.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode
    whole = (tmp_path / "problem.npz").read_bytes()
    (tmp_path / "problem.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable Qubo file"):
        Qubo.load(tmp_path / "problem.npz")


def test_implicit_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="cannot be saved"):
        _qubo("implicit")[0].save(tmp_path / "problem.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("triangle", ["upper", "lower", "full"])
def test_matrix_conversion_takes_any_triangle(triangle):
    matrix = np.random.default_rng(3).normal(size=(N, N)).astype(np.float32)
    matrix = {"upper": np.triu, "lower": np.tril, "full": np.asarray}[triangle](matrix)
    qubo = Qubo.from_matrix(matrix, offset=0.5)
    expected = 0.5 + np.einsum("ri,ij,rj->r", STATES, matrix, STATES)
    np.testing.assert_allclose(qubo.energies(STATES), expected, atol=1e-5)
    constant, back = (2.0 * qubo).to_matrix()
    np.testing.assert_allclose(constant + np.einsum("ri,ij,rj->r", STATES, back, STATES), 2 * expected, atol=1e-5)


def test_ising_conversion():
    rng = np.random.default_rng(4)
    j = np.triu(rng.normal(size=(N, N)), 1).astype(np.float32)
    h = rng.normal(size=N)
    s = 2.0 * STATES - 1
    qubo = Qubo.from_ising(h, j + j.T, offset=0.25)
    np.testing.assert_allclose(qubo.energies(STATES), 0.25 + s @ h + np.einsum("ri,ij,rj->r", s, j, s), atol=1e-5)


def test_no_bits():
    for couplings in (forms.empty(0), Dense(jnp.zeros((0, 0)))):
        qubo = Qubo.from_terms(np.zeros(0), couplings, offset=2.0)
        assert qubo.energies(np.zeros((3, 0))).tolist() == [2.0, 2.0, 2.0]
        assert qubo.flips(np.zeros((3, 0))).shape == (3, 0)


def test_sparse_classes_hold_no_coupled_pair_and_merge_repeated_edges():
    """A random graph with repeated edges, and one site coupled to all others."""
    n, rng = 40, np.random.default_rng(5)
    rows, cols = rng.integers(0, n, 200), rng.integers(0, n, 200)
    rows, cols = np.append(rows[rows != cols], np.zeros(n - 1, int)), np.append(cols[rows != cols], np.arange(1, n))
    sparse = Sparse.from_edges(n, rows, cols, np.ones(rows.size))
    expected = np.zeros((n, n), np.float32)
    np.add.at(expected, (rows, cols), 1)
    expected = expected + expected.T
    assert expected.max() > 1
    np.testing.assert_array_equal(sparse.to_dense(), expected)
    order, start = np.asarray(sparse.order), 0
    for sizes in sparse.classes:
        members = order[start : start + sum(sizes)]
        assert not expected[np.ix_(members, members)].any()
        start += sum(sizes)
    assert sparse.integer_dtype == "int8"
    np.testing.assert_array_equal(sparse.row(7), expected[7])


BIG = 3_000_000_000  # more than an int32 holds


def _sparse_of(weight):
    return Qubo.from_terms([0, 0], Sparse.from_edges(2, [0], [1], [weight]))


@pytest.mark.parametrize("number", [int, np.int64, np.uint64], ids=["int", "int64", "uint64"])
@pytest.mark.parametrize(
    ("call", "bits"),
    [
        (lambda big: Qubo.from_matrix(np.array([[big]])), [1]),
        (lambda big: Qubo.from_matrix([[big]]), [1]),
        (lambda big: Qubo.from_terms(np.array([big]), np.zeros((1, 1), int)), [1]),
        (lambda big: Qubo.from_terms([0, 0], np.array([[0, big], [big, 0]])), [1, 1]),
        (lambda big: Qubo.from_terms([0], [[0]], offset=big), [0]),
        (lambda big: Qubo.from_terms([1], [[0]], scale=big), [1]),
        (lambda big: big * Qubo.from_terms([1], [[0]]), [1]),
        (lambda big: Qubo.from_ising([big], [[0]]), [1]),
        (lambda big: Qubo.from_ising([0, 0], np.array([[0, big], [big, 0]])), [1, 1]),
        (lambda big: Qubo.from_ising([0], [[0]], offset=big), [0]),
        (_sparse_of, [1, 1]),
        (lambda big: Qubo.from_terms([0, 0], Dense(np.array([[0, big], [big, 0]]))), [1, 1]),
        (lambda big: penalties.cardinality(_sparse_of(1), 0, weight=big), [1, 0]),
        (lambda big: penalties.cardinality(Qubo.from_matrix([[1, 1], [0, 1]]), 0, weight=big), [1, 0]),
        (lambda big: penalties.sparsity(_sparse_of(1), [1, 0], big), [1, 0]),
        (lambda big: penalties.sparsity(_sparse_of(1), np.array([big, 0]), 1), [1, 0]),
    ],
)
def test_no_integer_of_the_host_wraps(call, bits, number):
    assert float(call(number(BIG)).energies(bits)) == np.float32(BIG)


def test_host_integers_inside_an_operator_reach_a_compiled_program():
    factor = np.array([[BIG, BIG]])
    qubo = Qubo.from_terms([0, 0], Gram(factor))
    assert float(jax.jit(lambda q: q.energies([1, 1]))(qubo)) == pytest.approx(float(BIG) ** 2)
    apart = Implicit(Partial(_multiply, jnp.zeros((2, 2))), 2, np.array([BIG, 0]))
    assert float(Qubo.from_terms([0, 0], apart).flips([0, 0])[0]) == np.float32(BIG) / 2
    with pytest.raises(ValueError, match="0 or 1"):
        qubo.fix([0], np.array([2**32 + 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Qubo.from_matrix(np.zeros((2, 3))), "square"),
        (lambda: Qubo.from_matrix(np.full((2, 2), np.nan)), "finite"),
        (lambda: Qubo.from_matrix(np.full((2, 2), np.inf)), "finite"),
        (lambda: Qubo.from_terms(np.zeros(3), np.zeros((2, 2))), "linear has 3"),
        (lambda: Qubo.from_terms(np.zeros(2), np.array([[0.0, 1], [0, 0]])), "symmetric"),
        (lambda: Qubo.from_terms(np.zeros(2), np.eye(2)), "zero diagonal"),
        (lambda: Qubo.from_terms(np.zeros((2, 2)), np.zeros((2, 2)), offset=np.zeros(3)), "offset"),
        (lambda: Qubo.from_terms(np.zeros(2), np.zeros((2, 2)), labels=Labels.range(3)), "labels"),
        (lambda: Sparse.from_edges(3, [0], [3], [1.0]), "0 .. 2"),
        (lambda: Sparse.from_edges(3, [1], [1], [1.0]), "itself"),
        (lambda: Sparse.from_edges(3, [0], [1], [np.nan]), "finite"),
        (lambda: _qubo("dense")[0].energies(np.zeros(5)), "bits must have shape"),
        (lambda: _qubo("dense", (3,))[0].energies(np.zeros((4, N))), "bits must have shape"),
        (lambda: _qubo("dense")[0].fix([0, 0], [1, 1]), "distinct"),
        (lambda: _qubo("dense")[0].fix([0, 1], [1]), "values must have shape"),
        (lambda: _qubo("dense")[0].fix([0], [2]), "values must be 0 or 1"),
        (lambda: _qubo("dense")[0] + Qubo.from_matrix(np.zeros((2, 2))), "cannot add"),
        (lambda: _qubo("dense", (3,))[0].to_matrix(), "batch"),
        (
            lambda: Qubo.from_terms(np.zeros(2), Implicit(Partial(_multiply, jnp.eye(2)), 2)).flips(np.zeros(2)),
            "diagonal",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
