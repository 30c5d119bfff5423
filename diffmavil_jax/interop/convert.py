"""How one encoder of a file gets our names and shapes, and which config fields it needs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop import vit
from diffmavil_jax.interop.layouts import Branch
from diffmavil_jax.interop.state_dict import StateDict
from diffmavil_jax.models.positions import picture_table

_MEL_BINS = 128  # of all layouts
_MEL_FRAMES = 1024  # for which the positions of a picture are interpolated


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Parameters by part, config fields by section, and remarks for the card."""

    params: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    remarks: tuple[str, ...]


def audio_encoder(file: StateDict, branch: Branch, front_end: str) -> Encoder:
    """Converts the encoder of sound.

    Raises:
        ConfigError: a parameter is missing, or the positions do not fit a spectrogram of 128 mel bins.
    """
    weight = file.take(f'{branch.patches}.weight')
    patch = weight.shape[-1]
    class_token, table = _tokens(file, branch)
    bins, remarks = _MEL_BINS // patch, []
    if branch.picture:
        grid = (_MEL_FRAMES // patch, bins)
        table = picture_table(table, _square(file, table, 1), grid)
        remarks.append('The positions of sound are those of a picture, interpolated.')
    else:
        grid = (len(table) // bins, bins)
        if math.prod(grid) != len(table):
            raise ConfigError(
                f'{file.path}: has {len(table)} positions, and {bins} (mel) do not divide them.'
            )
    if branch.frequency_first:
        weight = weight.swapaxes(2, 3)
        table = table.reshape(grid[1], grid[0], -1).swapaxes(0, 1).reshape(table.shape)
    settings = {
        'front_end': front_end,
        'num_mel_bins': bins * patch,
        'num_frames': grid[0] * patch,
        'patch': patch,
    }
    encoder = class_token | _body(file, branch, vit.audio_kernel(weight), table)
    norm, remark = _norm(file, branch, 'audio', table.shape[1])
    return Encoder({'encoder_audio': encoder} | norm, {'audio': settings}, (*remarks, *remark))


def video_encoder(file: StateDict, branch: Branch, frames: int, patch_frames: int) -> Encoder:
    """Converts the encoder of clips of `frames` pictures.

    Args:
        file: the parameters.
        branch: where they are in the file.
        frames: of a clip; must be as many as in training if the encoder was trained on clips.
        patch_frames: of a tubelet, for an encoder that was trained on pictures.

    Raises:
        ConfigError: a parameter is missing, or the positions do not fit such clips.
    """
    weight = file.take(f'{branch.patches}.weight')
    class_token, table = _tokens(file, branch)
    if not branch.picture:
        patch_frames = weight.shape[2]
    if frames % patch_frames:
        raise ConfigError(f'--frames={frames}: must be a multiple of the {patch_frames} of a tubelet.')
    steps, remarks = frames // patch_frames, []
    if branch.picture:
        side = _square(file, table, 1)
        kernel = vit.picture_kernel(weight, patch_frames)
        table = picture_table(table, side, (steps, *side))
        if steps > 1:
            remarks.append('The positions of video are those of a picture, with sin-cos offsets in time.')
    else:
        side = _square(file, table, steps)
        kernel = vit.video_kernel(weight)
    patch = weight.shape[-1]
    settings = {
        'video': {'patch': patch, 'patch_frames': patch_frames},
        'data': {'frames': frames, 'frame_size': side[0] * patch},
    }
    encoder = class_token | _body(file, branch, kernel, table)
    norm, remark = _norm(file, branch, 'video', table.shape[1])
    return Encoder({'encoder_video': encoder} | norm, settings, (*remarks, *remark))


def _body(
    file: StateDict, branch: Branch, kernel: Float[np.ndarray, 'p d'], table: Float[np.ndarray, 'n d']
) -> dict[str, Any]:
    embedding = {'kernel': kernel, 'bias': file.take(f'{branch.patches}.bias')}
    return {'patch_embedding': embedding, 'positions': table, **vit.stack_of(file, branch.layers)}


def _norm(
    file: StateDict, branch: Branch, modality: str, width: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    name = f'{modality}_pool_norm'
    if branch.norm and f'{branch.norm}.weight' in file:
        return {name: vit.norm_of(file, branch.norm)}, ()
    return {name: vit.plain_norm(width)}, (f'{name} only normalises: the file has no norm before the mean.',)


def _tokens(file: StateDict, branch: Branch) -> tuple[dict[str, Any], Float[np.ndarray, 'n d']]:
    """The class token, if the file has one, and the positions of the patches."""
    table = functools.reduce(np.add, [file.take(key)[0] for key in branch.positions])
    if not branch.class_token:
        return {}, table
    # The position of the class token is a constant, so it is added here.
    return {'class_token': file.take(branch.class_token) + table[0]}, table[1:]


def _square(file: StateDict, table: np.ndarray, steps: int) -> tuple[int, int]:
    """Height and width of a picture in patches, for a table with the positions of `steps` pictures."""
    side = math.isqrt(len(table) // steps)
    if steps * side**2 != len(table):
        at = f' at each of {steps} times; --frames changes that' if steps > 1 else ''
        raise ConfigError(f'{file.path}: has {len(table)} positions, which do not make a square picture{at}.')
    return side, side
