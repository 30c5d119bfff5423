"""Reads the pictures of a clip, and decodes as little as it can for them."""

from __future__ import annotations

import bisect
import collections
import math

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import MediaError
from diffmavil_jax.data.media.packets import ROUNDING_S
from diffmavil_jax.data.media.pictures import MAX_DECODED_FRAMES, ClipPictures, PacketsDoNotTell


class WantedPictures:
    """Decodes only what the wanted frames need, and accepts nothing but these very frames.

    A packet's decoding time is not after its frame's, nor after those of later packets: once
    it exceeds a wanted time, it is known which frame is shown then. Decoding begins at the last
    keyframe before that one and leaves out frames that no other frame refers to.
    """

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec) -> None:
        self._wanted = ClipPictures(stream, start, spec)
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
