"""What a run takes over from the run that it starts from, before anything is loaded.

A network can only be loaded as it was built, and hears and sees only what its front end was.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from diffmavil_jax.config_tree import ConfigError

# A loaded network is wrong with any other value.
_BINDING = (
    'model.size',
    'model.fusion_layers',
    'audio.front_end',
    'audio.num_mel_bins',
    'audio.patch',
    'video.mean',
    'video.std',
    'video.patch',
    'video.patch_frames',
    'data.sample_rate',
)
_USUAL = ('data.frame_size',)  # another value is possible


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The resolved config of a run, as nested dictionaries.

    Raises:
        ConfigError: there is no run.
    """
    path = pathlib.Path(run).expanduser() / 'config.json'
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'config.init = {os.fspath(run)!r}: must be the workdir of a run, which holds config.json and '
            f'checkpoints/ ({type(error).__name__}: {error}).'
        ) from None


def inherit(values: Mapping[str, Any], explicit: Collection[str]) -> dict[str, Any]:
    """A config's values with those of its `init` in place of its own.

    Args:
        values: the config as nested dictionaries.
        explicit: fields that were given on the command line, such as `model.size`.

    Raises:
        ConfigError: there is no such run, or a field was given that it contradicts.
    """
    result = copy.deepcopy(dict(values))
    if not result.get('init'):
        return result
    run = read_config(result['init'])
    for field in (*_BINDING, *_USUAL):
        section, name = field.split('.')
        theirs, ours = run[section][name], result[section][name]
        if field not in explicit:
            result[section][name] = theirs
        elif field in _BINDING and _plain(ours) != _plain(theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = '
                f'{result["init"]!r}; leave the flag out, and it is.'
            )
    return result


def check_inherited(values: Mapping[str, Any], run: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError where a config can't load a run: names the field, both values and the fix."""
    for field in _BINDING:
        section, name = field.split('.')
        theirs, ours = run[section][name], values[section][name]
        if _plain(ours) != _plain(theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = {path!r}.'
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
