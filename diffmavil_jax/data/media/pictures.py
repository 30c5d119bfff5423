"""What a reader of pictures is, and the thorough one, which decodes every frame.

A reader picks the frames shown at evenly spaced times out of a stream of packets. There are two, and they
give the same pictures. `WantedPictures` knows from the times in the packets which frames will be shown, and
decodes as little as it can. `AllPictures` decodes everything and picks by the times of the frames; it serves
streams whose packets do not tell.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import MAX_PIXELS, MediaError
from diffmavil_jax.data.media.conversion import Converter
from diffmavil_jax.data.media.packets import PADDED_FRACTION, ROUNDING_S, frames_of
from diffmavil_jax.data.take import Take

# Frames decoded for one clip, counted from the keyframe before it.
MAX_DECODED_FRAMES = 20_000
# Share of a progressive stream's packets that may yield no frame (VP8 has invisible ones).
_LOST_FRACTION = 0.25


class PictureReader(Protocol):
    """Takes packets in the order of the file until it has all pictures of a clip."""

    @property
    def done(self) -> bool:
        """Whether more packets would change nothing."""
        ...

    @property
    def begins_late(self) -> bool:
        """Whether there is no frame at or before the first wanted time."""
        ...

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        """Takes the next packet, or the empty one that ends the stream.

        `after_seek`: what precedes the first decodable packet is no error.
        """
        ...

    def finish(self) -> UInt8[np.ndarray, 't h w 3']:
        """The pictures of the clip.

        Raises:
            MediaError: there are too few of them.
        """
        ...


class PacketsDoNotTell(Exception):
    """These packets don't tell which frames are shown at the wanted times: decode all of them."""


class ClipPictures:
    """What both readers fill: the pictures of one clip, and the times at which they are shown.

    Attributes:
        start: of the stretch that has the pictures, on the container's clock in seconds.
        seconds: length of that stretch.
        times: when each picture is shown, on the container's clock in seconds.
        frame_s: the usual time between frames of the stream.
        convert: turns a frame into a picture.
        pictures: uint8 [t h w 3], empty at first.
    """

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec, take: Take) -> None:
        stream.codec_context.thread_count = 1  # clips are decoded in parallel, not frames
        stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
        self.start, self.seconds = start + spec.video_start(take), spec.video_span
        self.times = [self.start + (i + 0.5) * self.seconds / spec.frames for i in range(spec.frames)]
        self.frame_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self.convert = Converter(spec.frame_size, float(stream.sample_aspect_ratio or 1), take)
        self.pictures = np.empty(*spec.shapes['frames'])

    def check_length(self, first: float, end: float) -> None:
        """Checks that pictures shown from `first` until `end` fill the clip.

        Raises:
            MediaError: they leave out more than PADDED_FRACTION of it.
        """
        shown_s = min(end, self.start + self.seconds) - max(first, self.start)
        # Half a frame: what the rounding of times and an odd frame count may take.
        if shown_s + self.frame_s / 2 < (1 - PADDED_FRACTION) * self.seconds:
            raise MediaError(f'too short: pictures for {max(0.0, shown_s):.2f} of {self.seconds:g} s')


class AllPictures:
    """Decodes all frames in order and picks by their times (a PictureReader)."""

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec, take: Take) -> None:
        self._clip = ClipPictures(stream, start, spec, take)
        stream.codec_context.skip_frame = 'DEFAULT'
        self._picked = 0
        self._shown: VideoFrame | None = None
        self._place: int | None = None  # which picture the frame shown has become
        self._first = self._time = math.nan  # of the first frame, and of the frame shown
        self._decoded = 0
        self._packets_inside = self._frames_inside = 0

    @property
    def done(self) -> bool:
        return self._picked == len(self._clip.times)

    @property
    def begins_late(self) -> bool:
        return not self._first <= self._clip.times[0] + ROUNDING_S

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if packet.size and not packet.is_discard and packet.pts is not None:
            self._packets_inside += self._is_inside(float(packet.pts * packet.time_base))
        for frame in frames_of(packet, forgive=after_seek and self._shown is None):
            assert isinstance(frame, VideoFrame)
            self._add_frame(frame)

    def finish(self) -> UInt8[np.ndarray, 't h w 3']:
        if self._shown is None:
            untimed = self._decoded > 0
            raise MediaError(
                'unreadable: pictures without times' if untimed else 'too short: no picture there'
            )
        self._clip.check_length(self._first, math.inf if self.done else self._time + self._shown_s())
        self._check_count()
        self._pick(math.inf)
        return self._clip.pictures

    def _add_frame(self, frame: VideoFrame) -> None:
        time = frame.time if frame.time is not None else self._time + self._clip.frame_s
        self._decoded += 1
        if self._decoded > MAX_DECODED_FRAMES:
            raise MediaError(f'unreadable: no keyframe in {MAX_DECODED_FRAMES} frames')
        if math.isnan(time):  # it is shown before the first picture that has a time
            return
        self._frames_inside += self._is_inside(time)
        if self._shown is None:
            self._first, self._shown = time, frame
        self._pick(time)
        self._shown, self._place, self._time = frame, None, time

    def _shown_s(self) -> float:
        """How long the last frame is shown, in seconds."""
        frame = self._shown
        if frame is not None and frame.duration and frame.time_base is not None:
            return float(frame.duration * frame.time_base)
        return self._clip.frame_s

    def _is_inside(self, time: float) -> bool:
        return self._clip.start <= time <= self._clip.times[-1]

    def _pick(self, until: float) -> None:
        """Makes the frame shown the picture of all wanted times before `until`, when the next one begins."""
        pictures = self._clip.pictures
        while not self.done and self._clip.times[self._picked] + ROUNDING_S < until:
            if self._place is None:
                assert self._shown is not None
                self._clip.convert(self._shown, pictures[self._picked])
                self._place = self._picked
            else:
                pictures[self._picked] = pictures[self._place]
            self._picked += 1

    def _check_count(self) -> None:
        # An interlaced frame may take two packets.
        interlaced = self._shown is not None and self._shown.interlaced_frame
        allowed = 0.5 + _LOST_FRACTION / 2 if interlaced else _LOST_FRACTION
        if self._packets_inside - self._frames_inside > max(1.0, allowed * self._packets_inside):
            raise MediaError(f'wrong frame count: {self._frames_inside} of {self._packets_inside}')
