"""Which config fields a run takes over from the run, import or export that it starts from.

Parameters fit only a network that is built as theirs was. A classifier may normalise its sound in another
way, which it learns to understand; everything else goes on with the front end that the network knows.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from diffmavil_jax.config.clips import FRONT_ENDS, FrontEnd
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.written_config import from_saved, same
from diffmavil_jax.storage.paths import open_path

# Fields that must have the loaded network's value, each with the part of the network that it belongs to;
# '' is any part.
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
_USUAL = {'data.frame_size': 'encoder_video'}  # taken over unless a flag sets it
_NORMALISATION = 'audio.front_end'  # binding, but for a classifier, where it is usual


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The resolved config of a run, import or export, as nested dictionaries.

    Raises:
        ConfigError: the directory has no config that can be read.
    """
    path = open_path(run) / 'config.json'
    try:
        return to_dict(from_saved(json.loads(path.read_text(encoding='utf-8'))))
    except (ImportError, OSError, ValueError) as error:  # a bucket may need a package
        raise ConfigError(
            f'{os.fspath(run)!r}: must be the workdir of a run, or what `diffmavil import` or '
            f'`export` wrote, with config.json in it ({type(error).__name__}: {error}).'
        ) from None


def read_card(run: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The card of an import or an export, which describes it; None for a run.

    Raises:
        ConfigError: the card can't be read.
    """
    path = open_path(run) / 'card.json'
    try:
        if not path.exists():
            return None
        return json.loads(path.read_text(encoding='utf-8'))
    except (ImportError, OSError, ValueError) as error:  # a bucket may need a package
        raise ConfigError(f'{path}: must be readable as JSON ({type(error).__name__}: {error}).') from None


def inherit(values: Mapping[str, Any], explicit: Collection[str]) -> dict[str, Any]:
    """A config's values, with the fields that its `init` decides taken over from there.

    Args:
        values: the config as nested dictionaries.
        explicit: fields that were given on the command line, such as `model.size`.

    Raises:
        ConfigError: there is no such run, or a given field contradicts it.
    """
    result = copy.deepcopy(dict(values))
    if not result.get('init'):
        return result
    run, binding = read_config(result['init']), _binding(result, result['init'])
    for field in _fields_of_parts(result['init'], _BINDING | _USUAL):
        section, name = field.split('.')
        theirs, ours = run[section][name], result[section][name]
        if field not in explicit:
            result[section][name] = theirs
        elif field in binding and not same(ours, theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = '
                f'{result["init"]!r}; leave the flag out, and it is.{_remark(field)}'
            )
    return result


def check_inherited(values: Mapping[str, Any], run: Mapping[str, Any], path: str) -> None:
    """Raises ConfigError if a config can't load a run; names the field and both values."""
    for field in _binding(values, path):
        section, name = field.split('.')
        theirs, ours = run[section][name], values[section][name]
        if not same(ours, theirs):
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.init = {path!r}.'
                f'{_remark(field)}'
            )


def other_front_end(config: Config) -> str:
    """A sentence that compares a classifier's front end with that of its `init`; empty if they are one."""
    if not config.init or 'audio' not in config.finetune.modalities:
        return ''
    if _NORMALISATION not in _fields_of_parts(config.init, _BINDING):
        return ''
    name = read_config(config.init)['audio']['front_end']
    ours, theirs = config.audio.normalization, FRONT_ENDS[name]
    if ours == theirs:
        return ''

    def spell(front_end: FrontEnd) -> str:
        scale = f'mean {front_end.mean:.3f}, deviation {front_end.divisor:g} x {front_end.std:.3f}'
        return f'{scale}, padded {front_end.pad.replace("_", " ")}'

    return (
        f'config.audio.front_end = {config.audio.front_end!r} ({spell(ours)}) is not what the encoder of '
        f'{config.init} was trained with, {name!r} ({spell(theirs)}): frozen features may lose by it.'
    )


def _binding(values: Mapping[str, Any], run: str) -> list[str]:
    """The fields that must have the run's values."""
    free = _NORMALISATION if values['objective'] == 'classification' else ''
    return [field for field in _fields_of_parts(run, _BINDING) if field != free]


def _remark(field: str) -> str:
    if field != _NORMALISATION:
        return ''
    return ' Only a classifier (config.objective=classification) may learn from another front end.'


def _fields_of_parts(run: str, fields: Mapping[str, str]) -> list[str]:
    """The fields that belong to a part that the run, import or export has."""
    card = read_card(run)
    return [field for field, part in fields.items() if card is None or not part or part in card['parts']]
