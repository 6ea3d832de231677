"""The times that a processor reports, in seconds: a table beside the phases of the ledger, with which they overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from qjax.energy.qubo import Qubo
from qjax.samplers.samples import Samples

_HYBRID = ("run_time", "charge_time", "qpu_access_time")


def is_mock(device: Any) -> bool:
    """Whether a device is a mock of a processor: the times that it reports are constants and are not recorded."""
    named = any(kind.__name__.startswith("Mock") for kind in type(device).__mro__)
    return named or any(is_mock(child) for child in getattr(device, "children", ()))


def reported(sampleset: Any) -> dict[str, float]:
    """{name: seconds} from the microseconds in `info["timing"]`; times per sample are multiplied by the reads."""
    timing = sampleset.info.get("timing", {})
    reads = int(np.sum(sampleset.record.num_occurrences))
    table: dict[str, float] = {}
    for name, value in timing.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            each = name.endswith("_per_sample")
            table[name.removesuffix("_per_sample")] = 1e-6 * float(value) * (reads if each else 1)
    for name in _HYBRID:
        if isinstance(sampleset.info.get(name), int | float):
            table[name] = 1e-6 * float(sampleset.info[name])
    return table


def summed(tables: list[dict[str, float]]) -> dict[str, float]:
    """{name: sum over the tables}."""
    names = sorted({name for table in tables for name in table})
    return {name: sum(table.get(name, 0.0) for table in tables) for name in names}


def chains_by_label(qubo: Qubo, samples: Samples) -> dict[Any, tuple[int, float]]:
    """{label: (length of its chain, share of reads in which it was broken)} for the bits of one problem.

    Errors: ValueError for a batch, and for samples without chains.
    """
    lengths, breaks = (np.asarray(samples.info.get(name, ())) for name in ("chain_length", "chain_breaks"))
    if lengths.shape != (qubo.num_bits,):
        raise ValueError(f"chains of {qubo.num_bits} bits of one problem expected, info has shape {lengths.shape}")
    return {qubo.labels[i]: (int(lengths[i]), float(breaks[i])) for i in range(qubo.num_bits)}
