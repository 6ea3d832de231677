"""What looking for groups that penalties fix costs a default call of `auto`."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.implicit import seconds
from qjax import penalties, samplers
from qjax.energy.finder import find_blocks
from qjax.energy.qubo import Qubo

if TYPE_CHECKING:
    from experiments.bench.samplers import BenchSamplers

_NEIGHBOURS, _GROUP, _WEIGHT = 10, 6, 26101.0


class Cost(NamedTuple):
    """name: of the problem; ratio: of the seconds of a look to those of a call; found: whether there were groups."""

    name: str
    ratio: float
    look: float
    call: float
    found: bool


def finder_costs(config: BenchSamplers) -> list[Cost]:
    """Whole numbers in -50 .. 50, all pairs or ten times as many as bits, plain and with one-hot groups of six bits."""
    costs = []
    for n in config.finder_bits:
        for form in ("dense", "sparse"):
            plain = _plain(np.random.default_rng(config.seed), n, form)
            groups = np.arange(n // _GROUP * _GROUP).reshape(-1, _GROUP)
            costs.append(_cost(config, f"{n} bits, {form}", plain))
            penalised = plain + penalties.one_hot(plain, groups, _WEIGHT)
            costs.append(_cost(config, f"{n} bits, {form}, groups", penalised))
    return costs


def _plain(rng: np.random.Generator, n: int, form: str) -> Qubo:
    matrix = np.triu(rng.integers(-50, 51, (n, n))).astype(np.float32)
    if form == "dense":
        return Qubo.from_matrix(matrix)
    rows, cols = np.triu_indices(n, 1)
    chosen = rng.choice(rows.size, min(_NEIGHBOURS * n, rows.size // 12), replace=False)
    ends = [*zip(rows[chosen].tolist(), cols[chosen].tolist(), strict=True), (n - 1, n - 1)]
    return Qubo.from_matrix({end: float(matrix[end]) for end in ends})


def _cost(config: BenchSamplers, name: str, qubo: Qubo) -> Cost:
    """Every look is at arrays that are new, as those of a Qubo just built are."""
    key, sampler = jax.random.key(config.seed), samplers.get("auto")
    found = sampler.found(qubo)
    seconds(lambda: sampler(key, qubo).energies)
    looks, calls = [], []
    for _ in range(config.repeats):
        fresh = jax.block_until_ready(jax.tree.map(jnp.copy, qubo))
        looks.append(seconds(partial(find_blocks, fresh)))
        calls.append(seconds(lambda: sampler(key, qubo).energies))
    ratio = statistics.median(look / call for look, call in zip(looks, calls, strict=True))
    return Cost(name, ratio, statistics.median(looks), statistics.median(calls), bool(found and found.families))
