"""Samplers: one contract (qjax.samplers.contract), one file per algorithm, one registry.

names()                            what there is
get("anneal", num_sweeps=100)      a sampler by name; length=100 is num_sweeps, num_steps or num_betas
table()                            what each can do; docs/samplers.md says which one to take
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any, NamedTuple

from qjax.samplers.anneal import Anneal
from qjax.samplers.auto import Auto
from qjax.samplers.bifurcation import Bifurcation
from qjax.samplers.contract import Outcome, Sampler, Task
from qjax.samplers.decompose import Decompose
from qjax.samplers.exact import Exact
from qjax.samplers.greedy import Greedy, polish
from qjax.samplers.lengths import length_field, of_length
from qjax.samplers.mean_field import MeanField
from qjax.samplers.moves import streams
from qjax.samplers.path_integral import PathIntegral
from qjax.samplers.population import Population
from qjax.samplers.qaoa import QAOA
from qjax.samplers.random import Random
from qjax.samplers.samples import Samples
from qjax.samplers.sharded import Sharded
from qjax.samplers.tabu import Tabu
from qjax.samplers.temper import Temper
from qjax.samplers.within import Within, within
from qjax.spelling import unknown

# A new sampler is one file and one entry here; those that need an optional package are loaded when asked for.
_REGISTRY = {
    "exact": "qjax.samplers.exact:Exact",
    "random": "qjax.samplers.random:Random",
    "greedy": "qjax.samplers.greedy:Greedy",
    "anneal": "qjax.samplers.anneal:Anneal",
    "bifurcation": "qjax.samplers.bifurcation:Bifurcation",
    "temper": "qjax.samplers.temper:Temper",
    "population": "qjax.samplers.population:Population",
    "mean_field": "qjax.samplers.mean_field:MeanField",
    "path_integral": "qjax.samplers.path_integral:PathIntegral",
    "tabu": "qjax.samplers.tabu:Tabu",
    "qaoa": "qjax.samplers.qaoa:QAOA",
    "auto": "qjax.samplers.auto:Auto",
    "decompose": "qjax.samplers.decompose:Decompose",
    "neal": "qjax.interop.dimod:Neal",
}


class Capabilities(NamedTuple):
    """What a sampler can do: a row of `table()`.

    couplings          the forms it takes, of dense, sparse, gram, implicit
    batches            many problems over shared couplings in one call
    thermal            `return_states="last"` follows exp(-beta E) at a fixed beta
    host               runs on the host: traced through a callback where it is seeded, else not at all
    fixed_cardinality  can keep the number of ones
    blocks             kinds of blocks (qjax.energy.blocks) kept by its moves; others by penalties
    """

    name: str
    couplings: tuple[str, ...]
    batches: bool
    thermal: bool
    host: bool
    fixed_cardinality: bool
    blocks: tuple[str, ...]


def names() -> tuple[str, ...]:
    """The registered samplers."""
    return tuple(_REGISTRY)


def sampler_class(name: str) -> Any:
    """The class of a registered sampler. Errors: ValueError for an unknown name, with the nearest one."""
    if name not in _REGISTRY:
        raise unknown("sampler", name, _REGISTRY)
    module, attribute = _REGISTRY[name].split(":")
    return getattr(import_module(module), attribute)


def get(name: str, **fields: Any) -> Any:
    """The named sampler with these hyperparameters, the others at their defaults.

    length: its num_sweeps, num_steps or num_betas, whichever it has; nothing for those that end by themselves.
    Errors: ValueError for an unknown name or hyperparameter, with the nearest one, and for a bad value.
    """
    kind = sampler_class(name)
    known = [f.name for f in dataclasses.fields(kind)]
    if "length" in fields:
        length = fields.pop("length")
        if (field := length_field(kind)) in fields:
            raise ValueError(f"length and {field} were both given: the one is the other")
        fields |= {field: length} if field else {}
    for field in fields:
        if field not in known:
            raise unknown(f"hyperparameter of sampler {name!r}", field, known)
    return kind(**fields)


def table() -> tuple[Capabilities, ...]:
    """One row per sampler, in the order of `names()`."""
    rows = []
    for name in names():
        kind = sampler_class(name)
        keeps = any(field.name == "fixed_cardinality" for field in dataclasses.fields(kind))
        rows.append(Capabilities(name, kind.couplings, kind.batches, kind.thermal, kind.is_host, keeps, kind.blocks))
    return tuple(rows)


__all__ = [
    "QAOA",
    "Anneal",
    "Auto",
    "Bifurcation",
    "Capabilities",
    "Decompose",
    "Exact",
    "Greedy",
    "MeanField",
    "Outcome",
    "PathIntegral",
    "Population",
    "Random",
    "Sampler",
    "Samples",
    "Sharded",
    "Tabu",
    "Task",
    "Temper",
    "Within",
    "get",
    "length_field",
    "names",
    "of_length",
    "polish",
    "sampler_class",
    "streams",
    "table",
    "within",
]
