"""One set of tests for every registered sampler: the registry feeds it, so a new sampler is tested by being named."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.energy.couplings import Dense, Implicit, Sparse
from qjax.energy.qubo import Qubo
from tests.samplers import problems

# Short settings that still find the minimum of ten bits.
SETTINGS: dict[str, dict[str, Any]] = {
    "anneal": {"num_sweeps": 40},
    "auto": {"num_sweeps": 100},
    "decompose": {"sampler": samplers.Anneal(num_sweeps=5), "size": 8, "num_rounds": 6, "sub_reads": 2},
    "bifurcation": {"num_steps": 120, "readout_every": 10},
    "neal": {"num_sweeps": 100},
    "mean_field": {"num_steps": 100, "readout_every": 10},
    "path_integral": {"num_sweeps": 40, "num_slices": 4},
    "qaoa": {"num_layers": 4, "num_steps": 15, "shots_per_read": 64},
    "population": {"num_betas": 10, "sweeps_per_beta": 2, "population_size": 6},
    "tabu": {"num_sweeps": 12, "phase_sweeps": 3},
    "temper": {"num_sweeps": 20, "num_betas": 4},
}
JAX_NAMES = tuple(row.name for row in samplers.table() if not row.host)
NAMES = (*JAX_NAMES, *(name for name in samplers.names() if name not in JAX_NAMES))
OPTIMISERS = tuple(name for name in NAMES if name != "random")
KEY = 7


def each(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """The tests of one sampler run in a row, on problems of equal shapes: what one compiled the next can use."""
    return pytest.mark.parametrize("name", names, scope="module")


def problem(form: str, batch: tuple[int, ...] = ()) -> Qubo:
    """Of 10 bits; sparse ones of 12, from which on they are swept by colour classes, and of another seed: of seed 0
    mean_field misses the minimum from all starts."""
    return problems.qubo(form, 12, batch, seed=1) if form == "sparse" else problems.qubo(form, 10, batch)


def make(name: str) -> Any:
    return samplers.get(name, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("form", problems.FORMS)
@each(NAMES)
def test_bits_energies_and_minimum(name: str, form: str) -> None:
    """Shapes and dtypes, energies equal to the Qubo's, the same key the same bits, and the exact minimum found.

    The minimum is missed only if all 8 reads of a problem fail; with these fixed seeds it is not.
    """
    batch = () if form == "dense" else (3,)
    qubo, sampler = problem(form, batch), make(name)
    samples = sampler(jax.random.key(KEY), qubo, 8)
    assert samples.bits.shape == (*batch, 8, qubo.num_bits) and samples.bits.dtype == jnp.int8
    assert samples.energies.shape == (*batch, 8)
    assert set(np.unique(samples.bits)) <= {0, 1}
    np.testing.assert_allclose(samples.energies, problems.energies(qubo, samples.bits), rtol=1e-6, atol=1e-5)
    again = sampler(jax.random.key(KEY), qubo, 8)
    np.testing.assert_array_equal(samples.bits, again.bits)
    if name in OPTIMISERS:
        np.testing.assert_allclose(samples.best_energy, problems.lowest(qubo), rtol=1e-6, atol=1e-5)


@each(JAX_NAMES)
def test_equal_samplers_trace_once_and_calls_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key and other numbers trace nothing; a read is the same inside jit and vmap and among more reads, also of
    a batch."""
    kind, traces = samplers.sampler_class(name), []
    init = kind.init

    def counted(self: Any, *args: Any) -> Any:
        traces.append(name)
        return init(self, *args)

    monkeypatch.setattr(kind, "init", counted)
    batch, keys = problem("sparse", (3,)), jax.random.split(jax.random.key(KEY), 2)
    plain = make(name)(keys[0], batch, 4)
    first = len(traces)
    assert first >= 1
    make(name)(keys[1], dataclasses.replace(batch, linear=batch.linear + 1), 4)
    make(name)(keys[1], batch, 4)
    assert len(traces) == first
    np.testing.assert_array_equal(plain.bits, make(name)(keys[0], batch, 8).bits[:, :4])

    dense = problem("dense")
    inside = jax.jit(jax.vmap(lambda key, qubo: make(name)(key, qubo, 4), in_axes=(0, None)))(keys, dense)
    np.testing.assert_array_equal(inside.bits, [make(name)(key, dense, 8).bits[:4] for key in keys])


@each(tuple(name for name in NAMES if name != "exact"))
def test_keys_and_problems_have_separate_random_numbers(name: str) -> None:
    """Free bits, 8 reads of three equal problems: those of two keys agree with probability below 1e-86, those of two
    problems with 1e-28; two of the 24 reads agree under both keys with 2e-5. `auto` gets 40 bits: 12 it enumerates."""
    like = problems.qubo("sparse", 40, (3,)) if name == "auto" else problem("sparse", (3,))
    graph, zeros = like.couplings, np.zeros_like(like.linear)
    free = dataclasses.replace(graph, weights=tuple(jnp.zeros_like(weights) for weights in graph.weights))
    qubo = Qubo.from_terms(zeros, free)
    sampler = samplers.get("random") if name == "random" else make(name)
    one, two = (np.asarray(sampler(jax.random.key(k), qubo, 8).bits) for k in (1, 2))
    assert (one != two).any() and len({problem.tobytes() for problem in one}) == 3
    assert len({row.tobytes() for row in np.concatenate([one, two], -1).reshape(24, -1)}) == 24


@pytest.mark.parametrize(("name", "form"), list(zip(NAMES, itertools.cycle(["dense", "sparse"]), strict=False)))
def test_sizes_zero_and_one(name: str, form: str) -> None:
    """One bit in the named form; no bits at all, which the driver answers itself, in the other."""

    def of(form: str, linear: np.ndarray) -> Qubo:
        return Qubo.from_terms(linear, problems.couplings(form, linear.size), 2.0)

    other = "sparse" if form == "dense" else "dense"
    empty = make(name)(jax.random.key(0), of(other, np.zeros(0, np.float32)), 3)
    assert empty.bits.shape == (3, 0)
    np.testing.assert_allclose(empty.energies, 2.0)
    single = make(name)(jax.random.key(0), of(form, np.array([-3.0], np.float32)), 8)
    if name in OPTIMISERS:
        np.testing.assert_allclose(single.best_energy, -1.0)


@each(OPTIMISERS)
def test_zero_couplings_zero_linear_and_negative_scale(name: str) -> None:
    linear, zeros = np.array([1, -2, 3, 0, 0, 0, 0, 0, 0, 0], np.float32), np.zeros((10, 10), np.float32)
    free = Qubo.from_terms(linear, zeros)
    np.testing.assert_allclose(make(name)(jax.random.key(0), free, 8).best_energy, -2.0)
    np.testing.assert_allclose(make(name)(jax.random.key(0), free * -1.0, 8).best_energy, -4.0)
    nothing = Qubo.from_terms(0 * linear, zeros)
    np.testing.assert_array_equal(make(name)(jax.random.key(0), nothing, 8).energies, 0.0)
    coupled = zeros.copy()
    coupled[0, 1] = coupled[1, 0] = -1.0
    pair = Qubo.from_terms(0 * linear, coupled)
    np.testing.assert_allclose(make(name)(jax.random.key(0), pair, 8).best_energy, -1.0)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # of dwave-samplers, at these ranges
@pytest.mark.parametrize("form", ["dense", "sparse"])
@each(OPTIMISERS)
@pytest.mark.slow
def test_huge_ranges_of_coefficients(name: str, form: str) -> None:
    """Scaled by 1e-12 and 1e12: no NaN, and still the minimum. Mixed ranges of 24 decades: finite."""

    unit, sampler = problem(form), make(name)
    n, linear, matrix = unit.num_bits, np.asarray(unit.linear), problems.matrix_of(unit.couplings)

    def scaled(of_bits: Any, of_pairs: Any) -> Qubo:
        pairs = (matrix * of_pairs).astype(np.float32)
        rows, cols = np.nonzero(np.triu(matrix))
        sparse = Sparse.from_edges(n, rows, cols, pairs[rows, cols])
        couplings = sparse if form == "sparse" else Dense(jnp.asarray(pairs))
        return Qubo.from_terms((linear * of_bits).astype(np.float32), couplings)

    for size in (1e-12, 1e12):
        qubo = scaled(size, size)
        np.testing.assert_allclose(sampler(jax.random.key(KEY), qubo, 8).best_energy, problems.lowest(qubo), rtol=1e-5)
    spread = 10.0 ** np.random.default_rng(0).uniform(-12, 12, (n, n))
    mixed = scaled(spread[0], spread + spread.T)
    assert np.isfinite(sampler(jax.random.key(KEY), mixed, 8).energies).all()


# `exact`, and so `auto` on problems of this size, enumerates, whatever the initial states are.
WARM = tuple(name for name in OPTIMISERS if name not in ("exact", "auto"))


@pytest.mark.parametrize(("name", "form"), list(zip(WARM, itertools.cycle(["dense", "sparse"]), strict=False)))
def test_initial_states_are_used(name: str, form: str) -> None:
    """Started in the exact minimum, no sampler that keeps its best ends higher; states may be broadcast."""
    qubo = problem(form)
    states = problems.all_states(qubo.num_bits)
    start = states[problems.energies(qubo, states).argmin()]
    cold = {
        "anneal": {"num_sweeps": 5, "beta_range": (20.0, 30.0)},
        "neal": {"num_sweeps": 5, "beta_range": (20.0, 30.0)},
    }
    sampler = samplers.get(name, **cold.get(name, SETTINGS.get(name, {})))
    samples = sampler(jax.random.key(0), qubo, 4, start)
    reached = samples.best_energy if name == "bifurcation" else samples.energies
    np.testing.assert_allclose(reached, problems.lowest(qubo))
    tiled = sampler(jax.random.key(0), qubo, 4, np.tile(start, (4, 1)))
    np.testing.assert_array_equal(tiled.bits, samples.bits)


@each(NAMES)
def test_bad_arguments_are_named(name: str) -> None:
    qubo, sampler, key = problems.qubo("dense"), make(name), jax.random.key(0)
    for bad in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="num_reads"):
            sampler(key, qubo, bad)
    with pytest.raises(ValueError, match="qubo"):
        sampler(key, np.eye(3), 4)
    with pytest.raises(ValueError, match="key"):
        sampler(3, qubo, 4)
    with pytest.raises(ValueError, match="key"):
        sampler(jax.random.split(key, 2), qubo, 4)
    with pytest.raises(ValueError, match="initial_states"):
        sampler(key, qubo, 4, np.zeros((3, 10)))
    for bad in (np.full(10, -1), jnp.full(10, -1), jnp.full(10, 0.2), jnp.full(10, jnp.nan), [0.5] * 10):
        with pytest.raises(ValueError, match="0 and 1 only"):
            sampler(key, qubo, 4, bad)


def test_states_of_a_compiled_program_are_looked_at_where_they_are_constants() -> None:
    qubo, key, bad = problems.qubo("dense"), jax.random.key(0), jnp.full(10, 0.2)
    with pytest.raises(ValueError, match="0 and 1 only"):
        jax.jit(lambda key: samplers.Random()(key, qubo, 2, bad).bits)(key)
    traced = jax.jit(lambda states: samplers.Anneal(1, beta_range=(90.0, 99.0))(key, qubo, 2, states).bits)
    np.testing.assert_array_equal(traced(bad), traced(jnp.ones(10)))


@each(JAX_NAMES)
def test_old_style_keys_are_taken(name: str) -> None:
    qubo = problems.qubo("dense")
    old, new = (make(name)(k, qubo, 8).bits for k in (jax.random.PRNGKey(3), jax.random.key(3)))
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["greedy", "anneal", "decompose", "path_integral", "population", "tabu", "temper"])
def test_flips_need_the_diagonal_of_implicit_couplings(name: str) -> None:
    known = problems.qubo("implicit")
    unknown = dataclasses.replace(known, couplings=Implicit(known.couplings.apply, 10, None))
    with pytest.raises(ValueError, match="diagonal"):
        make(name)(jax.random.key(0), unknown, 2)


@pytest.mark.slow
def test_reads_sharded_over_eight_devices_give_the_same_bits() -> None:
    """In a separate process, where XLA is told to show eight CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    script = os.path.join(os.path.dirname(__file__), "sharded_reads.py")
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["QJAX_PALLAS"] = "0"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("same bits:")]
    assert set(line.split()[2:]) == set(JAX_NAMES)
