"""Decodes one clip and encodes its pictures as JPEG; runs in a decoding process (`data.sandbox`)."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection

import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.decoding import Frames, Waveform


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files that are one recording: its sound and its pictures."""

    audio: media.Source
    video: media.Source


SILENT, STILL = 'silent', 'still picture'  # reasons

# A clip is a still picture if the mean of no block of a grid ever differs from that of the first frame by
# more than this, of 255. Real still pictures reach 6, because of coding noise, and the slowest films reach 8.
STILL_GRID, STILL_LEVELS = 16, 7.0
# Pixels of a block that are compared, in each direction.
_BLOCK = 4


def encode_clip(
    source: media.Source | Pair,
    start_s: float,
    spec: ClipSpec,
    modalities: Collection[media.Modality],
    *,
    jpeg_quality: int,
    keep_silent: bool,
    keep_still: bool,
) -> tuple[Int16[np.ndarray, ' samples'], list[bytes]]:
    """Like `media.decode`, but pictures are JPEG, and a modality that is not wanted is empty.

    Args:
        source: a path, or the bytes of a file; or two of them.
        start_s: seconds from the beginning of the presentation.
        spec: how long the clip is, and what is made of it.
        modalities: what is wanted.
        jpeg_quality: from 1 to 100.
        keep_silent: whether a silent clip is accepted, with zeros for its sound.
        keep_still: whether a clip that shows a still picture is accepted.

    Raises:
        MediaError: that of `media.decode`, or 'still picture'.
    """
    try:
        waveform, frames = _decode(source, start_s, spec, modalities)
    except media.MediaError as error:
        if str(error) != SILENT or not keep_silent:
            raise
        waveform, frames = spec.blank('waveform'), None
        if 'video' in modalities:
            _, frames = _decode(source, start_s, spec, ['video'])
    if waveform is None:
        waveform = np.zeros(0, np.int16)
    if frames is None:
        return waveform, []
    if not keep_still and is_still(frames):
        raise media.MediaError(STILL)
    return waveform, [_jpeg(frame, jpeg_quality) for frame in frames]


def _decode(
    source: media.Source | Pair, start_s: float, spec: ClipSpec, modalities: Collection[media.Modality]
) -> tuple[Waveform | None, Frames | None]:
    if not isinstance(source, Pair):
        return media.decode(source, start_s, spec, modalities)
    waveform = frames = None
    if 'audio' in modalities:
        waveform, _ = media.decode(source.audio, start_s, spec, ['audio'])
    if 'video' in modalities:
        _, frames = media.decode(source.video, start_s, spec, ['video'])
    return waveform, frames


def is_still(frames: UInt8[np.ndarray, 't h w 3']) -> bool:
    """Whether a clip of two or more frames shows the same picture all the time, apart from coding noise."""
    stride = max(1, frames.shape[1] // (STILL_GRID * _BLOCK))
    sample = frames[:, ::stride, ::stride]
    block = sample.shape[1] // STILL_GRID
    sample = sample[:, : STILL_GRID * block, : STILL_GRID * block]
    blocks = sample.reshape(len(frames), STILL_GRID, block, STILL_GRID, block, 3).mean((2, 4), np.float32)
    return len(frames) > 1 and bool(np.abs(blocks - blocks[0]).max() <= STILL_LEVELS)


def _jpeg(frame: UInt8[np.ndarray, 'h w 3'], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()
