"""Cuts rows into clips, in the same way for `prepare` and for training on a folder."""

from __future__ import annotations

import dataclasses
import math

from diffmavil_jax.data import media
from diffmavil_jax.data.listings.row import Row

_SHORTEST_S = 0.01  # of a clip that is a whole row


@dataclasses.dataclass(frozen=True)
class Cut:
    """The clips of a row.

    Attributes:
        starts_s: where each clip begins in the file.
        seconds: how long each clip is.
        start_ignored: `start_s` is beyond the end of the file. It was taken for a position in another file,
            and ignored.
        too_short: why there is no clip; empty if there is one.
        spare_s: how much later than the first clip one may begin that ends with the row, in seconds.
    """

    starts_s: tuple[float, ...]
    seconds: float
    start_ignored: bool
    too_short: str = ''
    spare_s: float = 0.0

    def stretch(self, i: int) -> tuple[float, float]:
        """Where clip `i` may begin: equal parts of all starts, so that each is equally likely."""
        part = self.spare_s / len(self.starts_s)
        return self.starts_s[0] + i * part, part


def cut(row: Row, length: float, seconds: float | None) -> Cut:
    """Cuts a row into consecutive clips.

    A row begins at `start_s`, or where the file does. It lasts for `duration_s`; without that, until the file
    ends, or for one clip if it has a `start_s`. A last piece that lacks at most PADDED_FRACTION of a clip
    counts as a clip, and will be padded; a shorter one is dropped.

    Args:
        row: whose `start_s` counts from the beginning of its file; not a segment of a video.
        length: of the file in seconds.
        seconds: of a clip; None: the whole row is one clip.
    """
    begin = row.start_s or 0.0
    wanted = seconds if seconds is not None else row.duration_s or 0.0
    start_ignored = begin > 0 and begin >= length - media.PADDED_FRACTION * wanted
    if start_ignored:
        begin = 0.0
    end = length
    if row.duration_s is not None:
        end = min(length, begin + row.duration_s)
    elif row.start_s is not None and seconds is not None and not start_ignored:
        end = min(length, begin + seconds)
    lasts = end - begin
    if seconds is None:
        if lasts < max(_SHORTEST_S, (1 - media.PADDED_FRACTION) * (row.duration_s or 0.0) - 1e-6):
            stated = '' if row.duration_s is None else f' of {row.duration_s:g} s'
            return Cut((), lasts, start_ignored, f'too short: {max(0.0, lasts):.3f} s{stated}')
        return Cut((begin,), lasts, start_ignored)
    num_clips = math.floor(lasts / seconds + media.PADDED_FRACTION + 1e-6)
    if num_clips < 1:
        return Cut((), seconds, start_ignored, f'too short: {lasts:.2f} s for a clip of {seconds:g} s')
    starts = tuple(begin + i * seconds for i in range(num_clips))
    return Cut(starts, seconds, start_ignored, spare_s=max(0.0, lasts - seconds))
