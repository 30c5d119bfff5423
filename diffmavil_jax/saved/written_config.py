"""The config that a run wrote: read as one of today, and compared with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffmavil_jax.config.renamed import with_new_names
from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError, spelled


def from_saved(values: Mapping[str, Any]) -> Config:
    """Builds a Config from what a run wrote.

    Raises:
        ConfigError: see `from_dict`.
    """
    result, model = with_new_names(values), values.get('model')
    # The default was a number, 4 in small presets; it is now chosen for the machine.
    if isinstance(model, Mapping) and model.get('scan_unroll') in (1, 4):
        result['compute']['scan_unroll'] = 0
    return from_dict(_filled(result, to_dict(Config())))


def changes(old: Mapping[str, Any], new: Config) -> list[str]:
    """The fields in which a config differs from what a run wrote, one line each."""
    try:
        old = to_dict(from_saved(old))
    except ConfigError:
        old = _filled(old, to_dict(Config()))  # a later version wrote it, or a person: the fields say
    return difference(old, to_dict(new))


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


def same(one: Any, other: Any) -> bool:
    """Whether two values of a field are equal; a tuple is read back from JSON as a list."""
    return _as_list(one) == _as_list(other)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, and the defaults of fields that they lack."""
    result = {**defaults, **values}
    return {
        name: _filled(values.get(name, {}), defaults[name])
        if isinstance(defaults.get(name), Mapping)
        else value
        for name, value in result.items()
    }
