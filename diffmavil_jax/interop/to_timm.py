"""How an encoder becomes a state dict of timm's VisionTransformer.

As in our pooled features, `norm` is applied to each token, and the mean is over the tokens of patches. timm
embeds pictures only, so a clip becomes one tall picture: its tubelets are stacked from top to bottom in the
order of time, and the colours of a tubelet's frames are channels. The tokens are then ours, in our order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffmavil_jax.config.schema import Config
from diffmavil_jax.interop import vit
from diffmavil_jax.models.positions import sincos_table

INPUT = {
    'audio': 'normalised log-mel [b, 1, time, mel]',
    'video': "normalised frames [b, time, height, width, 3]: einops.rearrange(frames, 'b (t p) y x c -> "
    "b (p c) (t y) x', p=patch_frames)",
}


def timm_arguments(config: Config, modality: str) -> dict[str, Any]:
    """The arguments of `timm.models.vision_transformer.VisionTransformer` for an encoder."""
    data, video, size = config.data, config.video, config.model.vit
    shape = {
        'audio': {
            'img_size': [config.audio.num_frames, config.audio.num_mel_bins],
            'patch_size': config.audio.patch,
            'in_chans': 1,
        },
        'video': {
            'img_size': [config.video_grid[0] * data.frame_size, data.frame_size],
            'patch_size': video.patch,
            'in_chans': 3 * video.patch_frames,
        },
    }
    return {
        **shape[modality],
        'embed_dim': size.width,
        'depth': size.depth,
        'num_heads': size.heads,
        'class_token': config.model.class_token,
        'no_embed_class': True,  # our class token has no position
        'num_classes': 0,
        'global_pool': 'avg',
        'fc_norm': False,  # the norm comes before the mean
    }


def timm_state(params: Mapping[str, Any], config: Config, modality: str) -> dict[str, np.ndarray]:
    """The state dict of an encoder, by the names of timm."""
    encoder, norm = params[f'encoder_{modality}'], params[f'{modality}_pool_norm']
    kernel = encoder['patch_embedding']['kernel']
    if modality == 'audio':
        weight = vit.audio_convolution(kernel, config.audio.patch)
    else:
        weight = vit.folded_convolution(kernel, config.video.patch_frames, config.video.patch)
    stored = config.model.positions == 'stored'
    table = encoder['positions'] if stored else sincos_table(config.grids[modality], config.model.vit.width)
    state = {
        'pos_embed': table[None],
        'patch_embed.proj.weight': weight,
        'patch_embed.proj.bias': encoder['patch_embedding']['bias'],
        'norm.weight': norm['scale'],
        'norm.bias': norm['bias'],
        **vit.blocks_of(encoder),
    }
    return state | ({'cls_token': encoder['class_token']} if config.model.class_token else {})
