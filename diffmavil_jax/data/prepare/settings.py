"""The settings of a prepared dataset: what a clip is, and which clips are kept."""

from __future__ import annotations

import dataclasses
import math

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import ClipSpec, DataError

SAMPLE_RATE = 16_000
DOUBTFUL = ('silent', 'still')  # kinds of clips that are refused unless `keep` has them

_LEAST_FRAMES, _MOST_FRAMES = 8, 4096


def usual_frames(seconds: float | None) -> int:
    """Two a second, as MAViL has them, and 8 at least; 8 of clips of any length."""
    return _LEAST_FRAMES if seconds is None else min(max(_LEAST_FRAMES, math.ceil(2 * seconds)), _MOST_FRAMES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a clip is, and which clips are kept.

    Attributes:
        modalities: what a clip must have, and all that is kept of it.
        seconds: length of a clip; None: a clip is the whole row, however long.
        frames: pictures of a clip, evenly spaced.
        frame_size: their width and height. The shorter side is scaled to it, and the centre is cut out.
        jpeg_quality: from 1 to 100.
        keep: those of DOUBTFUL that are not refused.
        shard_clips: how many clips a shard has at most, about. A killed run loses the shards that were being
            made.
    """

    modalities: tuple[str, ...] = MODALITIES
    seconds: float | None = 10.0
    frames: int = 8
    frame_size: int = 256
    jpeg_quality: int = 90
    keep: tuple[str, ...] = ()
    shard_clips: int = 256

    def __post_init__(self) -> None:
        self._need(
            bool(self.modalities) and set(self.modalities) <= set(MODALITIES),
            'modalities',
            'audio, video or both',
        )
        self._need(set(self.keep) <= set(DOUBTFUL), 'keep', 'silent, still or both')
        self._need(self.seconds is None or 0.2 <= self.seconds <= 3600, 'seconds', 'from 0.2 to 3600, or all')
        self._need(1 <= self.frames <= _MOST_FRAMES, 'frames', f'from 1 to {_MOST_FRAMES}')
        self._need(16 <= self.frame_size <= 4096, 'frame_size', 'from 16 to 4096')
        self._need(1 <= self.jpeg_quality <= 100, 'jpeg_quality', 'from 1 to 100')
        self._need(1 <= self.shard_clips <= 1 << 20, 'shard_clips', 'from 1 to 1048576')

    def _need(self, right: bool, field: str, allowed: str) -> None:
        if not right:
            value = getattr(self, field)
            shown = ','.join(value) if isinstance(value, tuple) else value
            raise DataError(f'--{field}={shown}: must be {allowed}.')

    @property
    def has_video(self) -> bool:
        return 'video' in self.modalities

    def spec(self, seconds: float) -> ClipSpec:
        """The spec of a clip of this length, for the decoder."""
        return ClipSpec(SAMPLE_RATE, seconds, self.frames, self.frame_size)
