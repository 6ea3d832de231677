"""How a sampler of ours is given a problem whose bits come in groups. The Qubo is the same, penalties included.

NAME+given   with the instance's own blocks, which its moves keep
NAME+found   as a plain dimod model, by `qjax.interop.as_dimod`, which looks for groups and has them moved whole
NAME+none    as a plain Qubo, by single flips
NAME         as a plain Qubo, as the sampler is: `auto` looks for groups by itself, all others are NAME+none
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.harness.presentation.cells import UsageError
from experiments.solvers.instances.problem import Instance
from experiments.solvers.peers import PACKAGES
from qjax import samplers
from qjax.energy.blocks import Blocks
from qjax.interop import as_dimod
from qjax.spelling import unknown

WAYS = ("given", "found", "none")


@dataclass(frozen=True)
class Entry:
    """A sampler or peer as the command line names it. way: one of `WAYS`, or "" for none named."""

    sampler: str
    way: str = ""

    @staticmethod
    def of(name: str) -> Entry:
        """Errors: UsageError for an unknown sampler or way (names the nearest), and for one that does not fit."""
        base, plus, way = name.partition("+")
        known = (*samplers.names(), *PACKAGES)
        if base not in known:
            raise UsageError(str(unknown("sampler", base, known)))
        if plus and way not in WAYS:
            raise UsageError(str(unknown("way", name, [f"{base}+{one}" for one in WAYS])))
        if plus and base in PACKAGES:
            raise UsageError(f"{name}: peers take the plain model")
        if way == "found" and not getattr(samplers.sampler_class(base), "adds_moves", False):
            raise UsageError(f"{name}: {base} does not move groups that are found")
        return Entry(base, way)

    @staticmethod
    def named(sampler: Any, way: str) -> str:
        """The name that `of` takes for a registered sampler, whatever its hyperparameters. Errors: as of `of`."""
        base = next(name for name in samplers.names() if samplers.sampler_class(name) is type(sampler))
        name = f"{base}+{way}" if way else base
        Entry.of(name)
        return name

    def takes(self, problem: Instance) -> bool:
        """Whether it can be run on a problem: blocks can be given where there are some."""
        return self.way != "given" or problem.blocks is not None


@dataclass(frozen=True)
class Answer:
    """The best state of a run (bits,), its energy as the sampler says it, the info of `within`, the groups that the
    sampler had by their kind and which of `WAYS` it had them, and the seconds that looking for them took."""

    bits: np.ndarray
    energy: float
    info: dict[str, Any]
    way: str = "none"
    groups: str = ""
    looked: float = 0.0

    @staticmethod
    def of(samples: samplers.Samples, way: str = "none", counts: Mapping[str, int] | None = None) -> Answer:
        bits, energy = np.asarray(samples.best_bits), float(samples.best_energy)
        return Answer(bits, energy, samples.info, way if counts else "none", _listed(counts or {}))


def answered(sampler: Any, way: str, problem: Instance, seconds: float, key: jax.Array, reads: int) -> Answer:
    """A run of `seconds` by a sampler of ours, which may be spread over devices. Errors: ImportError without dimod."""
    limited = samplers.within(sampler, seconds)
    match way:
        case "found":
            return _by_dimod(limited, problem, key, reads)
        case "given":
            held = problem.blocks
        case "none":
            held = Blocks()
        case _:
            held = sampler.found(problem.qubo) if hasattr(sampler, "found") else None
    samples = limited(key, problem.qubo, reads, None, held)
    counts: dict[str, int] = {}
    for family in () if held is None else held.families:
        counts[family.kind] = counts.get(family.kind, 0) + len(family.groups)
    return Answer.of(samples, way or "found", counts)


def _by_dimod(sampler: Any, problem: Instance, key: jax.Array, reads: int) -> Answer:
    from qjax.interop.bqm import to_bqm

    model, seed = to_bqm(problem.qubo), int(jax.random.bits(key) >> 1)
    found = as_dimod(sampler).sample(model, num_reads=reads, seed=seed)
    best, counts = found.first, found.info.get("found", {})
    bits = np.array([best.sample[i] for i in range(problem.qubo.num_bits)], np.int8)
    looked = found.info["timing"]["preprocessing_ns"] * 1e-9
    return Answer(bits, float(best.energy), found.info, "found" if counts else "none", _listed(counts), looked)


def _listed(counts: Mapping[str, int]) -> str:
    """Such as "19 one_hot"."""
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())
