"""How a file of another project becomes a directory that a run can start from."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from diffmavil_jax.config.network import VIT_SIZES
from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop import vit
from diffmavil_jax.interop.card import make_card
from diffmavil_jax.interop.convert import Encoder, audio_encoder, video_encoder
from diffmavil_jax.interop.layouts import LAYOUTS, Layout
from diffmavil_jax.interop.state_dict import StateDict
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.saved import weights
from diffmavil_jax.storage.outputs import OutputDirectory


@dataclasses.dataclass(frozen=True)
class Options:
    """What a file does not say; None takes the value of its layout."""

    modalities: tuple[str, ...] | None = None
    front_end: str | None = None
    frames: int | None = None
    patch_frames: int | None = None
    licence: str = 'not stated'


def import_weights(
    layout_name: str,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Options,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes the encoders of a file, and its fusion if it has one, to a directory.

    Args:
        layout_name: one of LAYOUTS.
        path: the file; see `StateDict`.
        output: the directory to write.
        options: what the file does not say.
        overwrite: whether to move what is in the directory to a sibling; otherwise it must be empty.

    Returns:
        The card.

    Raises:
        ConfigError: the file can't be read, lacks a parameter, has one that the layout does not know, or has
            a network of another shape.
    """
    target = OutputDirectory(output, [path], overwrite)
    target.check()
    layout = LAYOUTS[layout_name]
    file = StateDict(path)
    encoders = _encoders(file, layout, options)
    params = {name: part for encoder in encoders for name, part in encoder.params.items()}
    if layout.fusion is not None and file.count(layout.fusion.prefix):
        params['fusion'] = vit.stack_of(file, (layout.fusion,))
        params['fusion_norm'] = vit.plain_norm(_depth_and_width(params['fusion'])[1])
    _check_names(file, layout_name, options)
    config = _config(file, layout_name, params, encoders)
    _check_shapes(file, params, config)
    card = make_card(
        config,
        params,
        licence=options.licence,
        source={
            'layout': layout_name,
            'file': file.path.name,
            'sha256': file.sha256,
            'keys_used': file.taken(),
            'keys_left_out': [*file.left_out(), *file.others()],
        },
        training_data='not stated',
        samples_seen=0,
        scores={},
        remarks=[*layout.remarks, *(remark for encoder in encoders for remark in encoder.remarks)],
    )
    root = target.open()
    weights.write_params(root, params)
    weights.write_description(root, config, card)
    return card


def _encoders(file: StateDict, layout: Layout, options: Options) -> list[Encoder]:
    modalities = options.modalities or tuple(layout.encoders)
    encoders = []
    if 'audio' in modalities:
        encoders.append(audio_encoder(file, layout.encoders['audio'], options.front_end or layout.front_end))
    if 'video' in modalities:
        sizes = options.frames or layout.frames, options.patch_frames or layout.patch_frames
        encoders.append(video_encoder(file, layout.encoders['video'], *sizes))
    return encoders


def _check_names(file: StateDict, layout_name: str, options: Options) -> None:
    """Raises ConfigError if a parameter that is not used may matter."""
    layout = LAYOUTS[layout_name]
    unknown = layout.unknown(file.left_out(), options.modalities or tuple(layout.encoders))
    if unknown:
        some = ', '.join(unknown[:5]) + (', ...' if len(unknown) > 5 else '')
        raise ConfigError(
            f'{file.path}: has {len(unknown)} parameters that --layout={layout_name} does not know: {some}. '
            f'Without them the features may be others. Is it another network? If they do not matter, remove '
            f'them from the file.'
        )


def _config(
    file: StateDict, layout_name: str, params: Mapping[str, Any], encoders: Sequence[Encoder]
) -> Config:
    encoder = next(iter(encoders[0].params.values()))
    depth, width = _depth_and_width(encoder)
    size = next((n for n, vit in VIT_SIZES.items() if (vit.width, vit.depth) == (width, depth)), None)
    if size is None:
        known = ', '.join(f'{n} ({vit.width} x {vit.depth})' for n, vit in VIT_SIZES.items())
        raise ConfigError(f'{file.path}: is {width} wide with {depth} layers, and must be one of {known}.')
    model = {'size': size, 'positions': 'stored', 'class_token': 'class_token' in encoder}
    if 'fusion' in params:
        model['fusion_layers'] = _depth_and_width(params['fusion'])[0]
    sections: dict[str, Any] = {'model': model, 'data': {'seconds': LAYOUTS[layout_name].seconds}}
    for encoder in encoders:
        for section, fields in encoder.settings.items():
            sections[section] = sections.get(section, {}) | dict(fields)
    video_seconds = LAYOUTS[layout_name].video_seconds
    if (
        any('encoder_video' in encoder.params for encoder in encoders)
        and video_seconds < sections['data']['seconds']
    ):
        sections['data']['video_seconds'] = video_seconds
    return from_dict({'name': f'{layout_name}_import', **sections})


def _depth_and_width(stack: Mapping[str, Any]) -> tuple[int, int]:
    return stack['layers']['block']['self_norm']['scale'].shape


def _check_shapes(file: StateDict, params: Mapping[str, Any], config: Config) -> None:
    """Raises ConfigError if a parameter does not have the shape that the network needs."""
    clips = {
        'audio': jax.ShapeDtypeStruct((1, config.audio.num_tokens, config.audio.patch_dim), jnp.float32),
        'video': jax.ShapeDtypeStruct((1, config.video_tokens, config.video.patch_dim), jnp.float32),
    }
    init = functools.partial(PretrainingModel(config).init, method='features')
    needed = nn.unbox(jax.eval_shape(init, jax.random.key(0), clips)['params'])
    for name, part in params.items():
        ours, theirs = (traverse_util.flatten_dict(tree, sep='/') for tree in (needed[name], part))
        for parameter, leaf in ours.items():
            if theirs[parameter].shape != leaf.shape:
                raise ConfigError(
                    f'{file.path}: its {name}/{parameter} has shape {list(theirs[parameter].shape)}, and '
                    f'{list(leaf.shape)} is needed.'
                )
