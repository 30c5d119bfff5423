"""Reads one clip's sound and pictures out of a media file (PyAV, which bundles FFmpeg).

Times are seconds from the beginning of the presentation, whatever the container's own
clock starts at. What can't be used raises a MediaError that says why in a few words;
nothing is repaired in silence. Where files are not trusted, `data.sandbox` does the same
in processes of its own, with a time-out.
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
