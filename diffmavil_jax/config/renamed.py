"""Fields that have a new name: the old one works for one version, and a hint says the new one."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

RENAMED = {
    'model.dtype': 'compute.dtype',
    'model.attention': 'compute.attention',
    'model.remat': 'compute.remat',
    'model.scan_unroll': 'compute.scan_unroll',
    'batch.parts': 'batch.microbatches',
    'finetune.average_decay': 'finetune.ema_decay',
}
# Values that were written otherwise before.
_VALUES: dict[str, dict[Any, Any]] = {'compute.remat': {False: 'auto', True: 'full'}}


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, with those of old names under the new ones."""
    result = copy.deepcopy(dict(values))
    for old, new in RENAMED.items():
        (old_section, old_name), (section, name) = old.split('.'), new.split('.')
        if isinstance(result.get(old_section), dict) and old_name in result[old_section]:
            value = result[old_section].pop(old_name)
            result.setdefault(section, {})[name] = _VALUES.get(new, {}).get(value, value)
    return result


def flags_with_new_names(argv: Sequence[str]) -> list[str]:
    """Command-line arguments, with old names of fields replaced; each is told on stderr."""
    result = []
    for argument in argv:
        found = re.match(r'--?config\.([\w.]+)(.*)', argument, re.DOTALL)
        new = RENAMED.get(found[1]) if found else None
        if found and new:
            print(f'hint: --config.{found[1]} is now --config.{new}', file=sys.stderr)
            words = {str(old): value for old, value in _VALUES.get(new, {}).items()}
            value = found[2].removeprefix('=')
            argument = f'--config.{new}' + (f'={words.get(value.capitalize(), value)}' if found[2] else '')
        result.append(argument)
    return result
