"""How one encoder of a file gets our names and shapes, and which config fields it needs."""

from __future__ import annotations

import dataclasses
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
_MEL_FRAMES = 1024  # of most layouts; the positions of a picture are interpolated for them
_PUBLISHED_FRAMES = (128, 512, 1024)
_AST_STRIDE = 10  # of its patches (Gong et al. 2021)
_FRAMES_A_SECOND = 100
_SHORTEST_S = 0.2  # of a clip


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
    weight = file.take(f'{branch.patches}.weight', [None] * 4)
    patch = weight.shape[-1]
    if not 0 < patch == weight.shape[-2] <= _MEL_BINS:
        raise ConfigError(
            f'{file.path}: {branch.patches}.weight is for patches of {weight.shape[-2]} x {patch}, which '
            f'must be square, and of at most {_MEL_BINS} values.'
        )
    class_token, table = _tokens(file, branch, len(weight))
    bins, remarks = _MEL_BINS // patch, []
    if branch.picture:
        grid = (_MEL_FRAMES // patch, bins)
        table = picture_table(table, _square(file, table, 1), grid)
        remarks.append('The positions of sound are those of a picture, interpolated.')
    else:
        grid = (len(table) // bins, bins)
        _check_apart(file, len(table), grid, patch)
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
    sections = {'audio': settings, 'data': {'seconds': seconds_of(settings['num_frames'])}}
    return Encoder({'encoder_audio': encoder} | norm, sections, (*remarks, *remark))


def seconds_of(num_frames: int) -> float:
    """The length of the clips that a spectrogram of so many frames was made for.

    Published networks pad clips of whole seconds: 10 s to 1024 frames, 5 s to 512, and 1 s to 128.
    """
    return float(num_frames // _FRAMES_A_SECOND or max(_SHORTEST_S, num_frames / _FRAMES_A_SECOND))


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
    weight = file.take(f'{branch.patches}.weight', [None] * (4 if branch.picture else 5))
    if weight.shape[1] != 3 or not 0 < weight.shape[-1] == weight.shape[-2]:
        raise ConfigError(
            f'{file.path}: {branch.patches}.weight is for patches of {weight.shape[-2]} x {weight.shape[-1]} '
            f'with {weight.shape[1]} colours, which must be square, with 3.'
        )
    class_token, table = _tokens(file, branch, len(weight))
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
    embedding = {'kernel': kernel, 'bias': file.take(f'{branch.patches}.bias', [table.shape[1]])}
    return {'patch_embedding': embedding, 'positions': table, **vit.stack_of(file, branch.layers)}


def _norm(
    file: StateDict, branch: Branch, modality: str, width: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    name = f'{modality}_pool_norm'
    if branch.norm and f'{branch.norm}.weight' in file:
        return {name: vit.norm_of(file, branch.norm)}, ()
    remarks = [f'{name} only normalises: the file has no norm before the mean.']
    if 'fc_norm.weight' in file:
        remarks.append('fc_norm of the file, which belongs after the mean of the tokens, is left out.')
    return {name: vit.plain_norm(width)}, tuple(remarks)


def _tokens(file: StateDict, branch: Branch, width: int) -> tuple[dict[str, Any], Float[np.ndarray, 'n d']]:
    """The class token, if the file has one, and the positions of the patches."""
    first, *others = branch.positions
    table = file.take(first, [1, None, width])[0]
    for key in others:
        table = table + file.take(key, [1, 1, width])[0]
    if not branch.class_token:
        return {}, table
    # The position of the class token is a constant, so it is added here.
    class_token = file.take(branch.class_token, [1, 1, width])
    if len(table) < 2:
        raise ConfigError(f'{file.path}: {first} has {len(table)} positions, and must have that of a patch.')
    return {'class_token': class_token + table[0]}, table[1:]


def _check_apart(file: StateDict, positions: int, grid: tuple[int, int], patch: int) -> None:
    """Raises ConfigError if the positions of sound are not those of patches that lie side by side."""
    overlapping = _overlapping(positions, patch, longer=grid[0] * patch > _MEL_FRAMES)
    if math.prod(grid) == positions > 0 and not overlapping:
        return
    grids = f'{overlapping[0]} x {overlapping[1]}' if overlapping else ''
    reading = f'; they may be of {grids} patches that overlap, which can not be imported' if grids else ''
    raise ConfigError(
        f'{file.path}: has {positions} positions of sound, and must have those of patches side by side, '
        f'{grid[1]} (mel) for each time{reading}.'
    )


def _overlapping(positions: int, patch: int, *, longer: bool) -> tuple[int, int] | None:
    """The grid (time, mel) of patches that overlap as those of AST, if the positions may be theirs.

    The same number may be that of a longer clip whose patches do not overlap. No published network hears
    more than 1024 frames, so with `longer` ones any overlap is likelier; else it is at published lengths.
    """
    bins = (_MEL_BINS - patch) // _AST_STRIDE + 1
    time, rest = divmod(positions, bins)
    if patch <= _AST_STRIDE or rest or not time:
        return None
    last = (time - 1) * _AST_STRIDE + patch
    frames = range(last, last + _AST_STRIDE)  # of spectrograms that have these patches
    likely = last <= _MEL_FRAMES if longer else any(n in frames for n in _PUBLISHED_FRAMES)
    return (time, bins) if likely else None


def _square(file: StateDict, table: np.ndarray, steps: int) -> tuple[int, int]:
    """Height and width of a picture in patches, for a table with the positions of `steps` pictures."""
    side = math.isqrt(len(table) // steps)
    if not side or steps * side**2 != len(table):
        at = f' at each of {steps} times; --frames changes that' if steps > 1 else ''
        raise ConfigError(f'{file.path}: has {len(table)} positions, which do not make a square picture{at}.')
    return side, side
