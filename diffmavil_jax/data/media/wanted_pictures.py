"""The fast reader of pictures: it decodes as little as it can.

A packet states when its frame is shown (pts), and by its decoding time (dts) that no later packet has an
earlier frame. So it is known which frames are shown at the wanted times before anything is decoded:

    packet   I0  P4  B2  I8  B6  P12  B10  P16    I: a keyframe, P and B refer to other frames
    pts       0   4   2   8   6   12   10   16    the frame is shown from here on
    dts      -2   0   2   4   6    8   10   12    all frames before this have come

Wanted is the picture at 11. P16 says that all frames before 12 have come, so frame 10 is the one. The packets
held until then are decoded up to B10, from its last keyframe I8 on; I0, P4 and B2 are dropped, and P16 stays.
B6 goes to the decoder as one that may be skipped, because no other frame refers to it. Frame 12 comes out of
the decoder too, and is kept: the next wanted time may be at 12 or later.
"""

from __future__ import annotations

import bisect
import collections
import math

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import MediaError
from diffmavil_jax.data.media.packets import ROUNDING_S
from diffmavil_jax.data.media.pictures import MAX_DECODED_FRAMES, ClipPictures, PacketsDoNotTell
from diffmavil_jax.data.take import Take


class WantedPictures:
    """Decodes only what the wanted frames need, and accepts no other frames in their place (a PictureReader).

    Raises PacketsDoNotTell where the times in the packets are missing or contradict each other, where the
    decoder reports an error, and where a wanted frame does not come out of it.
    """

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec, take: Take) -> None:
        self._clip = ClipPictures(stream, start, spec, take)
        if stream.time_base is None:
            raise PacketsDoNotTell
        self._unit_s = float(stream.time_base)  # times are integers in this unit from here on
        latest = [math.floor((time + ROUNDING_S) / self._unit_s) for time in self._clip.times]
        self._timeline = _Timeline(latest)
        self._decoder = _Decoder(stream.codec_context)
        self._ended = False  # whether the stream has said so
        self._held: collections.deque[tuple[int, Packet]] = collections.deque()  # not decoded yet, by time
        self._early: dict[int, VideoFrame] = {}  # decoded, and not known as shown yet, by time
        self._placed: dict[int, int] = {}  # the time of a frame -> which picture of the clip it is

    @property
    def done(self) -> bool:
        return self._timeline.settled

    @property
    def begins_late(self) -> bool:
        return self._timeline.begins_late

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if not packet.size:
            self._ended = True
            self._settle(math.inf)
            return
        if packet.pts is None:
            raise PacketsDoNotTell
        self._timeline.add(packet.pts, packet.duration or 0, discarded=packet.is_discard)
        self._held.append((packet.pts, packet))
        if packet.dts is not None:
            self._settle(packet.dts)

    def finish(self) -> UInt8[np.ndarray, 't h w 3']:
        if self._timeline.is_empty:
            raise MediaError('too short: no picture there')
        if not self.done:  # the container ended without saying so
            raise PacketsDoNotTell
        first, end = self._timeline.span(self._clip.frame_s / self._unit_s)
        self._clip.check_length(first * self._unit_s, end * self._unit_s if self._ended else math.inf)
        self._take_all(self._decoder.drain())
        if not self._placed.keys() >= set(self._timeline.shown):
            raise PacketsDoNotTell
        self._repeat_pictures()
        return self._clip.pictures

    def _settle(self, horizon: float) -> None:
        """Settles the wanted times before `horizon`, and decodes the frames shown then."""
        while (time := self._timeline.settle_next(horizon)) is not None:
            self._early = {early: frame for early, frame in self._early.items() if early >= time}
            if time in self._early:
                self._place(time, self._early.pop(time))
            self._decode_until(time)

    def _decode_until(self, shown: int) -> None:
        """Decodes the packets held up to that of the frame shown, from the last keyframe on."""
        packets = self._release(shown)
        keyframes = (i for i, (time, packet) in enumerate(packets) if packet.is_keyframe and time <= shown)
        first = max(keyframes, default=0)
        if first:  # the packets before it are dropped: the decoder gives back what it has until there
            self._take_all(self._decoder.drain())
        for time, packet in packets[first:]:
            self._take_all(self._decoder.decode(packet, needed=time >= shown))

    def _release(self, shown: int) -> list[tuple[int, Packet]]:
        """The packets held, up to that of the frame shown; they are held no longer.

        Empty if that one is not among them: it was decoded before, or `finish` will miss its frame.
        """
        for count, (time, packet) in enumerate(self._held, start=1):
            if time == shown and not packet.is_discard:
                return [self._held.popleft() for _ in range(count)]
        return []

    def _take_all(self, frames: list[VideoFrame]) -> None:
        """Places the frames that are shown, and keeps those that may be shown later."""
        shown = self._timeline.shown
        for frame in frames:
            if frame.pts is None or frame.is_corrupt:
                raise PacketsDoNotTell
            if frame.pts in self._placed:
                continue
            if frame.pts in shown:
                self._place(frame.pts, frame)
            elif not shown or frame.pts > shown[-1]:
                self._early[frame.pts] = frame

    def _place(self, time: int, frame: VideoFrame) -> None:
        """Converts a frame into the first picture that shows it."""
        place = self._placed[time] = self._timeline.shown.index(time)
        try:
            self._clip.convert(frame, self._clip.pictures[place])
        except av.FFmpegError as error:
            raise PacketsDoNotTell from error

    def _repeat_pictures(self) -> None:
        """Copies the pictures of frames that are shown at several wanted times."""
        pictures = self._clip.pictures
        for i, time in enumerate(self._timeline.shown):
            if self._placed[time] != i:
                pictures[i] = pictures[self._placed[time]]


class _Timeline:
    """Settles which frame is shown at each wanted time, from the times in packets alone."""

    def __init__(self, latest: list[int]) -> None:
        """Args: `latest`: for each wanted time, when the frame shown then begins at the latest; ascending."""
        self._latest = latest
        self._frames: list[int] = []  # when each frame so far begins, ascending
        self._end = -math.inf  # until when packets say that their frames are shown
        self.shown: list[int] = []  # when the frame shown begins, for the wanted times settled so far

    @property
    def settled(self) -> bool:
        """Whether all wanted times are."""
        return len(self.shown) == len(self._latest)

    @property
    def is_empty(self) -> bool:
        return not self._frames

    @property
    def begins_late(self) -> bool:
        """Whether there is no frame at or before the first wanted time."""
        return not self._frames or self._frames[0] > self._latest[0]

    def add(self, time: int, duration: int, *, discarded: bool) -> None:
        """Takes note of a packet's frame; one that is discarded is never shown.

        Raises:
            PacketsDoNotTell: it changes what has been settled, or there are too many frames.
        """
        if len(self._frames) >= MAX_DECODED_FRAMES:
            raise PacketsDoNotTell
        if self.shown and self.shown[-1] < time <= self._latest[len(self.shown) - 1]:
            raise PacketsDoNotTell
        if not discarded:
            bisect.insort(self._frames, time)
            self._end = max(self._end, time + duration)

    def settle_next(self, horizon: float) -> int | None:
        """Settles the next wanted time, if all frames that could be shown then have come.

        Args:
            horizon: all frames that begin before it have come.

        Returns:
            When the frame shown begins (the first frame, if none begins early enough), or None.
        """
        if self.settled or not self._frames:
            return None
        latest = self._latest[len(self.shown)]
        if latest >= horizon:
            return None
        time = self._frames[max(0, bisect.bisect_right(self._frames, latest) - 1)]
        self.shown.append(time)
        return time

    def span(self, frame: float) -> tuple[int, float]:
        """When the first frame begins and the last one ends: after `frame`, if no packet says when."""
        last = self._frames[-1]
        return self._frames[0], self._end if self._end > last else last + frame


class _Decoder:
    """Decodes packets in order, and skips frames that are neither needed nor referred to."""

    def __init__(self, codec: VideoCodecContext) -> None:
        self._codec = codec
        self._begun = self._drained = False

    def decode(self, packet: Packet, *, needed: bool) -> list[VideoFrame]:
        """Frames that come out when a packet goes in; its own frame may come out later."""
        if self._drained:
            self._codec.flush_buffers()  # without this it takes no packet again
        # Not at the first one: dav1d reads this once, and would skip what is needed later.
        self._codec.skip_frame = 'DEFAULT' if needed or not self._begun else 'NONREF'
        self._begun, self._drained = True, False
        return self._receive(packet)

    def drain(self) -> list[VideoFrame]:
        """The frames of earlier packets that have not come out yet."""
        if not self._begun or self._drained:
            return []
        self._drained = True
        return self._receive(None)

    def _receive(self, packet: Packet | None) -> list[VideoFrame]:
        try:
            return self._codec.decode(packet)
        except av.FFmpegError as error:
            raise PacketsDoNotTell from error
