"""Nested frozen dataclasses from nested mappings, with errors that say what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from diffmavil_jax.config.constraints import VERBATIM, Must, list_choices

T = TypeVar('T')

_hints: Callable[[Any], dict[str, Any]] = functools.cache(
    functools.partial(typing.get_type_hints, include_extras=True)
)


class ConfigError(ValueError):
    """A configuration that can't be run: names the field, its value and what is allowed."""


def build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    """Builds a dataclass from nested mappings.

    Raises:
        ConfigError: for an unknown field, a value of a wrong type, or one that is not allowed.
    """
    hints = _hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(_no_such_field(path, unknown[0], hints))
    return cls(**{key: _convert(hints[key], value, f'{path}.{key}') for key, value in values.items()})


def check(section: Any, path: str) -> None:
    """Raises ConfigError for the first value of a section that its type does not allow."""
    for name, hint in _hints(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            check(value, f'{path}.{name}')
        else:
            _check(hint, value, f'{path}.{name}', value)


def refusal(path: str, value: Any, allowed: str) -> ConfigError:
    """The error for a value that is not allowed."""
    return ConfigError(f'{path} = {spelled(value)!r}: must be {allowed}.')


def spelled(value: Any) -> Any:
    """A list as a flag takes it: separated by commas."""
    if not isinstance(value, (list, tuple)):
        return value
    return ','.join(format(part, 'g') if isinstance(part, float) else str(part) for part in value)


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
        hints = _hints(kind)
        if name not in hints:
            raise ConfigError(_no_such_field(parent, name, hints))
        kind, parent = hints[name], f'{parent}.{name}'
    return _type_name(kind)


def _no_such_field(path: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean {path}.{close[0]}?' if close else f' Known: {", ".join(known)}.'
    return f'{path}.{name}: no such field.{hint}'


def _bare(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its conditions, and the conditions."""
    if typing.get_origin(kind) is typing.Annotated:
        return kind.__origin__, kind.__metadata__
    return kind, ()


def _check(kind: Any, value: Any, path: str, said: Any) -> None:
    """Raises ConfigError where a value is not one of a Literal, or breaks a condition of its type.

    The error has the value as `said`, which may be a text with commas where the value is a list.
    """
    bare, conditions = _bare(kind)
    if typing.get_origin(bare) is typing.Literal and value not in typing.get_args(bare):
        raise refusal(path, said, list_choices(typing.get_args(bare)))
    for condition in conditions:
        if isinstance(condition, Must) and not condition.holds(value):
            raise refusal(path, said, condition.words())


def _type_name(kind: Any) -> str:
    bare, _ = _bare(kind)
    if dataclasses.is_dataclass(bare):
        return 'section with fields'
    if typing.get_origin(bare) is typing.Literal:
        return 'str'
    return str(bare) if typing.get_origin(bare) else bare.__name__


def _convert(kind: Any, value: Any, path: str) -> Any:
    bare, conditions = _bare(kind)
    wanted = str if typing.get_origin(bare) is typing.Literal else bare
    if dataclasses.is_dataclass(bare):
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path} = {value!r}: must be a section with fields.')
        return build(typing.cast(type, bare), value, path)
    if typing.get_origin(bare) is tuple:
        result: Any = _tuple(typing.get_args(bare), conditions, value, path)
    elif bare is float and type(value) is int:
        result = float(value)
    elif type(value) is wanted:
        result = value
    else:
        raise ConfigError(f'{path} = {value!r}: must be of type {wanted.__name__}.')
    _check(kind, result, path, value)
    return result


def _tuple(parts: tuple[Any, ...], conditions: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    """A tuple of a fixed length, or a list, which may be a text with commas."""
    if parts[-1] is not Ellipsis:
        if not isinstance(value, (list, tuple)) or len(value) != len(parts):
            raise ConfigError(f'{path} = {value!r}: must be {len(parts)} numbers.')
        return tuple(_convert(part, v, path) for part, v in zip(parts, value, strict=True))
    if isinstance(value, str):
        texts = value.split(',') if value.strip() else []
        if VERBATIM not in conditions:
            texts = [text.strip() for text in texts if text.strip()]
        try:
            return tuple(map(parts[0], texts))
        except ValueError:
            raise ConfigError(f'{path} = {value!r}: must be {conditions[0].words()}.') from None
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f'{path} = {value!r}: must be of type str.')
    return tuple(_convert(parts[0], v, path) for v in value)
