"""Decodes one clip and makes JPEG of its pictures. Runs in a decoding process (`data.sandbox`)."""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec

SILENT, STILL = 'silent', 'still picture'  # reasons

# A still picture: no more than this share of its pixels ever differ by more than that many of 255 levels.
STILL_SHARE, STILL_LEVELS = 0.0005, 16
# Pixels looked at, in each direction.
_STILL_GRID = 64


def encode_clip(
    source: media.Source,
    start_s: float,
    spec: ClipSpec,
    modalities: Collection[media.Modality],
    *,
    jpeg_quality: int,
    keep_silent: bool,
    keep_still: bool,
) -> tuple[Int16[np.ndarray, ' samples'], list[bytes]]:
    """Like `media.decode`, but pictures are JPEG, and what is not wanted is empty.

    Args:
        source: a path, or the bytes of a file.
        start_s: seconds from the beginning of the presentation.
        spec: how long the clip is, and what is made of it.
        modalities: what is wanted.
        jpeg_quality: from 1 to 100.
        keep_silent: whether a silent clip is given, with zeros for its sound.
        keep_still: whether a clip of one picture is given.

    Raises:
        MediaError: that of `media.decode`, or 'still picture'.
    """
    try:
        waveform, frames = media.decode(source, start_s, spec, modalities)
    except media.MediaError as error:
        if str(error) != SILENT or not keep_silent:
            raise
        waveform, frames = np.zeros(spec.num_samples, np.int16), None
        if 'video' in modalities:
            _, frames = media.decode(source, start_s, spec, ['video'])
    if waveform is None:
        waveform = np.zeros(0, np.int16)
    if frames is None:
        return waveform, []
    if not keep_still and is_still(frames):
        raise media.MediaError(STILL)
    return waveform, [_jpeg(frame, jpeg_quality) for frame in frames]


def is_still(frames: UInt8[np.ndarray, 't h w 3']) -> bool:
    """Whether a clip of two frames or more shows one picture all the time, but for coding noise."""
    stride = max(1, frames.shape[1] // _STILL_GRID)
    sample = frames[:, ::stride, ::stride].astype(np.int16)
    changed = np.abs(sample[1:] - sample[:1]) > STILL_LEVELS
    return len(changed) > 0 and bool(changed.any(axis=-1).mean(axis=(1, 2)).max() <= STILL_SHARE)


def _jpeg(frame: UInt8[np.ndarray, 'h w 3'], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()
