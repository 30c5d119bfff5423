"""The config that a run wrote: read as one of today, and compared with another."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from diffmavil_jax.config.renamed import with_new_names
from diffmavil_jax.config.schema import Config, from_dict, to_dict, to_flags
from diffmavil_jax.config.tree import ConfigError, spelled
from diffmavil_jax.storage.paths import open_path


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


def as_begun(
    values: Mapping[str, Any], explicit: Collection[str], workdir: str | os.PathLike[str]
) -> tuple[dict[str, Any], list[str]]:
    """A config's values as the run in a workdir would have them, which an earlier version began.

    Presets set fields that came later; such a run resumes without them, unless a flag sets them.

    Args:
        values: the config as nested dictionaries.
        explicit: fields that were given on the command line, such as `model.size`.
        workdir: that the run resumes in, if there is one in it.

    Returns:
        The values, and the fields that have their defaults in place of the preset's.
    """
    result, begun = copy.deepcopy(dict(values)), _begun(values, workdir)
    if not begun:
        return result, []
    kept = []
    sections = {name: part for name, part in to_flags(Config()).items() if isinstance(part, Mapping)}
    for section, defaults in sections.items():
        known = begun.get(section, {})
        for name, default in defaults.items():
            field, now = f'{section}.{name}', result.get(section, {}).get(name, default)
            if name not in known and field not in explicit and not same(now, default):
                result[section][name] = default
                kept.append(field)
    return result, kept


def _begun(values: Mapping[str, Any], workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of the run in a workdir, or of its first fold; empty if there is none that can be read."""
    names = ('', *str(values.get('finetune', {}).get('folds', '')).split(','))
    try:
        files = [open_path(workdir) / name / 'config.json' for name in names]
        file = next((file for file in files if file.exists()), None)
        return {} if file is None else with_new_names(json.loads(file.read_text(encoding='utf-8')))
    except (ConfigError, ImportError, OSError, TypeError, ValueError):
        return {}  # whoever opens the workdir says so


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
