"""Decodes one clip of a media file: its sound, its pictures, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from typing import Literal, cast, overload

import numpy as np
from av.packet import Packet
from jaxtyping import Int16, UInt8

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.media.container import (
    MediaError,
    Source,
    best_audio,
    best_video,
    open_container,
    origin,
    seek,
)
from diffmavil_jax.data.media.packets import PREROLL_S
from diffmavil_jax.data.media.pictures import AllPictures, PacketsDoNotTell, PictureReader
from diffmavil_jax.data.media.sound import SILENCE_PEAK, Sound
from diffmavil_jax.data.media.wanted_pictures import WantedPictures
from diffmavil_jax.data.take import FIXED, Take

Modality = Literal['audio', 'video']
BOTH: tuple[Modality, ...] = ('audio', 'video')

Waveform = Int16[np.ndarray, ' samples']
Frames = UInt8[np.ndarray, 't h w 3']

# Clips that begin later than this are reached by a seek, earlier ones by reading from the beginning.
_SEEK_AFTER_S = 3.0
# A stream whose decoding times go back by this much begins again.
_BACK_S = 1.0


class _SeekMissed(Exception):
    """A seek failed, or ended after the wanted time."""


@overload
def decode(source: Source, start_s: float, spec: ClipSpec) -> tuple[Waveform, Frames]: ...


@overload
def decode(
    source: Source, start_s: float, spec: ClipSpec, modalities: Collection[Modality], take: Take = ...
) -> tuple[Waveform | None, Frames | None]: ...


def decode(
    source: Source,
    start_s: float,
    spec: ClipSpec,
    modalities: Collection[Modality] = BOTH,
    take: Take = FIXED,
) -> tuple[Waveform | None, Frames | None]:
    """Decodes the clip [start_s, start_s + spec.seconds).

    Frame i is the one shown at start_s + spec.video_start(take) + (i + 0.5) * spec.video_span / frames. Its
    pixel aspect and rotation are undone. Its shorter side is scaled to spec.frame_size and its centre is cut
    out, or the rectangle of the take is scaled to that size. Sound is mixed to mono;
    sample 0 is heard at start_s, and places without sound are zero. The result depends on the arguments and
    the file alone, and many threads may call this at once.

    Args:
        source: a path, or the bytes of a file.
        start_s: seconds from the beginning of the presentation.
        spec: how long the clip is, and what is made of it.
        modalities: what is wanted. The file need not have the other, which is not looked at.
        take: which stretch of the clip has the pictures, and which part of them is seen; not its start.

    Returns:
        waveform: spec.num_samples samples at spec.sample_rate; None if audio is not wanted.
        frames: spec.frames RGB pictures of spec.frame_size pixels square; None if video is not.

    Raises:
        MediaError: 'unreadable: ...', 'no audio', 'no video', 'too short: ...', 'silent',
            'wrong frame count: ...'.
    """
    if not modalities or not set(modalities) <= set(BOTH):
        raise ValueError(f'modalities = {modalities!r}: must be one or both of {BOTH}.')
    waveform, frames = _decode(source, start_s, spec, modalities, take)
    if waveform is not None and max(int(waveform.max()), -int(waveform.min())) < SILENCE_PEAK:
        raise MediaError('silent')
    return waveform, frames


def _decode(
    source: Source, start_s: float, spec: ClipSpec, modalities: Collection[Modality], take: Take
) -> tuple[Waveform | None, Frames | None]:
    """Tries the ways to read the clip, from the fastest to the one that always works."""
    by_seek = start_s > _SEEK_AFTER_S
    for reader in (WantedPictures, AllPictures):
        try:
            return _decode_by(source, start_s, spec, modalities, take, reader, by_seek=by_seek)
        except PacketsDoNotTell:
            continue
        except _SeekMissed:
            break
    return _decode_by(source, start_s, spec, modalities, take, AllPictures, by_seek=False)


def _decode_by(
    source: Source,
    start_s: float,
    spec: ClipSpec,
    modalities: Collection[Modality],
    take: Take,
    reader: type[WantedPictures] | type[AllPictures],
    *,
    by_seek: bool,
) -> tuple[Waveform | None, Frames | None]:
    with open_container(source) as container:
        video = best_video(container) if 'video' in modalities else None
        audio = best_audio(container) if 'audio' in modalities else None
        if video is None and 'video' in modalities:
            raise MediaError('no video')
        if audio is None and 'audio' in modalities:
            raise MediaError('no audio')
        start = origin(container) + start_s
        sinks: dict[int, PictureReader | Sound] = {}
        if video is not None:
            pictures = sinks[video.index] = reader(video, start, spec, take)
        if audio is not None:
            sound = sinks[audio.index] = Sound(start, spec)
        streams = [stream for stream in (video, audio) if stream is not None]
        latest: dict[int, float] = {}
        if by_seek and not seek(container, streams[0], start - PREROLL_S):
            raise _SeekMissed
        # PyAV's generators leak a little when they are left before their end without being closed.
        with contextlib.closing(cast(Generator[Packet], container.demux(*streams))) as packets:
            for packet in packets:
                sink = sinks[packet.stream.index]  # at the end, stream_index is 0 whatever the stream
                _check_order(packet, latest)
                if not sink.done:
                    sink.add(packet, after_seek=by_seek)
                if all(sink.done for sink in sinks.values()):
                    break
        if by_seek and any(sink.begins_late for sink in sinks.values()):
            raise _SeekMissed
        waveform = sound.finish() if audio is not None else None
        frames = pictures.finish() if video is not None else None
        if audio is not None:
            sound.check_length(alone=video is None)
        return waveform, frames


def _check_order(packet: Packet, latest: dict[int, float]) -> None:
    """Checks that a stream does not begin again; `latest` has the last decoding time by stream.

    Raises:
        MediaError: it does.
    """
    if packet.dts is None or packet.time_base is None:
        return
    time, stream = float(packet.dts * packet.time_base), packet.stream.index
    if time < latest.get(stream, time) - _BACK_S:
        raise MediaError(f'unreadable: after {latest[stream]:.2f} s the times go back to {time:.2f} s')
    latest[stream] = time
