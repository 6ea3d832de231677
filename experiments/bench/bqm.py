"""Qubo -> BinaryQuadraticModel -> Qubo: what crossing the host seam costs, and that nothing is lost on the way."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from qjax.energy.qubo import Qubo
from qjax.interop.bqm import from_bqm, to_bqm


@dataclass(frozen=True)
class BenchBqm:
    """Convert a dense Qubo to dimod's model and back.

    About 10 seconds on 2 CPU cores; the target is at most 1.0 s for both ways at 4000 bits, every coefficient equal.
    """

    bits: int = 4000
    repeats: int = 5
    seed: int = 0


SMOKE: dict[str, Any] = {"bits": 50, "repeats": 2}


def bench_bqm(config: BenchBqm) -> dict[str, Any]:
    """{"config", "rows": [{"way", "seconds", "first"}], "exact", "target": {"seconds", "bound", "met"}}.

    Seconds are medians over repeats, `first` those of the first conversion of the process.
    """
    draw, n = np.random.default_rng(config.seed), config.bits
    upper = np.triu(draw.standard_normal((n, n), dtype=np.float32), 1)
    qubo = Qubo.from_terms(draw.standard_normal(n, dtype=np.float32), upper + upper.T, 0.5)
    to, back = [], []
    for _ in range(config.repeats):
        start = time.perf_counter()
        bqm = to_bqm(qubo)
        middle = time.perf_counter()
        again = jax.block_until_ready(from_bqm(bqm))
        to.append(middle - start)
        back.append(time.perf_counter() - middle)
    exact = all(
        np.array_equal(a, b)
        for a, b in (
            (again.couplings.to_dense(), qubo.couplings.to_dense()),
            (again.linear, qubo.linear),
            (again.offset, qubo.offset),
        )
    )
    both = [a + b for a, b in zip(to, back, strict=True)]
    ways = (("Qubo to BQM", to), ("BQM to Qubo", back), ("both", both))
    seconds = statistics.median(both)
    rows = [{"way": way, "seconds": statistics.median(taken), "first": taken[0]} for way, taken in ways]
    target = {"seconds": seconds, "bound": 1.0, "met": bool(seconds <= 1.0 and exact)}
    return {"config": asdict(config), "rows": rows, "exact": exact, "target": target}


def table(found: dict[str, Any]) -> str:
    """The rows as a Markdown table, and the verdict."""
    lines = [f"{found['config']['bits']} bits, dense", "", "| way | median s | first s |", "|---|---|---|"]
    lines += [f"| {row['way']} | {row['seconds']:.3f} | {row['first']:.3f} |" for row in found["rows"]]
    target = found["target"]
    verdict = "met" if target["met"] else "MISSED"
    kept = "every coefficient equal" if found["exact"] else "coefficients DIFFER"
    return "\n".join(
        [*lines, "", f"target: both ways in at most {target['bound']:g} s: {target['seconds']:.3f}, {kept}, {verdict}"]
    )
