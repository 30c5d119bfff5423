"""Picks the frames shown at evenly spaced times out of a stream of packets.

Two readers give the same pictures. `WantedPictures` knows from the times in the packets which
frames will be shown, and decodes as little as it can. `AllPictures` decodes everything and picks
by the times of the frames; it serves streams whose packets don't tell.
"""

from __future__ import annotations

import bisect
import collections
import math
from typing import Protocol

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import MAX_PIXELS, MediaError
from diffmavil_jax.data.media.conversion import Converter
from diffmavil_jax.data.media.packets import PADDED_FRACTION, ROUNDING_S, frames_of

# Frames decoded for one clip, counted from the keyframe before it.
MAX_DECODED_FRAMES = 20_000
# Share of a progressive stream's packets that may yield no frame (VP8 has invisible ones).
_LOST_FRACTION = 0.25


class Pictures(Protocol):
    """Takes packets in the order of the file until all pictures of a clip are there."""

    @property
    def done(self) -> bool: ...

    @property
    def begins_late(self) -> bool:
        """Whether there is no frame at or before the first wanted time."""
        ...

    def add(self, packet: Packet, *, after_seek: bool) -> None: ...

    def finish(self) -> UInt8[np.ndarray, 't h w 3']: ...


class PacketsDoNotTell(Exception):
    """Which frames are shown when can't be known from these packets: decode all of them."""


class _Wanted:
    """What both readers share: the wanted times, and what of the clip must be there."""

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec) -> None:
        stream.codec_context.thread_count = 1  # clips are decoded in parallel, not frames
        stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
        self.start, self.seconds = start, spec.seconds
        self.times = [start + (i + 0.5) * spec.seconds / spec.frames for i in range(spec.frames)]
        self.frame_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self.convert = Converter(spec.frame_size, float(stream.sample_aspect_ratio or 1))
        self.pictures = np.empty(*spec.shapes['frames'])

    def check_length(self, first: float, end: float) -> None:
        """Refuses pictures shown from `first` until `end` if they leave too much of the clip out."""
        shown_s = min(end, self.start + self.seconds) - max(first, self.start)
        # Half a frame: what the rounding of times and an odd frame count may take.
        if shown_s + self.frame_s / 2 < (1 - PADDED_FRACTION) * self.seconds:
            raise MediaError(f'too short: pictures for {max(0.0, shown_s):.2f} of {self.seconds:g} s')


class WantedPictures:
    """Decodes only what the wanted frames need, and accepts nothing but these very frames.

    A packet's decoding time is not after its frame's, nor after those of later packets: once
    it exceeds a wanted time, it is known which frame is shown then. Decoding begins at the last
    keyframe before that one and leaves out frames that no other frame refers to.
    """

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec) -> None:
        self._wanted = _Wanted(stream, start, spec)
        self._codec = stream.codec_context
        if stream.time_base is None:
            raise PacketsDoNotTell
        self._unit_s = float(stream.time_base)
        # In units of the stream from here on: the last time at which each frame may begin.
        self._latest = [math.floor((time + ROUNDING_S) / self._unit_s) for time in self._wanted.times]
        self._held: collections.deque[tuple[int, Packet]] = collections.deque()
        self._times: list[int] = []  # of all frames, ascending
        self._shown: list[int] = []  # the time of the frame shown, for the wanted times known so far
        self._there: dict[int, int] = {}  # where the picture of a time is
        self._early: dict[int, VideoFrame] = {}  # decoded ahead of the last frame that is known as shown
        self._ends = -math.inf
        self._ended = self._begun = self._flushed = False

    @property
    def done(self) -> bool:
        return len(self._shown) == len(self._latest)

    @property
    def begins_late(self) -> bool:
        return not self._times or self._times[0] > self._latest[0]

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if not packet.size:
            self._ended = True
            self._resolve(math.inf)
            return
        if packet.pts is None or len(self._times) >= MAX_DECODED_FRAMES:
            raise PacketsDoNotTell
        if self._shown and self._shown[-1] < packet.pts <= self._latest[len(self._shown) - 1]:
            raise PacketsDoNotTell  # it changes what has been settled
        self._held.append((packet.pts, packet))
        if not packet.is_discard:
            bisect.insort(self._times, packet.pts)
            self._ends = max(self._ends, packet.pts + (packet.duration or 0))
        if packet.dts is not None:
            self._resolve(packet.dts)

    def finish(self) -> UInt8[np.ndarray, 't h w 3']:
        if not self._times:
            raise MediaError('too short: no picture there')
        if not self.done:  # the container ended without saying so
            raise PacketsDoNotTell
        end = (
            self._ends
            if self._ends > self._times[-1]
            else self._times[-1] + self._wanted.frame_s / self._unit_s
        )
        self._wanted.check_length(
            self._times[0] * self._unit_s, end * self._unit_s if self._ended else math.inf
        )
        self._drain()
        if not self._there.keys() >= set(self._shown):
            raise PacketsDoNotTell
        pictures = self._wanted.pictures
        for i, time in enumerate(self._shown):
            if self._there[time] != i:
                pictures[i] = pictures[self._there[time]]
        return pictures

    def _resolve(self, horizon: float) -> None:
        while not self.done and self._latest[len(self._shown)] < horizon and self._times:
            latest = self._latest[len(self._shown)]
            shown = self._times[max(0, bisect.bisect_right(self._times, latest) - 1)]
            self._shown.append(shown)
            self._early = {time: frame for time, frame in self._early.items() if time >= shown}
            if shown in self._early:
                self._take(shown, self._early.pop(shown))
            self._decode_until(shown)

    def _decode_until(self, shown: int) -> None:
        """Decodes the packets held up to the one of the frame shown, from the last keyframe on."""
        times = [None if packet.is_discard else time for time, packet in self._held]
        if shown not in times:
            return  # it was decoded before, or will be missed
        count = times.index(shown) + 1
        packets = [self._held.popleft() for _ in range(count)]
        keyframes = (i for i, (time, packet) in enumerate(packets) if packet.is_keyframe and time <= shown)
        keyframe = max(keyframes, default=0)
        if keyframe:
            self._drain()
        for time, packet in packets[keyframe:]:
            self._decode(packet, needed=time >= shown)

    def _decode(self, packet: Packet, *, needed: bool) -> None:
        if self._flushed:
            self._codec.flush_buffers()
        # Not at the first one: dav1d reads this once, and would leave out what is needed later.
        self._codec.skip_frame = 'DEFAULT' if needed or not self._begun else 'NONREF'
        self._begun, self._flushed = True, False
        self._receive(packet)

    def _drain(self) -> None:
        if self._begun and not self._flushed:
            self._receive(None)
            self._flushed = True

    def _receive(self, packet: Packet | None) -> None:
        try:
            for frame in self._codec.decode(packet):
                assert isinstance(frame, VideoFrame)
                if frame.pts is None or frame.is_corrupt:
                    raise PacketsDoNotTell
                self._take(frame.pts, frame)
        except av.FFmpegError as error:
            raise PacketsDoNotTell from error

    def _take(self, time: int, frame: VideoFrame) -> None:
        if time in self._there:
            return
        if time in self._shown:
            self._there[time] = self._shown.index(time)
            self._wanted.convert(frame, self._wanted.pictures[self._there[time]])
        elif not self._shown or time > self._shown[-1]:
            self._early[time] = frame


class AllPictures:
    """Decodes all frames in order and picks by their times."""

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec) -> None:
        self._wanted = _Wanted(stream, start, spec)
        stream.codec_context.skip_frame = 'DEFAULT'
        self._picked = 0
        self._shown: VideoFrame | None = None
        self._there: int | None = None  # where the picture of the frame shown is
        self._first = self._time = math.nan  # of the first frame, and of the frame shown
        self._decoded = 0
        self._packets_inside = self._frames_inside = 0

    @property
    def done(self) -> bool:
        return self._picked == len(self._wanted.times)

    @property
    def begins_late(self) -> bool:
        return not self._first <= self._wanted.times[0] + ROUNDING_S

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if packet.size and not packet.is_discard and packet.pts is not None:
            self._packets_inside += self._is_inside(float(packet.pts * packet.time_base))
        for frame in frames_of(packet, forgive=after_seek and self._shown is None):
            assert isinstance(frame, VideoFrame)
            self._add_frame(frame)

    def finish(self) -> UInt8[np.ndarray, 't h w 3']:
        if self._shown is None:
            raise MediaError('too short: no picture there')
        self._wanted.check_length(self._first, math.inf if self.done else self._time + self._shown_s())
        self._check_count()
        self._pick(math.inf)
        return self._wanted.pictures

    def _add_frame(self, frame: VideoFrame) -> None:
        time = frame.time if frame.time is not None else self._time + self._wanted.frame_s
        if math.isnan(time):
            time = 0.0
        self._decoded += 1
        if self._decoded > MAX_DECODED_FRAMES:
            raise MediaError(f'unreadable: no keyframe in {MAX_DECODED_FRAMES} frames')
        self._frames_inside += self._is_inside(time)
        if self._shown is None:
            self._first, self._shown = time, frame
        self._pick(time)
        self._shown, self._there, self._time = frame, None, time

    def _shown_s(self) -> float:
        """For how long the last frame is shown."""
        frame = self._shown
        if frame is not None and frame.duration and frame.time_base is not None:
            return float(frame.duration * frame.time_base)
        return self._wanted.frame_s

    def _is_inside(self, time: float) -> bool:
        return self._wanted.start <= time <= self._wanted.times[-1]

    def _pick(self, until: float) -> None:
        """Takes the frame shown for all wanted times before the next frame's."""
        pictures = self._wanted.pictures
        while not self.done and self._wanted.times[self._picked] + ROUNDING_S < until:
            if self._there is None:
                assert self._shown is not None
                self._wanted.convert(self._shown, pictures[self._picked])
                self._there = self._picked
            else:
                pictures[self._picked] = pictures[self._there]
            self._picked += 1

    def _check_count(self) -> None:
        interlaced = self._shown is not None and self._shown.interlaced_frame  # may take two packets a frame
        allowed = 0.5 + _LOST_FRACTION / 2 if interlaced else _LOST_FRACTION
        if self._packets_inside - self._frames_inside > max(1.0, allowed * self._packets_inside):
            raise MediaError(f'wrong frame count: {self._frames_inside} of {self._packets_inside}')
