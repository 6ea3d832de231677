"""Dotted names of the fields of a configuration: `lowbit.schedule.steps`, `method.sampler.num_sweeps`.

A configuration is what `Cell.config` holds: mappings and frozen dataclasses, nested. A field that holds a sampler takes
the name of another one, and has a field `length` whatever the sampler's own name for that is.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.harness.presentation.cells import UsageError
from qjax import samplers
from qjax.spelling import unknown

LENGTH = "length"


def names(config: Any, prefix: str = "") -> list[str]:
    """All dotted names, inner fields and the ones that hold them, in the configuration's order."""
    found = []
    for name, value in _children(config).items():
        found.append(prefix + name)
        found += names(value, f"{prefix}{name}.")
    return found


def value_of(config: Any, name: str) -> Any:
    """The value of a field. Errors: UsageError for a name that does not exist, with the nearest."""
    value = config
    for part in name.split("."):
        children = _children(value)
        if part not in children:
            raise UsageError(str(unknown("field", name, names(config))))
        value = children[part]
    return value


def changed(config: Any, name: str, value: Any) -> Any:
    """The configuration with another value in this field. Errors: UsageError as `value_of`, or for a value that the
    configuration refuses."""
    value_of(config, name)
    try:
        return _changed(config, name.split("."), value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}={value!r}: {error}") from None


def parsed(config: Any, name: str, text: str) -> Any:
    """The value that the text gives to a field, of the type that the field has now.

    A field that is None takes any Python literal; one that holds a sampler, a sampler's name. What is returned is what
    JSON holds: a sampler stays a name, which `changed` understands. Errors: UsageError.
    """
    now = value_of(config, name)
    try:
        if name.rpartition(".")[2] == LENGTH:
            return int(text)
        if _is_sampler(now):
            samplers.get(text)
            return text
        return _literal(text, now)
    except (ValueError, SyntaxError, TypeError) as error:
        detail = str(error) if _is_sampler(now) else f"it is {type(now).__name__} {now!r} now"
        raise UsageError(f"{name}={text}: {detail}") from None


def _literal(text: str, now: Any) -> Any:
    if isinstance(now, str):
        return text
    value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    if isinstance(now, bool) or now is None or value is None:
        wanted: tuple[type, ...] = (bool,) if isinstance(now, bool) else (object,)
    elif isinstance(now, float):
        value = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        wanted = (float,)
    elif isinstance(now, tuple | list):
        wanted, value = (tuple,), tuple(value) if isinstance(value, list | tuple) else value
    else:
        wanted = (type(now),)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted == (int,)):
        raise ValueError(text)
    return value


def _children(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return {}
    found = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}
    if _is_sampler(config):
        found[LENGTH] = found.get(samplers.length_field(config) or "")
    return found


def _changed(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    now = _children(config)[name]
    new = _changed(now, rest, value) if rest else value
    if not rest and _is_sampler(now) and isinstance(value, str):
        new = samplers.get(value)
    if isinstance(config, Mapping):
        return {**config, name: new}
    if name == LENGTH and _is_sampler(config):
        return samplers.of_length(config, value)
    return dataclasses.replace(config, **{name: new})


def _is_sampler(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and hasattr(value, "is_host")
