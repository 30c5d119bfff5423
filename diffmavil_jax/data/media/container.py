"""Opens untrusted files within limits, chooses among their streams, and finds out how long they last.

Files are opened from a file object or from bytes, with a whitelist of containers, so that no
playlist makes FFmpeg open another file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from diffmavil_jax.data.media.glued import FirstPart, end_of_first

# Demuxers that read one file and nothing else: no hls, dash, concat or image sequences.
CONTAINERS = (
    'aac', 'aiff', 'asf', 'avi', 'caf', 'dv', 'flac', 'flv', 'ivf', 'matroska', 'mov', 'mp3', 'mpeg',
    'mpegts', 'mxf', 'nut', 'ogg', 'wav', 'webm',
)  # fmt: skip
# Their headers may state no duration, and FFmpeg then guesses it from the first bit rate that it sees.
_WITHOUT_DURATION = ('aac', 'mp3')
MAX_PIXELS = 8192 * 8192
MAX_SECONDS = 24 * 3600.0
# Larger than PyAV's default, because each read is a call into Python.
_BUFFER_BYTES = 1 << 17
# Old files have titles in Latin-1, which are no reason to refuse them. PyAV 19 takes them by itself.
ANY_TITLE: dict[str, Any] = {} if int(av.__version__.split('.')[0]) >= 19 else {'metadata_errors': 'replace'}

# A path, or the file's bytes.
Source = str | os.PathLike[str] | bytes


# What follows the first of several recordings in a file.
GLUED = 'another recording begins: the file was glued from several, and only the first is used'


class MediaError(ValueError):
    """A file or a clip that can't be used; the message is the reason in a few words."""


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What the headers of a file say.

    Attributes:
        audio_s: for how many seconds from the beginning its sound lasts; None: no sound can be decoded.
        video_s: the same of its moving pictures.
        container: FFmpeg's name of the format.
        left_out: what of the file is not read, and why; empty if all of it is.
    """

    audio_s: float | None
    video_s: float | None
    container: str
    left_out: str = ''

    @property
    def has_audio(self) -> bool:
        """Whether it has sound that can be decoded."""
        return self.audio_s is not None

    @property
    def has_video(self) -> bool:
        """Whether it has moving pictures that can be decoded."""
        return self.video_s is not None

    @property
    def lengths(self) -> dict[str, float]:
        """How long each modality lasts that it has, in seconds."""
        lengths = {'audio': self.audio_s, 'video': self.video_s}
        return {modality: length for modality, length in lengths.items() if length is not None}

    @property
    def duration_s(self) -> float:
        """For how many seconds from the beginning all of its sound and pictures last."""
        return min(self.lengths.values(), default=0.0)

    def lasts_s(self, modalities: Collection[str]) -> float:
        """For how many seconds from the beginning all of some modalities last.

        Raises:
            MediaError: it lacks one of them.
        """
        lacking = [f'no {modality}' for modality in modalities if modality not in self.lengths]
        if lacking:
            raise MediaError(', '.join(lacking))
        return min(self.lengths[modality] for modality in modalities)


def probe(source: Source) -> MediaInfo:
    """Reads a file's headers, and its packets where they give no duration. Decodes no clip.

    Raises:
        MediaError: the file is unreadable, or claims to last longer than MAX_SECONDS.
    """
    with open_container(source) as container:
        streams = [s for s in (best_audio(container), best_video(container)) if s is not None]
        found = _lengths(container, streams) if streams else []
        if claimed := [length for length in found if not length <= MAX_SECONDS]:
            raise MediaError(f'unreadable: claims to last {claimed[0]:.0f} s')
        lengths = {s.type: max(0.0, length) for s, length in zip(streams, found, strict=True)}
        return MediaInfo(
            lengths.get('audio'),
            lengths.get('video'),
            container.format.name,
            '' if _end_of_first(source) is None else GLUED,
        )


@contextlib.contextmanager
def open_container(source: Source) -> Iterator[InputContainer]:
    """Opens a container and turns whatever goes wrong while it is open into a MediaError."""
    try:
        with _open_file(source) as file:
            options = {'format_whitelist': ','.join(CONTAINERS), 'max_pixels': str(MAX_PIXELS)}
            with av.open(
                file,
                'r',
                options=options,
                io_open=_refuse_other_files,
                buffer_size=_BUFFER_BYTES,
                **ANY_TITLE,
            ) as container:
                yield container
    except MediaError:
        raise
    # PyAV raises a LookupError if a damaged file suddenly names another stream.
    except (
        av.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError,
    ) as error:  # fmt: skip
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise MediaError(f'unreadable: {reason}') from error


def best_video(container: InputContainer) -> VideoStream | None:
    """The stream of moving pictures that FFmpeg would choose. Cover art is not one."""
    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if s.codec_context and not s.disposition & still]
    if not moving:
        return None
    best = container.streams.best('video')
    stream = next((s for s in moving if best and s.index == best.index), moving[0])
    if not 0 < stream.width * stream.height <= MAX_PIXELS:
        raise MediaError(f'unreadable: pictures of {stream.width} x {stream.height} pixels')
    return stream


def best_audio(container: InputContainer) -> AudioStream | None:
    """The stream of sound that FFmpeg would choose to go with the chosen pictures."""
    usable = [s for s in container.streams.audio if s.codec_context]
    best = container.streams.best('audio', related=best_video(container))
    return next((s for s in usable if best and s.index == best.index), usable[0] if usable else None)


def origin(container: InputContainer) -> float:
    """When the presentation begins, on the container's clock. Before 0 there is only decoder delay."""
    return max(0.0, (container.start_time or 0) / av.time_base)


def seek(container: InputContainer, stream: Stream, time: float) -> bool:
    """Goes to the last keyframe at or before a time on the container's clock. False if that can't be done."""
    if stream.time_base is None:
        return False
    try:
        container.seek(math.floor(max(0.0, time) / stream.time_base), stream=stream)
    except av.FFmpegError:
        return False
    return True


def _open_file(source: Source) -> io.RawIOBase | io.BytesIO:
    if isinstance(source, bytes):
        if not source:
            raise MediaError('unreadable: empty file')
        end = _end_of_first(source)
        return io.BytesIO(source if end is None else source[:end])
    if not pathlib.Path(source).is_file():  # opening a pipe would wait forever
        raise MediaError('unreadable: no such file')
    if not os.path.getsize(source):
        raise MediaError('unreadable: empty file')
    end = _end_of_first(source)
    file = io.FileIO(os.fspath(source))  # FFmpeg has a buffer of its own
    return file if end is None else FirstPart(file, end)


def _end_of_first(source: Source) -> int | None:
    """Where the first of several recordings ends, in bytes; None if there is one.

    Raises:
        MediaError: the file can't be read.
    """
    try:
        return end_of_first(source)
    except (OSError, ValueError) as error:
        raise MediaError(f'unreadable: {getattr(error, "strerror", None) or error}') from error


def _refuse_other_files(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise MediaError('unreadable: refers to another file')


def _lengths(container: InputContainer, streams: list[AudioStream | VideoStream]) -> list[float]:
    """How long each of the streams lasts: what the headers say, or else what the packets say."""
    if container.format.name not in _WITHOUT_DURATION:
        whole = None if container.duration is None else container.duration / av.time_base
        ends = [_end(stream) for stream in streams]
        stated = [whole if end is None else end - origin(container) for end in ends]
        if None not in stated:
            return [length for length in stated if length is not None]
    last = dict.fromkeys((s.index for s in streams), 0.0)
    for packet in container.demux(*streams):
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            last[packet.stream.index] = max(last[packet.stream.index], end)
    return [last[stream.index] - origin(container) for stream in streams]


def _end(stream: Stream) -> float | None:
    """The end of a stream on the container's clock, if its header states it."""
    if stream.duration is not None and stream.time_base is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get('DURATION', '').split(':')  # Matroska's tag
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
