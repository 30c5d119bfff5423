"""Reads the sound and the pictures of one clip out of a media file, with PyAV, which bundles FFmpeg.

Times are seconds from the beginning of the presentation, whatever the container's own clock starts at. A file
or a clip that can't be used raises a MediaError that says why in a few words; nothing is repaired silently.
For files that are not trusted, `data.sandbox` does the same in separate processes, with a time limit.
"""

from diffmavil_jax.data.media.container import (
    CONTAINERS,
    MAX_PIXELS,
    MAX_SECONDS,
    MediaError,
    MediaInfo,
    Source,
    probe,
)
from diffmavil_jax.data.media.decoding import BOTH, Modality, decode
from diffmavil_jax.data.media.pictures import PADDED_FRACTION
from diffmavil_jax.data.media.sound import SILENCE_PEAK

__all__ = [
    'BOTH',
    'CONTAINERS',
    'MAX_PIXELS',
    'MAX_SECONDS',
    'PADDED_FRACTION',
    'SILENCE_PEAK',
    'MediaError',
    'MediaInfo',
    'Modality',
    'Source',
    'decode',
    'probe',
]
