"""From a batch on the wire to normalised patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from diffmavil_jax.config import Config
from diffmavil_jax.data.frontend import pixels, spectrogram
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from diffmavil_jax.parallel.mesh import by_clips


def to_patches(batch: Mapping[str, Any], config: Config) -> dict[str, Float[Array, 'b n p']]:
    """Patches of both modalities, in the units of their front ends.

    Args:
        batch: `waveform` int16 [b samples] and `frames` uint8 [b t y x 3].
    """
    sound = by_clips(lambda waveform: spectrogram(waveform, config.audio, config.data.sample_rate))
    audio = sound(batch['waveform'])
    video = pixels(batch['frames'], config.video)
    return {
        'audio': patchify_audio(audio, config.audio.patch),
        'video': patchify_video(video, config.video.patch_frames, config.video.patch),
    }
