"""Dotted names of the fields of a configuration: `lowbit.schedule.steps`, `method.sampler.num_sweeps`.

A configuration is what `Cell.config` holds: mappings and frozen dataclasses, nested. A field that holds a sampler takes
the name of another one, and has a field `length` whatever the sampler's own name for that is.
"""

import ast
import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
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
    """The value that the text gives to a field, of a type that its annotation names, else of the type it has now.

    A field that is None and says no more takes any Python literal; one that holds a sampler, a sampler's name. What is
    returned is what JSON holds: a sampler stays a name, which `changed` understands. Errors: UsageError.
    """
    now = value_of(config, name)
    head, _, last = name.rpartition(".")
    if last == LENGTH and text.isdecimal():
        return int(text)
    if _is_sampler(now):
        try:
            samplers.get(text)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{name}={text}: {error}") from None
        return text
    if inner := _children(now):
        raise UsageError(f"{name} holds fields of its own: {', '.join(f'{name}.{one}' for one in inner)}")
    kinds, choices = _taken(value_of(config, head) if head else config, last, now)
    if choices and text not in map(str, choices):
        raise UsageError(f"{name}: {unknown('value', text, map(str, choices))}")
    for kind in kinds:
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return _literal(text, kind)
    also = f", and may be {' or '.join(kind.__name__.replace('NoneType', 'none') for kind in kinds)}"
    raise UsageError(f"{name}={text}: it is {type(now).__name__} {now!r} now{also if len(kinds) > 1 else ''}")


def _literal(text: str, kind: type) -> Any:
    """The text as a value of this type. Errors: ValueError, SyntaxError."""
    if kind is str:
        return text
    value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is not kind and kind is not object:
        raise ValueError(text)
    return value


def _taken(owner: Any, name: str, now: Any) -> tuple[list[type], list[Any]]:
    """(the types that a field takes, text last, since any text is one; its choices, where it is a Literal)."""
    hint = None
    if dataclasses.is_dataclass(owner):
        with contextlib.suppress(NameError, TypeError):  # annotations that only a type checker can follow
            hint = typing.get_type_hints(type(owner)).get(name)
    kinds, choices = _flat(hint)
    if not kinds or object in kinds:
        kinds = [object if now is None else tuple if isinstance(now, list) else type(now)]
    return sorted(dict.fromkeys(kinds), key=lambda kind: kind is str), choices


def _flat(hint: Any) -> tuple[list[type], list[Any]]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [type(value) for value in inner], list(inner)
    if origin in (typing.Union, types.UnionType):
        parts = [_flat(part) for part in inner]
        found = [kind for kinds, _ in parts for kind in kinds]
        return found, [value for _, choices in parts for value in choices] if len(parts) == 1 else []
    if origin in (tuple, list, Sequence):
        return [tuple], []
    return [hint if hint in (bool, int, float, str, types.NoneType) else object], []


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
