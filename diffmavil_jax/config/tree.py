"""Nested frozen dataclasses from nested mappings, with errors that say what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar('T')


class ConfigError(ValueError):
    """A configuration that can't be run: names the field, its value and what is allowed."""


def build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    """Builds a dataclass from nested mappings.

    Raises:
        ConfigError: for an unknown field, a value of a wrong type, or one that is not allowed.
    """
    hints = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(_no_such_field(path, unknown[0], hints))
    return cls(**{key: _convert(hints[key], value, f'{path}.{key}') for key, value in values.items()})


def field_type(cls: type, path: str) -> str:
    """The name of the type of a field such as `config.batch.size`, where `config` is of type `cls`.

    Raises:
        ConfigError: where there is no such field.
    """
    kind: Any = cls
    parent, *fields = path.split('.')
    for name in fields:
        if not dataclasses.is_dataclass(kind):
            raise ConfigError(f'{parent}.{name}: no such field; {parent} is of type {_type_name(kind)}.')
        hints = typing.get_type_hints(kind)
        if name not in hints:
            raise ConfigError(_no_such_field(parent, name, hints))
        kind, parent = hints[name], f'{parent}.{name}'
    return _type_name(kind)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = 'config') -> list[str]:
    """The fields in which two nested dictionaries differ, one line each."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        here = f'{path}.{key}'
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            lines += difference(old[key], new[key], here)
        elif (key in old) != (key in new) or not same(old[key], new[key]):
            lines.append(f'{here}: {old.get(key, "absent")!r} -> {new.get(key, "absent")!r}')
    return lines


def filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values as they were written, with the default of each field that came later."""
    result = {**defaults, **values}
    return {
        name: filled(values.get(name, {}), defaults[name])
        if isinstance(defaults.get(name), Mapping)
        else value
        for name, value in result.items()
    }


def same(one: Any, other: Any) -> bool:
    """Whether two values of a field are equal; a tuple is read back from JSON as a list."""
    return _as_list(one) == _as_list(other)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _no_such_field(path: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean {path}.{close[0]}?' if close else f' Known: {", ".join(known)}.'
    return f'{path}.{name}: no such field.{hint}'


def _type_name(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return 'section with fields'
    return str(kind) if typing.get_origin(kind) else kind.__name__


def _convert(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path} = {value!r}: must be a section with fields.')
        return build(typing.cast(type, kind), value, path)
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        if not isinstance(value, (list, tuple)) or len(value) != len(parts):
            raise ConfigError(f'{path} = {value!r}: must be {len(parts)} numbers.')
        return tuple(_convert(part, v, path) for part, v in zip(parts, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f'{path} = {value!r}: must be of type {kind.__name__}.')
    return value
