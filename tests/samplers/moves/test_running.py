"""Energies added up over many sweeps stay those of the bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import qjax.samplers as samplers
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers import streams
from qjax.samplers.contract import Task
from qjax.samplers.moves import running
from tests.samplers import problems

_BITS, _READS = 16, 4


def _qubo(form: str = "dense") -> Qubo:
    """Coefficients that no float32 sum of them has exactly: thirds, under a common field that makes energies large."""
    rng = np.random.default_rng(0)
    pairs = np.triu(rng.normal(size=(_BITS, _BITS)), 1) / 3
    linear = (rng.normal(size=_BITS) - 1000) / 3
    rows, cols = np.nonzero(pairs if form == "dense" else np.triu(pairs, 1) - np.triu(pairs, 3))
    sparse = Sparse.from_edges(_BITS, rows, cols, pairs[rows, cols])
    return Qubo.from_terms(linear[None], (pairs + pairs.T).astype(np.float32) if form == "dense" else sparse, scale=-2)


def _task(qubo: Qubo, repeats: Any = None) -> Task:
    reads = jnp.arange(_READS, dtype=jnp.uint32)
    return Task(qubo, reads, streams.seeds(jax.random.key(0), reads, 1), None, _READS, repeats)


def _ran(sampler: Any, task: Task) -> tuple[Any, Any, Any]:
    """(prepared, state before the first step, state after the last one)."""

    @jax.jit
    def run() -> tuple[Any, Any]:
        prepared = sampler.prepare(task)
        first = sampler.init(task, prepared)
        return first, lax.fori_loop(0, sampler.length(task), lambda t, s: sampler.step(task, prepared, t, s), first)

    return (sampler.prepare(task), *run())


def _exact(qubo: Qubo, bits: Any) -> np.ndarray:
    """E/scale - offset of bits (n, D) in double precision, (D,)."""
    plain = replace(qubo, offset=0 * qubo.offset, scale=1 + 0 * qubo.scale)
    return problems.energies(plain, np.asarray(bits).T[None])[0]


# What sums of 512 changes were off by, at most, was half of this; without refreshing it is passed in every test.
_FEW = 40 * np.spacing(np.float32(_BITS * 334))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_an_anneal_of_many_sweeps(form: str) -> None:
    """100000 hot sweeps, in which the energy wanders over its whole range."""
    qubo = _qubo(form)
    prepared, first, last = _ran(samplers.Anneal(100_000, beta_range=(1e-3, 1.001e-3)), _task(qubo))
    view = prepared.sweeper
    # Up to one constant for all of the read's energies: that of its start, until the first refresh.
    for energy, snapshot in ((last.energy, last.inner), (last.best_energy, last.best)):
        np.testing.assert_allclose(energy, -_exact(qubo, view.unload(view.snapshot(snapshot))), rtol=0, atol=_FEW)
    assert np.all(np.asarray(first.energy) == 0)


def test_a_few_sweeps_are_relative_to_the_start() -> None:
    qubo = _qubo()
    prepared, first, last = _ran(samplers.Anneal(running.EVERY - 1, beta_range=(1e-3, 1.001e-3)), _task(qubo))
    bits = [prepared.sweeper.unload(state.inner) for state in (first, last)]
    np.testing.assert_allclose(last.energy, _exact(qubo, bits[0]) - _exact(qubo, bits[1]), rtol=0, atol=_FEW)


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.slow
def test_tempering_of_many_sweeps(form: str) -> None:
    qubo = _qubo(form)
    sampler = samplers.Temper(60_000, num_betas=4, beta_range=(5e-4, 1e-3), cluster_every=0)
    prepared, _, last = _ran(sampler, _task(qubo))
    view = prepared.sweeper
    running_energy = np.asarray(last.energy).reshape(-1)
    np.testing.assert_allclose(running_energy, _exact(qubo, view.unload(last.inner)), rtol=0, atol=_FEW)
    np.testing.assert_allclose(last.best_energy, -_exact(qubo, view.unload(last.best)), rtol=0, atol=_FEW)


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.Population(60_000, 1, 4, beta_range=(9e-4, 1e-3)),
        samplers.Population(2, 60_000, 4, beta_range=(9e-4, 1e-3)),
    ],
    ids=["steps", "sweeps a step"],
)
@pytest.mark.slow
def test_populations_of_many_sweeps(sampler: Any) -> None:
    qubo = _qubo()
    prepared, _, last = _ran(sampler, _task(qubo))
    view = prepared.sweeper
    np.testing.assert_allclose(np.asarray(last.energy).reshape(-1), _exact(qubo, view.unload(last.inner)), atol=_FEW)
    np.testing.assert_allclose(last.best_energy, -_exact(qubo, view.unload(last.best)), rtol=0, atol=_FEW)


@pytest.mark.slow
def test_slices_of_many_sweeps() -> None:
    qubo = _qubo()
    sampler = samplers.PathIntegral(60_000, 4, beta=2e-3, gamma_range=(900.0, 1000.0))
    prepared, _, last = _ran(sampler, _task(qubo))
    view = prepared.sweeper
    for half, energies in zip((last.even, last.odd), last.energies, strict=True):
        np.testing.assert_allclose(np.asarray(energies).reshape(-1), -_exact(qubo, view.unload(half)), atol=_FEW)
    np.testing.assert_allclose(last.best_energy, -_exact(qubo, view.unload(last.best)), rtol=0, atol=_FEW)


@pytest.mark.slow
def test_a_long_phase_of_tabu() -> None:
    """The elite of one phase of 60000 n flips, its energy as the search had it."""
    qubo = _qubo()
    _, _, last = _ran(samplers.Tabu(60_000, phase_sweeps=60_000, num_elites=1), _task(qubo))
    np.testing.assert_allclose(last.energies[0], -_exact(qubo, np.asarray(last.elites[0]).T), rtol=0, atol=_FEW)


def test_steps_made_many_times_are_refreshed_by_their_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps, each repeated 600 times by `repeated`: refreshed before the sweeps 512, 1024, 1536 and 2048, by one
    program for all numbers of repeats."""
    qubo, seen, traces = problems.qubo("dense"), [], []
    refreshed = running.refreshed

    def spied(view: Any, number: jax.Array, *args: Any) -> Any:
        traces.append(1)
        jax.debug.callback(lambda t: seen.append(int(t)) if t % running.EVERY == 0 else None, number)
        return refreshed(view, number, *args)

    monkeypatch.setattr(running, "refreshed", spied)
    sampler = samplers.Anneal(4, beta_range=(0.1, 0.10001))
    for repeats in (1, 600):
        jax.block_until_ready(sampler.repeated(jax.random.key(0), qubo, 2, None, jnp.int32(repeats)))
        jax.effects_barrier()
    assert seen == [512, 1024, 1536, 2048] and len(traces) == 1
