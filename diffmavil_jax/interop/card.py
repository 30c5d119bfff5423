"""The card of an import or an export: what it is and where it is from, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from diffmavil_jax.config.schema import Config


def make_card(config: Config, params: Mapping[str, Any], *, licence: str, **facts: Any) -> dict[str, Any]:
    """Front ends, positions and sizes of the parts, with other facts.

    Args:
        config: of the network.
        params: by part.
        licence: of the parameters.
        facts: whatever is known of where the parameters are from.
    """
    model = config.model
    card: dict[str, Any] = {
        'parts': sorted(params),
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
        'size': {'name': model.size, **dataclasses.asdict(model.vit)},
        'positions': model.positions,
        'class_token': model.class_token,
        'licence': licence,
    }
    if 'encoder_audio' in params:
        card['audio'] = {
            'sample_rate': config.data.sample_rate,
            'log_mel': 'Kaldi filter banks of 25 ms every 10 ms, natural logarithm, each clip less its mean',
            'normalization': dataclasses.asdict(config.audio.normalization),
            'num_mel_bins': config.audio.num_mel_bins,
            'num_frames': config.audio.num_frames,
            'seconds': config.data.seconds,
            'patch': config.audio.patch,
            'grid (time, frequency)': config.audio.grid,
        }
    if 'encoder_video' in params:
        card['video'] = {
            'frames': config.data.frames,
            'seconds': config.data.video_span,
            'frame_size': config.data.frame_size,
            'mean': config.video.mean,
            'std': config.video.std,
            'patch': config.video.patch,
            'patch_frames': config.video.patch_frames,
            'grid (time, height, width)': config.video_grid,
        }
    if 'fusion' in params:
        card['fusion_layers'] = model.fusion_layers
    return card | facts
