"""How fast is QAOA's statevector, and does it keep the published guarantees? Steps, compilation, weighted graphs."""

import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.harness.presentation.cells import UsageError
from experiments.solvers.graphs import NAMED, maxcut, named, random_regular
from qjax import Qubo, samplers
from qjax.samplers.gates import angles
from qjax.samplers.gates.statevector import expectation, spin_costs
from qjax.samplers.qaoa import QAOA, cost_of

STEPS_PER_SECOND, COMPILE_SECONDS, TRAINED_RATIO = 400.0, 2.0, 0.95


@dataclass(frozen=True)
class BenchQaoa:
    """Train QAOA's angles on Max-Cut of 3-regular graphs.

    About a minute on 2 CPU cores. Targets: at least 400 gradient steps per second and at most 2 s to compile at n = 12,
    p = 4; published angles at or above their guarantee at every depth; 0.95 of the maximum weighted cut expected at
    n = 16, p = 8 after 100 steps.
    """

    bits: int = 12
    layers: int = 4
    steps: int = 400
    repeats: int = 5
    weighted_bits: int = 16
    weighted_layers: int = 8
    weighted_steps: int = 100
    weighted_graphs: int = 3
    guarantee_graphs: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bits", "weighted_bits"):
            if getattr(self, name) < 4 or getattr(self, name) % 2:
                raise UsageError(f"{name} must be even and at least 4: 3-regular graphs, got {getattr(self, name)}")


SMOKE: dict[str, Any] = {
    **{"bits": 8, "layers": 2, "steps": 10, "repeats": 1, "weighted_bits": 8, "weighted_graphs": 1},
    **{"weighted_layers": 3, "weighted_steps": 20, "guarantee_graphs": 0},
}


def bench_qaoa(config: BenchQaoa) -> dict[str, Any]:
    """{"config", "speed", "guarantees": [{"layers", "guarantee", "lowest", "graph"}], "weighted": [...], "targets"}."""
    speed = _speed(config)
    guarantees = _guarantees(config)
    weighted = _weighted(config)
    targets = [
        _target("gradient steps per second", speed["steps_per_second"], ">=", STEPS_PER_SECOND),
        _target("seconds to compile", speed["compile_seconds"], "<=", COMPILE_SECONDS),
        # The published numbers are rounded to eight digits, the statevector to six.
        _target("lowest ratio over its guarantee", min(g["lowest"] - g["guarantee"] for g in guarantees), ">=", -1e-6),
        _target("lowest trained ratio", min(w["ratio"] for w in weighted), ">=", TRAINED_RATIO),
    ]
    return {
        "config": asdict(config),
        "speed": speed,
        "guarantees": guarantees,
        "weighted": weighted,
        "targets": targets,
    }


def table(found: dict[str, Any]) -> str:
    """The numbers as Markdown tables, and the verdicts."""
    config, speed = found["config"], found["speed"]
    lines = [
        f"n = {config['bits']}, p = {config['layers']}: {speed['steps_per_second']:.0f} gradient steps per second, "
        f"compiled in {speed['compile_seconds']:.2f} s",
        "",
        "| layers | guarantee | lowest ratio, published angles | on |",
        "|---|---|---|---|",
        *(f"| {g['layers']} | {g['guarantee']:.4f} | {g['lowest']:.4f} | {g['graph']} |" for g in found["guarantees"]),
        "",
        f"n = {config['weighted_bits']}, p = {config['weighted_layers']}, {config['weighted_steps']} steps:",
        "",
        "| weights | graph | published angles | trained | seconds |",
        "|---|---|---|---|---|",
        *(
            f"| {w['weights']} | {w['graph']} | {w['published']:.4f} | {w['ratio']:.4f} | {w['seconds']:.2f} |"
            for w in found["weighted"]
        ),
        "",
    ]
    for t in found["targets"]:
        verdict = "met" if t["met"] else "MISSED"
        lines.append(f"target: {t['quantity']} {t['sense']} {t['bound']:g}: {t['value']:.4g}, {verdict}")
    return "\n".join(lines)


def _target(quantity: str, value: float, sense: str, bound: float) -> dict[str, Any]:
    met = value >= bound if sense == ">=" else value <= bound
    return {"quantity": quantity, "value": value, "sense": sense, "bound": bound, "met": bool(met)}


@partial(jax.jit, static_argnums=2)
def _trained(theta: jax.Array, costs: jax.Array, steps: int) -> jax.Array:
    optimizer = optax.adam(0.02)

    def step(t: Any, carry: Any) -> Any:
        theta, state = carry
        gradient = jax.grad(expectation)(theta, costs)
        # Optax promotes dtypes in silence, which the tests forbid.
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(gradient, state)
        return theta + change, state

    return lax.fori_loop(0, steps, step, (theta, optimizer.init(theta)))[0]


def _speed(config: BenchQaoa) -> dict[str, float]:
    qubo = maxcut(config.bits, random_regular(config.bits, config.seed))
    theta, costs = angles.fixed(config.layers), _costs(qubo)[0]
    start = time.perf_counter()
    program = _trained.lower(theta, costs, config.steps).compile()
    seconds = time.perf_counter() - start
    taken = []
    for _ in range(config.repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(program(theta, costs))
        taken.append(time.perf_counter() - start)
    return {"steps_per_second": config.steps / statistics.median(taken[1:]), "compile_seconds": seconds}


def _guarantees(config: BenchQaoa) -> list[dict[str, Any]]:
    """Of every depth the lowest expected over maximum cut, by published angles, untrained."""
    graphs = {name: named(name) for name in NAMED}
    for seed in range(config.guarantee_graphs):
        graphs[f"random {config.bits}-{seed}"] = (config.bits, random_regular(config.bits, seed))
    deepest = max(angles.FIXED)
    padded = jnp.stack([jnp.pad(angles.fixed(p), ((0, 0), (0, deepest - p))) for p in angles.FIXED])
    every = jax.jit(jax.vmap(expectation, (0, None)))
    ratios = {}
    for name, (n, edges) in graphs.items():
        costs, mean, unit = _costs(maxcut(n, edges))
        expected = mean + unit * every(padded, costs)
        ratios[name] = np.asarray(expected / (mean + unit * costs.min()), float)
    rows = []
    for index, p in enumerate(angles.FIXED):
        graph = min(ratios, key=lambda name: float(ratios[name][index]))
        lowest = float(ratios[graph][index])
        rows.append({"layers": p, "guarantee": angles.GUARANTEES[p], "lowest": lowest, "graph": graph})
    return rows


def _weighted(config: BenchQaoa) -> list[dict[str, Any]]:
    """Expected over maximum cut of weighted graphs, before and after training."""
    n, rows = config.weighted_bits, []
    sampler = QAOA(num_layers=config.weighted_layers, num_steps=config.weighted_steps)
    untrained = QAOA(num_layers=config.weighted_layers, num_steps=0)
    key = jax.random.key(config.seed)
    for kind in ("uniform", "exponential"):
        for seed in range(config.weighted_graphs):
            edges, draw = random_regular(n, seed), np.random.default_rng(seed)
            weights = draw.uniform(size=len(edges)) if kind == "uniform" else draw.exponential(size=len(edges))
            qubo = maxcut(n, edges, weights)
            best = float(samplers.get("exact")(key, qubo, 1).best_energy)
            start = time.perf_counter()
            samples = jax.block_until_ready(sampler(key, qubo, 64))
            seconds = time.perf_counter() - start
            published = float(untrained(key, qubo, 1).info["expected_energy"])
            rows.append(
                {
                    "weights": kind,
                    "graph": f"random {n}-{seed}",
                    "published": published / best,
                    "ratio": float(samples.info["expected_energy"]) / best,
                    "sampled": float(samples.best_energy) / best,
                    "seconds": seconds,
                }
            )
    return rows


def _costs(qubo: Qubo) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All costs (2^n,), and mean and unit of the energy they stand for."""
    cost = cost_of(qubo)
    return spin_costs(cost.fields, cost.factor * cost.couplings), cost.mean, cost.unit
