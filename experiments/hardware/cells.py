"""What do mocks of processors, a noise model and gates make of Table I's hybrid step? Small problems, many samplers.

    formulate -> sampler -> decode (the best candidate by true loss), one round, no descent

Energies against the exact minimum, broken chains, and seconds by phase. Two rows are a **mock** of a D-Wave processor:
software that anneals behind a processor's face, on its graph, through real minor embeddings. `noisy` is the noise model
of `qjax.annealers`, and `qaoa` an exact statevector: no quantum hardware takes part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.hardware.small_problems import SmallGlass, SmallHead
from experiments.harness.account import Account
from experiments.harness.presentation.cells import Cell, Progress, Scale, unheard
from qjax import Ledger, Qubo, Samples, samplers
from qjax.annealers.noise import Noisy
from qjax.hybrid import Sample, formulated, picked
from qjax.rounds import Problem, Round
from qjax.samplers.qaoa import cost_of

SmallProblem = SmallHead | SmallGlass

METHODS = ("exact", "anneal", "neal", "mock-pegasus", "mock-zephyr", "noisy", "qaoa", "random")
MOCKS = {"mock-pegasus": "pegasus", "mock-zephyr": "zephyr"}


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run beside problem, sampler and seed.

    chips: the mocks' topology shapes. precision_bits to readout_error: of the noise model, in units of the chip's
    ranges; numbers of the size that D-Wave states for its processors, not a fit to any of them.
    """

    num_reads: int = 100
    num_sweeps: int = 200
    num_candidates: int = 8
    num_layers: int = 8
    num_steps: int = 100
    pegasus: tuple[int, ...] = (4,)
    zephyr: tuple[int, ...] = (3, 4)
    precision_bits: int = 5
    sigma_h: float = 0.02
    sigma_j: float = 0.02
    readout_error: float = 0.01


def plan(scale: Scale) -> tuple[tuple[SmallProblem, ...], Settings, int]:
    """(problems, settings, seeds)."""
    if scale == "smoke":
        small = Settings(num_reads=20, num_sweeps=20, num_layers=2, num_steps=5, pegasus=(2,), zephyr=(2, 4))
        return (SmallHead(8, rows=200), SmallGlass(8)), small, 1
    seeds = 3 if scale == "default" else 10
    return (SmallHead(), SmallGlass()), Settings(), seeds


def cells(scale: Scale) -> list[Cell]:
    shapes, settings, seeds = plan(scale)
    return [
        _cell({"problem": shape, "method": method, "settings": settings}, seed)
        for shape in shapes
        for seed in range(seeds)
        for method in METHODS
    ]


def _cell(config: dict[str, Any], seed: int) -> Cell:
    shape, method, settings = config["problem"], config["method"], config["settings"]
    return Cell(
        problem=shape.name,
        method=method,
        seed=seed,
        config=config,
        run=functools.partial(run, shape, settings, method, seed),
        sampler=sampler_title(method),
        cost=2.0,
        data=shape.data_title,
        tags={"bits": shape.features if isinstance(shape, SmallHead) else shape.size},
        varied=_cell,
    )


def sampler_title(method: str) -> str:
    """How tables name the sampler of a row."""
    if method in MOCKS:
        return f"MOCK of a D-Wave {MOCKS[method]} chip"
    named = {"noisy": "anneal under the noise model", "qaoa": "statevector simulation"}
    return named.get(method, method)


def row_sampler(settings: Settings, method: str, seed: int) -> Callable[..., Samples]:
    """The sampler of a row, the one thing in which rows differ.

    Errors: ImportError where D-Wave's packages are missing (neal, mocks).
    """
    anneal = samplers.get("anneal", num_sweeps=settings.num_sweeps)
    if method in MOCKS:
        return mock_processor(MOCKS[method], settings, seed)
    choice: dict[str, Callable[[], Any]] = {
        "exact": lambda: samplers.get("exact"),
        "anneal": lambda: anneal,
        "neal": lambda: samplers.get("neal", num_sweeps=settings.num_sweeps),
        "noisy": lambda: Noisy(
            anneal, settings.precision_bits, settings.sigma_h, settings.sigma_j, settings.readout_error
        ),
        "qaoa": lambda: samplers.get("qaoa", num_layers=settings.num_layers, num_steps=settings.num_steps),
        "random": lambda: samplers.get("random"),
    }
    sampler: Callable[..., Samples] = choice[method]()
    return sampler


def mock_processor(topology: str, settings: Settings, seed: int) -> Any:
    """A QPU whose device is D-Wave's mock: simulated annealing on the chip's graph. Its embedding is searched anew, so
    that every row pays for its own."""
    from dwave.samplers import SimulatedAnnealingSampler
    from dwave.system.testing import MockDWaveSampler

    from qjax.interop.dwave import QPU, forget

    forget()
    return QPU(
        MockDWaveSampler(
            topology_type=topology,
            topology_shape=list(getattr(settings, topology)),
            substitute_sampler=SimulatedAnnealingSampler(),
            substitute_kwargs={"seed": seed, "num_sweeps": settings.num_sweeps},
            exact_solver_cutoff=0,
        ),
        embedding_seed=seed,
    )


@dataclass(frozen=True)
class _Formulate:
    shape: SmallProblem

    def __call__(self, params: Any, data: Any) -> Problem:
        return formulated(lambda p, radius: self.shape.formulate(p, data), params, 1.0)


@dataclass(frozen=True)
class _Pick:
    shape: SmallProblem
    num_candidates: int

    def __call__(self, params: Any, data: Any, problem: Problem, samples: Samples) -> Round:
        # Weights must be bits: the best candidate is taken whether or not it beats the continuous weights.
        return picked(lambda p: self.shape.loss(p, data), params, problem, samples, self.num_candidates, "always")


def run(
    shape: SmallProblem, settings: Settings, method: str, seed: int, progress: Progress = unheard
) -> dict[str, Any]:
    """One cell: the hybrid step under one sampler.

    results: final, the percent of reads at the exact minimum; best_gap and mean_gap, (E - E_min) / (mean E - E_min) in
    percent, 0 for the minimum and 100 for random bits on average; true_loss of the decoded candidate; fidelity (rank
    correlation of energies with true losses); chain_breaks in percent and chain_length for a mock, expected_gap (of a
    shot) for qaoa. The minimum is found by enumeration, outside the account.
    """
    (params, data), loaded = Ledger().run("data", shape.instance, seed)
    account = Account(loaded)
    progress(0.3, "formulate")
    problem: Problem = account.call("formulate", _Formulate(shape), params, data)
    qubo, key = problem.sampled_qubo, jax.random.fold_in(jax.random.key(11), seed)
    sampler = row_sampler(settings, method, seed)
    progress(0.5, "sample")
    sample = Sample(sampler, settings.num_reads)
    if getattr(sampler, "is_host", False):
        samples, account.ledger = account.ledger.sample(sample, key, qubo)
    else:
        samples = account.call("anneal", sample, key, qubo)
    plain = Samples(samples.bits, samples.energies, {})
    outcome: Round = account.call("decode", _Pick(shape, settings.num_candidates), params, data, problem, plain)
    ledger = account.close()
    results = _results(qubo, samples, outcome)
    return {"results": results, "timed": {"seconds": ledger.total, "curve": [], "phases": ledger.phases}}


def _results(qubo: Qubo, samples: Samples, outcome: Round) -> dict[str, Any]:
    least = float(samplers.get("exact")(jax.random.key(0), qubo, 1).best_energy)
    spread = float(cost_of(qubo).mean) - least
    found = outcome.to_dict()
    gaps = 100 * (np.asarray(samples.energies, np.float64) - least) / spread
    results: dict[str, Any] = {
        # A thousandth of a percent of the spread is float32's noise, far below the gap of any other state here.
        "final": 100 * float((gaps < 1e-3).mean()),
        "best_gap": float(gaps.min()),  # type: ignore[call-overload, unused-ignore]
        "mean_gap": float(gaps.mean()),
        "true_loss": found["loss"],
        "fidelity": found["fidelity"],
    }
    info = samples.info
    if "chain_break_fraction" in info:
        results["chain_breaks"] = 100 * float(np.mean(info["chain_break_fraction"]))
        results["chain_length"] = float(np.mean(info["chain_length"]))
    if "expected_energy" in info:
        results["expected_gap"] = 100 * (float(info["expected_energy"]) - least) / spread
    return results
