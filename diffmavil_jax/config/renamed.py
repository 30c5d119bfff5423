"""Fields that have a new name; the old one works for one version."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from diffmavil_jax.config.tree import ConfigError

RENAMED = {
    'model.dtype': 'compute.dtype',
    'model.attention': 'compute.attention',
    'model.remat': 'compute.remat',
    'model.scan_unroll': 'compute.scan_unroll',
    'batch.parts': 'batch.microbatches',
    'finetune.average_decay': 'finetune.ema_decay',
    'finetune.roll': 'augmentation.roll',
    'finetune.gain_db': 'augmentation.gain_db',
}


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, with those of old names under the new ones.

    Raises:
        ConfigError: where a field has another value under its old name than under its new one.
    """
    result = copy.deepcopy(dict(values))
    for old, new in RENAMED.items():
        (old_section, old_name), (section, name) = old.split('.'), new.split('.')
        if not isinstance(result.get(old_section), dict) or old_name not in result[old_section]:
            continue
        value = renamed_value(new, result[old_section].pop(old_name))
        if result.setdefault(section, {}).setdefault(name, value) != value:
            raise contradiction(old, value, new, result[section][name])
    return result


def renamed_value(field: str, value: Any) -> Any:
    """The value of a renamed field as it is written now: `remat` was a bool."""
    return ('full' if value else 'auto') if field == 'compute.remat' and isinstance(value, bool) else value


def contradiction(old: str, value: Any, new: str, other: Any) -> ConfigError:
    """The error for two values of one field."""
    return ConfigError(
        f'config.{old} = {value!r}: must be {other!r}, as config.{new}: it is the old name of that field.'
    )
