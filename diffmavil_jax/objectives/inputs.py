"""From a batch of integers, as the data pipeline gives it, to normalised patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.frontend import pad_after, pixels, spectrogram
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from diffmavil_jax.parallel.mesh import by_clips


def to_patches(batch: Mapping[str, Any], config: Config) -> dict[str, Float[Array, 'b n p']]:
    """Patches of the modalities of a batch, in the units of their front ends.

    Args:
        batch: `waveform` int16 [b samples] and `frames` uint8 [b t y x 3], or one of them; optionally
            `samples` int32 [b], the length of each sound: the front end pads what follows.
        config: of the front ends.
    """
    patches = {}
    if 'waveform' in batch:
        sound = by_clips(lambda waveform: spectrogram(waveform, config.audio, config.data.sample_rate))
        audio = sound(batch['waveform'])
        if 'samples' in batch:
            audio = pad_after(audio, batch['samples'], config.audio, config.data.sample_rate)
        patches['audio'] = patchify_audio(audio, config.audio.patch)
    if 'frames' in batch:
        video = pixels(batch['frames'], config.video)
        patches['video'] = patchify_video(video, config.video.patch_frames, config.video.patch)
    return patches
