"""Records of made-up runs, as cells store them."""

from experiments.harness.presentation.cells import Comparison

ENVIRONMENT = {
    "device": "1 x cpu",
    "cores": 2,
    "system": "Linux",
    "python": "3.12",
    "versions": {"jax": "0.11.0", "cma": None},
    "commit": None,
    "command": "python -m experiments table1",
    "xla_flags": "--xla_cpu_x",
    "data": [],
}


def record(problem, method, seed, final, curve=(), phases=None, tags=None, energies=None, **timed):
    phases = phases or {"data": 1.0, "compile": 1.0, "refine": 8.0}
    results = {"final": final, **({"sampled_energies": energies} if energies else {})}
    timing = {"seconds": sum(phases.values()), "curve": [list(p) for p in curve], "phases": phases, **timed}
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "sampler": "anneal" if method == "hybrid" else "-",
        "data": "digits",
        "tags": tags or {},
        "config": {},
        "outcome": {"results": results, "timed": timing},
    }


def pair(seed, adam=60.0, hybrid=64.0):
    return [
        record("digits", "adam", seed, adam, [(2, 20.0), (6, 50.0), (10, adam)]),
        record("digits", "hybrid", seed, hybrid, [(4, 40.0), (8, adam + 2.0), (12, hybrid)]),
        record("digits", "random-bits", seed, hybrid - 1.0),
        record("digits", "greedy", seed, hybrid + 0.5 - seed),
    ]


COMPARISON = Comparison(
    "digits",
    "adam",
    "hybrid",
    ("random-bits", "greedy"),
    (("time_ratio", "<=", 0.6), ("gain", ">=", 2.5), ("annealer_gain", ">", 0.0), ("final", ">=", 60.0)),
)
