"""What stored files must hold to be read: results of an older version lack something, and are refused with one line.

A shape is None for anything, a mapping of names to shapes, [shape] for a list of them, or {EACH: shape} for a mapping
whose every value has it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.harness.presentation.cells import StoreError

AGAIN = "written by another version, or by hand; run its command again"
EACH = "*"


def named(text: str) -> dict[str, None]:
    """The shape of a mapping with these names."""
    return dict.fromkeys(text.split())


_MEAN = named("mean interval n")
_FINAL = named("mean interval kind n values")
_TIMES = named("median interval n reached")
_RATIO = _TIMES | {"without_data_and_compile": _TIMES, "to_first_crossing": _TIMES}
_GAIN = named("best_control") | _FINAL | {"by_control": {EACH: _MEAN}}
_TARGET = named("quantity sense bound value judged end met note")
_ROW = named("problem data method sampler tags seeds") | {
    "results": {"final": _FINAL, EACH: _MEAN},
    "timed": {"seconds": None, "phases": {EACH: None}, "seconds_to_target": _TIMES},
}
_COMPARISON = named("problem method baseline") | {
    "time_ratio": _RATIO,
    "gain": _MEAN,
    "final_gain": _MEAN,
    "annealer_gain": _GAIN,
    "targets": [_TARGET],
}
ENVIRONMENT = named("command commit device cores versions")
SUMMARY = {"environment": ENVIRONMENT, "results_digest": None, "rows": [_ROW], "comparisons": [_COMPARISON]}
CONFIG = {"options": {EACH: None}, "cells": [named("problem method seed config")]}
_TIMED = named("seconds curve") | {"phases": {EACH: None}}
RECORD = named("problem method seed data tags") | {"outcome": {"results": {"final": None}, "timed": _TIMED}}
PLAN = named("experiment axes seeds search trials objective direction options")
SWEEP = {"plan": PLAN, "environment": ENVIRONMENT}


def checked(path: Path, content: Any, shape: Any, within: str = "") -> None:
    """Errors: StoreError naming the file and the first thing that it lacks."""
    where = f" in {within}" if within else ""
    if isinstance(shape, list):
        if not isinstance(content, list):
            raise StoreError(f"{path} has no list{where}: {AGAIN}")
        for one in content:
            checked(path, one, shape[0], within)
    elif isinstance(shape, Mapping):
        if not isinstance(content, Mapping):
            raise StoreError(f"{path} has no names and values{where}: {AGAIN}")
        missing = [name for name in shape if name != EACH and name not in content]
        if missing:
            raise StoreError(f"{path} lacks {', '.join(missing)}{where}: {AGAIN}")
        for name, one in content.items():
            checked(path, one, shape.get(name, shape.get(EACH)), f"{within}/{name}".lstrip("/"))
