"""How the parameters of a ViT in the names and shapes of timm become ours, and ours theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import einops
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.layouts import Layers
from diffmavil_jax.interop.state_dict import StateDict

# Our name in a block, their name in a block, and whether ours is the transpose.
_BLOCK = (
    ('self_norm/scale', 'norm1{norms}.weight', False),
    ('self_norm/bias', 'norm1{norms}.bias', False),
    ('self_attention/out/kernel', 'attn.proj.weight', True),
    ('self_attention/out/bias', 'attn.proj.bias', False),
    ('mlp_norm/scale', 'norm2{norms}.weight', False),
    ('mlp_norm/bias', 'norm2{norms}.bias', False),
    ('mlp/wide/kernel', 'mlp.fc1.weight', True),
    ('mlp/wide/bias', 'mlp.fc1.bias', False),
    ('mlp/narrow/kernel', 'mlp.fc2.weight', True),
    ('mlp/narrow/bias', 'mlp.fc2.bias', False),
)
_FUSED = (('kernel', 'attn.qkv.weight', True), ('bias', 'attn.qkv.bias', False))
_PARTS = ('query', 'key', 'value')  # in the order of their rows in the fused matrix

Params = dict[str, Any]


def stack_of(file: StateDict, layers: Sequence[Layers]) -> Params:
    """The blocks of a file as our `Stack` holds them: each parameter has a leading axis of layers.

    Raises:
        ConfigError: a parameter is missing, or does not have the shape of one in such blocks.
    """
    blocks = [
        _block(file, f'{part.prefix}.{i}', part.norms)
        for part in layers
        # At least one, so that a file without any raises an error that names the first.
        for i in range(max(1, file.count(part.prefix)))
    ]
    for i, block in enumerate(blocks):
        for name, array in block.items():
            if array.shape != blocks[0][name].shape:
                raise ConfigError(
                    f'{file.path}: {name} of layer {i} has shape {list(array.shape)}, and that of layer 0 '
                    f'{list(blocks[0][name].shape)}: all layers must have the same.'
                )
    stacked = {name: np.stack([block[name] for block in blocks]) for name in blocks[0]}
    return {'layers': {'block': traverse_util.unflatten_dict(stacked, sep='/')}}


def blocks_of(stack: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `stack_of`: `blocks.0.norm1.weight` and so on."""
    flat = traverse_util.flatten_dict(stack['layers']['block'], sep='/')
    depth = len(flat['self_norm/scale'])
    result: dict[str, np.ndarray] = {}
    for i in range(depth):
        block = {
            theirs.format(norms=''): _turned(flat[ours][i], transposed) for ours, theirs, transposed in _BLOCK
        }
        for ours, theirs, transposed in _FUSED:
            parts = [_turned(flat[f'self_attention/{part}/{ours}'][i], transposed) for part in _PARTS]
            block[theirs] = np.concatenate(parts)
        result |= {f'blocks.{i}.{name}': value for name, value in block.items()}
    return result


def norm_of(file: StateDict, name: str) -> Params:
    """A layer norm of a file."""
    return {'scale': file.take(f'{name}.weight', [None]), 'bias': file.take(f'{name}.bias', [None])}


def plain_norm(width: int) -> Params:
    """A layer norm that only normalises: scale 1, bias 0."""
    return {'scale': np.ones(width, np.float32), 'bias': np.zeros(width, np.float32)}


def audio_kernel(weight: Float[np.ndarray, 'd c t f']) -> Float[np.ndarray, 'p d']:
    """The patch embedding of a convolution, whose channels are summed; patch values are (time, mel)."""
    return einops.reduce(weight, 'd c t f -> (t f) d', 'sum')


def audio_convolution(kernel: Float[np.ndarray, 'p d'], patch: int) -> Float[np.ndarray, 'd 1 t f']:
    """The inverse of `audio_kernel` for one channel."""
    return einops.rearrange(kernel, '(t f) d -> d 1 t f', t=patch)


def picture_kernel(weight: Float[np.ndarray, 'd 3 y x'], patch_frames: int) -> Float[np.ndarray, 'p d']:
    """The tubelet embedding of a convolution over pictures.

    A tubelet whose frames are all one picture is embedded as that picture.
    """
    return einops.repeat(weight / patch_frames, 'd c y x -> (t y x c) d', t=patch_frames)


def video_kernel(weight: Float[np.ndarray, 'd 3 t y x']) -> Float[np.ndarray, 'p d']:
    """The tubelet embedding of a convolution over clips; values are (frame, height, width, channel)."""
    return einops.rearrange(weight, 'd c t y x -> (t y x c) d')


def folded_convolution(
    kernel: Float[np.ndarray, 'p d'], patch_frames: int, patch: int
) -> Float[np.ndarray, 'd tc y x']:
    """The convolution of a tubelet embedding, over pictures whose channels are the colours of all frames."""
    return einops.rearrange(kernel, '(t y x c) d -> d (t c) y x', t=patch_frames, y=patch, x=patch)


def _block(file: StateDict, prefix: str, norms: str) -> dict[str, np.ndarray]:
    block = {
        ours: _turned(file.take(f'{prefix}.{theirs.format(norms=norms)}', _axes(transposed)), transposed)
        for ours, theirs, transposed in _BLOCK
    }
    width = len(block['self_norm/scale'])
    for ours, theirs, transposed in _FUSED:
        fused = file.take(f'{prefix}.{theirs}', [3 * width, *_axes(transposed)[1:]])
        for part, rows in zip(_PARTS, np.split(fused, 3), strict=True):
            block[f'self_attention/{part}/{ours}'] = _turned(rows, transposed)
    return block


def _axes(transposed: bool) -> list[None]:
    """The shape of a matrix, which is stored transposed, or of a vector."""
    return [None, None] if transposed else [None]


def _turned(array: np.ndarray, transposed: bool) -> np.ndarray:
    return array.T if transposed else array
