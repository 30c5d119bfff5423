"""What a run takes over from the run, import or export that it starts from, before anything is loaded.

A network can only be loaded as it was built, and hears and sees only what its front end was.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from diffmavil_jax.config.schema import from_saved, to_dict
from diffmavil_jax.config.tree import ConfigError, same

# A loaded network is wrong with any other value. Each field with the part of a network that it is about;
# '': any of them.
_BINDING = {
    'model.size': '',
    'model.positions': '',
    'model.class_token': '',
    'model.fusion_layers': 'fusion',
    'audio.front_end': 'encoder_audio',
    'audio.num_mel_bins': 'encoder_audio',
    'audio.patch': 'encoder_audio',
    'data.sample_rate': 'encoder_audio',
    'video.mean': 'encoder_video',
    'video.std': 'encoder_video',
    'video.patch': 'encoder_video',
    'video.patch_frames': 'encoder_video',
}
_USUAL = {'data.frame_size': 'encoder_video'}  # another value is possible


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The resolved config of a run, import or export, as nested dictionaries.

    Raises:
        ConfigError: there is none.
    """
    path = pathlib.Path(run).expanduser() / 'config.json'
    try:
        return to_dict(from_saved(json.loads(path.read_text(encoding='utf-8'))))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'{os.fspath(run)!r}: must be the workdir of a run, or what `diffmavil import` or '
            f'`export` wrote, with config.json in it ({type(error).__name__}: {error}).'
        ) from None


def read_card(run: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What an import or export says of itself; None for a run.

    Raises:
        ConfigError: it can't be read.
    """
    path = pathlib.Path(run).expanduser() / 'card.json'
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigError(f'{path}: must be readable as JSON ({type(error).__name__}: {error}).') from None


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
    run, binding = read_config(result['init']), _about(result['init'], _BINDING)
    for field in (*binding, *_about(result['init'], _USUAL)):
        section, name = field.split('.')
        theirs, ours = run[section][name], result[section][name]
        if field not in explicit:
            result[section][name] = theirs
        elif field in binding and not same(ours, theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = '
                f'{result["init"]!r}; leave the flag out, and it is.'
            )
    return result


def check_inherited(values: Mapping[str, Any], run: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError where a config can't load a run: names the field, both values and the fix."""
    for field in _about(path, _BINDING):
        section, name = field.split('.')
        theirs, ours = run[section][name], values[section][name]
        if not same(ours, theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = {path!r}.'
            )


def _about(run: str, fields: Mapping[str, str]) -> list[str]:
    """Those fields that are about a part which is there."""
    card = read_card(run)
    return [field for field, part in fields.items() if card is None or not part or part in card['parts']]
