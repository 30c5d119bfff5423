"""The config that a run wrote: read as one of today, and compared with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffmavil_jax.config.renamed import with_new_names
from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.tree import spelled


def from_saved(values: Mapping[str, Any]) -> Config:
    """Builds a Config from what a run wrote: fields that came later have their defaults.

    Raises:
        ConfigError: see `from_dict`.
    """
    return from_dict(filled(with_new_names(values), to_dict(Config())))


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = 'config') -> list[str]:
    """The fields in which two nested dictionaries differ, one line each."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        here = f'{path}.{key}'
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            lines += difference(old[key], new[key], here)
        elif (key in old) != (key in new) or not same(old[key], new[key]):
            before, after = (spelled(values.get(key, 'absent')) for values in (old, new))
            lines.append(f'{here}: {before!r} -> {after!r}')
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
    """Whether two values of a field are equal; a list may be a tuple, or a text with commas."""
    if isinstance(one, str) and isinstance(other, (list, tuple)):
        return bool(','.join(part.strip() for part in one.split(',') if part.strip()) == spelled(other))
    return _as_list(one) == _as_list(other)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
