"""The flag --config and its fields, for absl: what was given, and errors of one line."""

from __future__ import annotations

import copy
import pathlib
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from diffmavil_jax import configs
from diffmavil_jax.commands.command import WRONG, fail, one_line
from diffmavil_jax.config.renamed import RENAMED, contradiction, renamed_value
from diffmavil_jax.config.schema import field_type
from diffmavil_jax.config.tree import ConfigError

_FIELD = re.compile(r'--?(no)?config\.([\w.]+)(?:=(.*))?', re.DOTALL)
_BOOLS = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}


def parse(argv: list[str]) -> list[str]:
    """Parses flags as absl does, but an error is one line without a traceback, and names what is allowed.

    Returns:
        The arguments that are no flags. A wrong flag ends the process with exit code 2.
    """
    try:
        # In place: ml_collections looks into sys.argv for the fields that are set.
        argv[:] = with_new_names(with_paths(argv))
        if argv is not sys.argv:
            sys.argv[:] = argv
        return flags.FLAGS(argv)
    except ConfigError as error:
        sys.exit(fail(str(error), WRONG))
    except OSError as error:
        sys.exit(fail(unreadable(error), WRONG))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(fail(_explain(argv[1:], error), WRONG))


def values_of_file(values: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """What a config file sets, which may use old names of fields; a hint on stderr says each.

    Args:
        values: nested values, which have every field by its new name: its default, where the file says none.
        given: the fields that the command line sets.
    """
    result = copy.deepcopy(dict(values))
    for old, new in RENAMED.items():
        (old_section, old_name), (section, name) = old.split('.'), new.split('.')
        if old_name in result.get(old_section, {}):
            _hint(old, new)
            if new not in given:
                result.get(section, {}).pop(name, None)
    return result


def with_new_names(arguments: Iterable[str]) -> list[str]:
    """Command-line arguments with the new names of fields; a hint on stderr says each.

    Raises:
        ConfigError: where a field is given another value under its old name than under its new one.
    """
    result, given, rest = [], {}, iter(arguments)
    for argument in rest:
        match = _FIELD.fullmatch(argument)
        if not match or match[2] not in (*RENAMED, *RENAMED.values()):
            result.append(argument)
            continue
        negated, name, value = match.groups()
        if name == 'model.remat':  # was a bool, whose flag needs no value
            value = renamed_value(RENAMED[name], not negated and _BOOLS.get((value or '1').lower(), value))
        given[name] = next(rest, '') if value is None else value
        result.append(f'--config.{RENAMED.get(name, name)}={given[name]}')
    for old in RENAMED.keys() & given.keys():
        new = RENAMED[old]
        _hint(old, new)
        if given.get(new, given[old]) != given[old]:
            raise contradiction(old, given[old], new, given[new])
    return result


def with_paths(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with the path of the config file where --config names a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    result = list(arguments)
    for index, argument in enumerate(arguments):
        match = re.fullmatch(r'(--?config)(?:=(.*))?', argument, re.DOTALL)
        if not match:
            continue
        flag, value = match.groups()
        if value is not None:
            result[index] = f'{flag}={_path_of(value)}'
        elif index + 1 < len(arguments):
            result[index + 1] = _path_of(arguments[index + 1])
    return result


def _path_of(value: str) -> str:
    """The path of a preset such as `diffmavil:demo`, with its variant; a path stays as it is."""
    name, colon, variant = value.partition(':')
    if not re.fullmatch(r'\w+', name):
        return value
    if name not in presets():
        raise ConfigError(
            f'--config={value}: must be a preset ({", ".join(presets())}), or the path of a file such as '
            'mine.py.'
        )
    return f'{presets()[name]}{colon}{variant}'


def presets() -> dict[str, pathlib.Path]:
    """The config files that come with the package, by name."""
    (folder,) = configs.__path__
    files = sorted(pathlib.Path(folder).glob('[a-z]*.py'))
    return {file.stem: file for file in files if file.stem != 'common'}


def _hint(old: str, new: str) -> None:
    print(f'hint: config.{old} is now config.{new}.', file=sys.stderr)


def given_fields(arguments: Iterable[str]) -> set[str]:
    """The fields of the config that the command line sets, such as `batch.size`."""
    return {match[2] for argument in arguments if (match := _FIELD.match(argument))}


def unreadable(error: OSError) -> str:
    """Says that the file of --config can't be read."""
    return (
        f'--config: must be a file such as configs/diffmavil.py, or a preset ({", ".join(presets())}). '
        f'{str(error).splitlines()[-1].strip()}'
    )


def _explain(arguments: list[str], error: Exception) -> str:
    """The best message for an error of absl's: its own words do not name what is allowed."""
    if not any(re.match(r'--?config(=|$)', argument) for argument in arguments):
        return '--config: is missing; --config=configs/diffmavil.py, for example'
    wrong = re.match(r'flag --(config\.[\w.]+)=(.*?): ', str(error), re.DOTALL)
    try:
        for argument in arguments:
            if match := _FIELD.match(argument):
                field_type(f'config.{match[2]}')
        if wrong:
            return f'{wrong[1]} = {wrong[2]!r}: must be of type {field_type(wrong[1])}.'
    except ConfigError as better:
        return str(better)
    return one_line(str(error))
