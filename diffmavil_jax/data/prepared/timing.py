"""When sound and pictures of a stored clip are, and which of them a take has."""

from __future__ import annotations

import dataclasses
import math

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.take import Take

_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Timing:
    """When the stored sound and pictures are.

    Attributes:
        seconds: of the sound; None if it varies.
        pictures: how many there are; 0 without video.
        span_s: they are evenly spaced over so many seconds from the beginning; None if it varies.
    """

    seconds: float | None
    pictures: int
    span_s: float | None

    def pictures_within(self, seconds: float) -> int:
        """How many of the pictures are from a stretch of so many seconds."""
        if self.span_s is None or self.span_s <= seconds:
            return self.pictures
        return math.floor(self.pictures * seconds / self.span_s + _ROUNDING)

    def start(self, spec: ClipSpec, take: Take) -> int:
        """By how many pictures a take begins later than what is stored.

        It begins between two pictures, so that sound and pictures of any take are in time with each other as
        those of the fixed one are. Where clips vary in length, it begins with them.
        """
        if take.start is None or self.span_s is None or self.seconds is None:
            return 0
        spare = min(self.seconds - spec.seconds, self.span_s - spec.video_span)
        return self._steps(spare, take.start)

    def start_s(self, pictures: int) -> float:
        """When a take begins that begins later by some pictures."""
        return 0.0 if self.span_s is None or not pictures else pictures * self.span_s / self.pictures

    def frame_indices(self, spec: ClipSpec, take: Take) -> list[int]:
        """Which of the pictures a take has: evenly spaced ones from the time of its sound."""
        first = self.start(spec, take)
        if self.span_s is not None:
            spare = min(spec.seconds, self.span_s - self.start_s(first)) - spec.video_span
            first += self._steps(spare, take.video)
        step = self.pictures_within(spec.video_span) / spec.frames
        return [first + math.floor((i + 0.5) * step) for i in range(spec.frames)]

    def _steps(self, spare_s: float, share: float) -> int:
        """A share of the spare time in whole pictures; shares from 0 to 1 have each number equally often."""
        if self.span_s is None or spare_s <= 0:
            return 0
        most = math.floor(spare_s * self.pictures / self.span_s + _ROUNDING)
        return min(int(share * (most + 1)), most)
