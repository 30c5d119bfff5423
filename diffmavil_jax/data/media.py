"""Reads one clip's sound and pictures out of a media file (PyAV, which bundles FFmpeg).

Times are seconds from the beginning of the presentation, whatever the container's own
clock starts at. What can't be used raises a MediaError that says why in a few words;
nothing is repaired in silence. Files are opened from a file object, with a whitelist of
containers, so that no playlist makes FFmpeg open another file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import NoReturn

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Int16, UInt8

from diffmavil_jax.data.clip import ClipSpec

# Demuxers that read one file and nothing else: no hls, dash, concat or image sequences.
CONTAINERS = (
    'aac', 'aiff', 'asf', 'avi', 'caf', 'dv', 'flac', 'flv', 'ivf', 'matroska', 'mov', 'mp3', 'mpeg',
    'mpegts', 'mxf', 'nut', 'ogg', 'wav', 'webm',
)  # fmt: skip
MAX_PIXELS = 8192 * 8192
MAX_ASPECT = 16
MAX_SECONDS = 24 * 3600.0
# Frames decoded for one clip, counted from the keyframe before it.
MAX_DECODED_FRAMES = 20_000
# Share of a clip that may be missing at its ends: sound is zero there, pictures stand still.
PADDED_FRACTION = 0.1
# A waveform that never leaves (-16, 16) of int16, -66 dB of full scale, is silent.
SILENCE_PEAK = 16

# Clips that begin later are reached by a seek, earlier ones by decoding from the beginning.
_SEEK_AFTER_S = 3.0
# Decoded before a clip after a seek: audio decoders need it, and streams are interleaved loosely.
_PREROLL_S = 0.5
# Matroska rounds times to a millisecond: a frame that near after the wanted time is shown at it.
_ROUNDING_S = 0.001
# Sound is contiguous by its sample count unless the times in the file leave these bounds. Vorbis in
# Matroska states times up to 21 ms late where its block size changes; none states them early.
_LATEST_S, _EARLIEST_S = 0.05, -0.002
# Share of a progressive stream's packets that may yield no frame (VP8 has invisible ones).
_LOST_FRACTION = 0.25
# The same pixels on every CPU, and colour that is averaged as widely as brightness.
_EXACT = (
    Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
_SHRINK, _ENLARGE = Interpolation.AREA | _EXACT, Interpolation.BICUBIC | _EXACT


class MediaError(ValueError):
    """A file or a clip that can't be used; the message is the reason in a few words."""


class _SeekMissed(Exception):
    """A seek landed after the wanted time, or failed."""


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What a file's headers tell.

    `duration_s` is how long both sound and picture last, from the beginning of the file;
    infinite claims and claims above MAX_SECONDS are errors.
    """

    duration_s: float
    has_audio: bool
    has_video: bool
    container: str


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Reads a file's headers, and its packets where they give no duration. Decodes no clip.

    Raises:
        MediaError: the file is unreadable, or beyond the limits above.
    """
    with _open(path) as container:
        streams = [s for s in (_best_video(container), _best_audio(container)) if s is not None]
        duration = _duration(container, streams) if streams else 0.0
        if not duration <= MAX_SECONDS:
            raise MediaError(f'unreadable: claims to last {duration:.0f} s')
        return MediaInfo(
            duration_s=max(0.0, duration),
            has_audio=any(s.type == 'audio' for s in streams),
            has_video=any(s.type == 'video' for s in streams),
            container=container.format.name,
        )


def decode(
    path: str | os.PathLike[str], start_s: float, spec: ClipSpec
) -> tuple[Int16[np.ndarray, ' samples'], UInt8[np.ndarray, 't h w 3']]:
    """Decodes the clip [start_s, start_s + spec.seconds).

    Frame i is the one shown at start_s + (i + 0.5) * seconds / frames, with its pixel aspect
    and rotation undone, its shorter side scaled to spec.frame_size, and its centre cut out.
    Sound is mixed to mono; sample 0 is heard at start_s, and places without sound are zero.
    A pure function of its arguments and the file, safe to call from many threads.

    Returns:
        waveform: spec.num_samples samples at spec.sample_rate.
        frames: spec.frames RGB pictures of spec.frame_size pixels square.

    Raises:
        MediaError: 'unreadable: ...', 'no audio', 'no video', 'too short: ...', 'silent',
            'wrong frame count: ...'.
    """
    waveform, frames = _decode(path, start_s, spec)
    if max(int(waveform.max()), -int(waveform.min())) < SILENCE_PEAK:
        raise MediaError('silent')
    return waveform, frames


def _decode(path: str | os.PathLike[str], start_s: float, spec: ClipSpec) -> tuple[np.ndarray, np.ndarray]:
    if start_s > _SEEK_AFTER_S:
        with contextlib.suppress(_SeekMissed):
            return _decode_from(path, start_s, spec, seek=True)
    return _decode_from(path, start_s, spec, seek=False)


def _decode_from(
    path: str | os.PathLike[str], start_s: float, spec: ClipSpec, *, seek: bool
) -> tuple[np.ndarray, np.ndarray]:
    with _open(path) as container:
        video, audio = _best_video(container), _best_audio(container)
        if video is None:
            raise MediaError('no video')
        if audio is None:
            raise MediaError('no audio')
        start = _origin(container) + start_s
        pictures, sound = _Pictures(video, start, spec), _Sound(start, spec)
        if seek:
            _seek(container, video, start - _PREROLL_S)
        for packet in container.demux(video, audio):
            sink = pictures if packet.stream_index == video.index else sound
            if not sink.done:
                sink.add(packet, after_seek=seek)
            if pictures.done and sound.done:
                break
        if seek and (pictures.begins_late or sound.begins_late):
            raise _SeekMissed
        return sound.finish(), pictures.finish()


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """Opens a container and turns whatever goes wrong while it is open into a MediaError."""
    try:
        if not pathlib.Path(path).is_file():  # opening a pipe would wait for ever
            raise MediaError('unreadable: no such file')
        with open(path, 'rb') as file:
            if not os.fstat(file.fileno()).st_size:
                raise MediaError('unreadable: empty file')
            options = {'format_whitelist': ','.join(CONTAINERS), 'max_pixels': str(MAX_PIXELS)}
            # Old files have titles in Latin-1, which are no reason to refuse them: metadata_errors.
            with av.open(
                file, 'r', options=options, io_open=_refuse_other_files, metadata_errors='replace'
            ) as container:
                yield container
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise MediaError(f'unreadable: {getattr(error, "strerror", None) or error}') from error


def _refuse_other_files(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise MediaError('unreadable: refers to another file')


def _best_video(container: InputContainer) -> VideoStream | None:
    """FFmpeg's choice among the moving pictures; cover art is none."""
    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if s.codec_context and not s.disposition & still]
    if not moving:
        return None
    best = container.streams.best('video')
    stream = next((s for s in moving if best and s.index == best.index), moving[0])
    if not 0 < stream.width * stream.height <= MAX_PIXELS:
        raise MediaError(f'unreadable: pictures of {stream.width} x {stream.height} pixels')
    return stream


def _best_audio(container: InputContainer) -> AudioStream | None:
    usable = [s for s in container.streams.audio if s.codec_context]
    best = container.streams.best('audio', related=_best_video(container))
    return next((s for s in usable if best and s.index == best.index), usable[0] if usable else None)


def _origin(container: InputContainer) -> float:
    """The container's time at which the presentation begins; before 0 there is only decoder delay."""
    return max(0.0, (container.start_time or 0) / av.time_base)


def _duration(container: InputContainer, streams: list[VideoStream | AudioStream]) -> float:
    """Until when all of the streams last; as far as the headers know it, or else the packets."""
    ends = [end for end in map(_end, streams) if end is not None]
    if ends:
        return min(ends) - _origin(container)
    if container.duration is not None:
        return container.duration / av.time_base
    last = dict.fromkeys((s.index for s in streams), 0.0)
    for packet in container.demux(*streams):
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            last[packet.stream_index] = max(last[packet.stream_index], end)
    return min(last.values()) - _origin(container)


def _end(stream: Stream) -> float | None:
    """The end of a stream on the container's clock, where its header knows it."""
    if stream.duration is not None and stream.time_base is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get('DURATION', '').split(':')  # Matroska's tag
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _seek(container: InputContainer, stream: VideoStream, time: float) -> None:
    if stream.time_base is None:
        raise _SeekMissed
    try:
        container.seek(math.floor(max(0.0, time) / stream.time_base), stream=stream)
    except av.FFmpegError as error:
        raise _SeekMissed from error


class _Pictures:
    """Picks the frames shown at evenly spaced times out of a stream that is decoded in order."""

    def __init__(self, stream: VideoStream, start: float, spec: ClipSpec) -> None:
        stream.codec_context.thread_count = 1  # clips are decoded in parallel, not frames
        stream.codec_context.options = {'max_pixels': str(MAX_PIXELS)}
        self._start, self._seconds, self._size = start, spec.seconds, spec.frame_size
        self._wanted = [start + (i + 0.5) * spec.seconds / spec.frames for i in range(spec.frames)]
        self._aspect = float(stream.sample_aspect_ratio or 1)
        self._frame_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self._reformatter = VideoReformatter()
        self._picked: list[np.ndarray] = []
        self._shown: VideoFrame | None = None
        self._picture: np.ndarray | None = None  # of the frame shown
        self._first = self._time = math.nan  # of the first frame, and of the frame shown
        self._decoded = 0
        self._packets_inside = self._frames_inside = 0

    @property
    def done(self) -> bool:
        return len(self._picked) == len(self._wanted)

    @property
    def begins_late(self) -> bool:
        return not self._first <= self._wanted[0] + _ROUNDING_S

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        if packet.size and not packet.is_discard and packet.pts is not None:
            self._packets_inside += self._is_inside(float(packet.pts * packet.time_base))
        for frame in _frames(packet, forgive=after_seek and self._shown is None):
            assert isinstance(frame, VideoFrame)
            self._add_frame(frame)

    def finish(self) -> np.ndarray:
        if self._shown is None:
            raise MediaError('too short: no picture there')
        begin, end = max(self._first, self._start), self._start + self._seconds
        if not self.done:
            end = min(end, self._time + self._shown_s())
        # Half a frame: what the rounding of times and an odd frame count may take.
        if end - begin + self._frame_s / 2 < (1 - PADDED_FRACTION) * self._seconds:
            raise MediaError(f'too short: pictures for {max(0.0, end - begin):.2f} of {self._seconds:g} s')
        self._check_count()
        self._pick(math.inf)
        return np.stack(self._picked)

    def _add_frame(self, frame: VideoFrame) -> None:
        time = frame.time if frame.time is not None else self._time + self._frame_s
        if math.isnan(time):
            time = 0.0
        self._decoded += 1
        if self._decoded > MAX_DECODED_FRAMES:
            raise MediaError(f'unreadable: no keyframe in {MAX_DECODED_FRAMES} frames')
        self._frames_inside += self._is_inside(time)
        if self._shown is None:
            self._first, self._shown = time, frame
        self._pick(time)
        self._shown, self._picture, self._time = frame, None, time

    def _shown_s(self) -> float:
        """For how long the last frame is shown."""
        frame = self._shown
        if frame is not None and frame.duration and frame.time_base is not None:
            return float(frame.duration * frame.time_base)
        return self._frame_s

    def _is_inside(self, time: float) -> bool:
        return self._start <= time <= self._wanted[-1]

    def _pick(self, until: float) -> None:
        """Takes the frame shown for all wanted times before the next frame's."""
        while not self.done and self._wanted[len(self._picked)] + _ROUNDING_S < until:
            if self._picture is None:
                self._picture = self._convert()
            self._picked.append(self._picture)

    def _convert(self) -> UInt8[np.ndarray, 'h w 3']:
        frame, size = self._shown, self._size
        assert frame is not None
        if frame.is_corrupt:
            raise MediaError('unreadable: corrupt frame')
        width = frame.width * self._aspect
        if not 1 / MAX_ASPECT <= width / frame.height <= MAX_ASPECT:
            raise MediaError(f'unreadable: pictures of {width:.0f} x {frame.height} pixels')
        scale = size / min(width, frame.height)
        method = _SHRINK if scale < 1 else _ENLARGE
        wide, high = max(size, round(width * scale)), max(size, round(frame.height * scale))
        image = self._reformatter.reformat(
            frame, wide, high, 'rgb24', interpolation=method, threads=1
        ).to_ndarray()
        top, left = (high - size) // 2, (wide - size) // 2
        square = image[top : top + size, left : left + size]
        return np.rot90(square, round(frame.rotation / 90)).astype(np.uint8)

    def _check_count(self) -> None:
        interlaced = self._shown is not None and self._shown.interlaced_frame  # may take two packets a frame
        allowed = 0.5 + _LOST_FRACTION / 2 if interlaced else _LOST_FRACTION
        if self._packets_inside - self._frames_inside > max(1.0, allowed * self._packets_inside):
            raise MediaError(f'wrong frame count: {self._frames_inside} of {self._packets_inside}')


class _Sound:
    """Lays resampled sound onto a clip's time axis."""

    def __init__(self, start: float, spec: ClipSpec) -> None:
        self._start, self._rate = start, spec.sample_rate
        self._waveform = np.zeros(spec.num_samples, np.int16)
        self._resampler = AudioResampler('s16', 'mono', spec.sample_rate)
        self._first: int | None = None  # position of the first sample decoded
        self._next = 0  # position at which a contiguous chunk goes

    @property
    def done(self) -> bool:
        return self._next >= len(self._waveform)

    @property
    def begins_late(self) -> bool:
        return self._first is None or self._first > _ROUNDING_S * self._rate

    def add(self, packet: Packet, *, after_seek: bool) -> None:
        for frame in _frames(packet, forgive=after_seek and self._first is None):
            assert isinstance(frame, AudioFrame)
            for resampled in self._resampler.resample(frame):
                self._place(resampled)

    def finish(self) -> Int16[np.ndarray, ' samples']:
        for resampled in self._resampler.resample(None):
            if resampled is not None:  # what a resampler without work to do returns
                self._place(resampled)
        return self._waveform

    def _place(self, frame: AudioFrame) -> None:
        chunk = frame.to_ndarray().reshape(-1)
        position = self._next if frame.time is None else round((frame.time - self._start) * self._rate)
        if self._first is None:
            self._first = self._next = position
        if not _EARLIEST_S * self._rate <= position - self._next <= _LATEST_S * self._rate:
            self._next = position
        low, high = max(0, self._next), min(len(self._waveform), self._next + len(chunk))
        if low < high:
            self._waveform[low:high] = chunk[low - self._next : high - self._next]
        self._next += len(chunk)


def _frames(packet: Packet, *, forgive: bool) -> list[VideoFrame | AudioFrame]:
    """Decodes a packet; what precedes the first decodable packet after a seek is forgiven."""
    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        if forgive:
            return []
        raise
