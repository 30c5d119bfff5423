"""Reads whole media files as consecutive windows of a clip's length, ahead, in worker processes."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import TypeVar, cast

import numpy as np
from jaxtyping import Int16, UInt8

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec, Refusal, clip_id
from diffmavil_jax.data.media.decoding import Frames, Waveform
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.take import FIXED

_SHORTEST = 0.1  # share of a window: less than this at the end of a file is dropped
_SHORTEST_S = 0.03  # of a file
# Share of a window that sound or pictures must last to be read for themselves, where the other has ended;
# and share of what the other has in it that they must have to be read with it.
_ALONE = 0.5
_SILENT = 'silent'  # a reason for refusal

CHOICES = ('auto', *MODALITIES, 'both')

S = TypeVar('S')
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a file with its sound and pictures.

    Attributes:
        id: `PATH@START`.
        start_s: where it begins in the file.
        end_s: where it ends in the file.
        waveform: None without sound.
        samples: how many samples of the waveform are from the file; the rest are zero.
        frames: None without pictures; of the middle, if they last for less than the window. The last picture
            of the file is repeated after its end.
    """

    id: str
    start_s: float
    end_s: float
    waveform: Int16[np.ndarray, ' samples'] | None = None
    samples: int = 0
    frames: UInt8[np.ndarray, 't h w 3'] | None = None


@dataclasses.dataclass(frozen=True)
class FileEnd:
    """Marks that all windows of one more file have come."""


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a window is. `seconds` of it are in the file."""

    path: str
    start_s: float
    seconds: float
    modalities: tuple[str, ...]


def chosen(choice: str, offered: Collection[str]) -> tuple[str, ...]:
    """The modalities that one of CHOICES stands for; `auto` stands for those that are offered."""
    return {'auto': tuple(offered), 'both': MODALITIES}.get(choice, (choice,))


class Reader:
    """Reads the windows of files."""

    def __init__(self, spec: ClipSpec, offered: Collection[str], modality: str, workers: int) -> None:
        """Nothing starts yet.

        Args:
            spec: of a window.
            offered: modalities that can be used.
            modality: `auto`: those of them that a file has, where a silent window counts as one without
                sound; or `audio`, `video` or `both`: a file without it is refused.
            workers: processes.
        """
        self._spec, self._offered, self._modality, self._workers = spec, offered, modality, workers

    def windows(self, paths: Iterable[str], ahead: int) -> Generator[Window | Refusal | FileEnd]:
        """The consecutive windows of each file, in order. Up to `ahead` windows are read ahead.

        A refusal is of a file, or of a window by its id. The last window of a file has the rest, if that
        is a tenth of a window or more. A FileEnd follows each file.
        """
        with (
            DecodePool(self._workers) as pool,
            concurrent.futures.ThreadPoolExecutor(self._workers) as threads,
        ):
            try:
                found = _in_order(threads, lambda path: self._places(pool, path), paths, ahead)
                yield from _in_order(
                    threads,
                    lambda item: self._read(pool, item),
                    (p for places in found for p in places),
                    ahead,
                )
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _places(self, pool: DecodePool, path: str) -> list[_Place | Refusal | FileEnd]:
        try:
            info = pool.probe(path)
            lengths = self._lengths(info)
            longest = max(lengths.values())
            if longest < _SHORTEST_S:
                raise media.MediaError(f'too short: {longest:.3f} s')
        except media.MediaError as error:
            return [Refusal(path, str(error)), FileEnd()]
        places: list[_Place | Refusal | FileEnd] = [
            _Place(path, *window) for window in cut_streams(lengths, self._spec.seconds)
        ]
        rest = [Refusal(clip_id(path, info.duration_s), info.left_out)] if info.left_out else []
        return [*places, *rest, FileEnd()]

    def _lengths(self, info: media.MediaInfo) -> dict[str, float]:
        """How long each modality lasts that is to be read of a file, in seconds.

        Of `auto` each lasts as long as it does; of others, as long as all that are wanted do.

        Raises:
            MediaError: it lacks what is wanted.
        """
        wanted = chosen(self._modality, self._offered)
        if self._modality != 'auto' or not info.lengths.keys() & set(wanted):
            return dict.fromkeys(wanted, info.lasts_s(wanted))
        return {m: info.lengths[m] for m in wanted if m in info.lengths}

    def _read(self, pool: DecodePool, item: _Place | Refusal | FileEnd) -> Window | Refusal | FileEnd:
        if not isinstance(item, _Place):
            return item
        try:
            return self._window(pool, item)
        except media.MediaError as error:
            if str(error) == _SILENT and self._modality == 'auto' and 'video' in item.modalities:
                return self._read(pool, dataclasses.replace(item, modalities=('video',)))
            return Refusal(clip_id(item.path, item.start_s), str(error))

    def _window(self, pool: DecodePool, place: _Place) -> Window:
        wanted = cast(tuple[media.Modality, ...], place.modalities)
        waveform, frames = pool.call(
            read_window, place.path, place.start_s, place.seconds, self._spec, wanted
        )
        samples = self._spec.num_samples
        if place.seconds < self._spec.seconds:
            samples = round(place.seconds * self._spec.sample_rate)
        return Window(
            id=clip_id(place.path, place.start_s),
            start_s=place.start_s,
            end_s=place.start_s + place.seconds,
            waveform=waveform,
            samples=samples if waveform is not None else 0,
            frames=frames,
        )


def cut_whole(length_s: float, seconds: float) -> list[tuple[float, float]]:
    """Where each window of a file begins, and how much of it is in the file, in seconds.

    One that lacks at most PADDED_FRACTION counts as whole, as in training. A file has at least one window.
    """
    whole = math.floor(length_s / seconds + media.PADDED_FRACTION + 1e-6)
    cut = [(i * seconds, seconds) for i in range(whole)]
    left = length_s - whole * seconds
    if left >= _SHORTEST * seconds or not whole:
        cut.append((whole * seconds, left))
    return cut


def cut_streams(
    lengths: Mapping[str, float], seconds: float
) -> Iterator[tuple[float, float, tuple[str, ...]]]:
    """Where each window of a file begins, how much of it is in the file, and the modalities that are there.

    Where one modality ends before the other, the windows after its end have the other alone.

    Args:
        lengths: how long each modality lasts, in seconds.
        seconds: length of a window.
    """
    for start_s, there_s in cut_whole(max(lengths.values()), seconds):
        left = {m: min(there_s, length - start_s) for m, length in lengths.items()}
        full = {m: _whole_if_nearly(part, seconds) for m, part in left.items()}
        longest = max(full.values())
        together = tuple(m for m, part in full.items() if part >= _ALONE * longest)
        alone = len(together) < len(lengths)
        if start_s and alone and longest < _ALONE * seconds:
            return
        yield start_s, min(full[m] for m in together), together


def _whole_if_nearly(part: float, seconds: float) -> float:
    return seconds if part >= (1 - media.PADDED_FRACTION) * seconds - 1e-6 else part


def read_window(
    source: media.Source,
    start_s: float,
    there_s: float,
    spec: ClipSpec,
    modalities: Collection[media.Modality],
) -> tuple[Waveform | None, Frames | None]:
    """Like `media.decode`, but only the first `there_s` seconds of the window are in the file.

    The rest of the sound is zero. Pictures are from the middle of what is in the file, where they do not
    cover all of it; where they would cover more, the last one is repeated.

    Raises:
        MediaError: that of `media.decode`.
    """
    if there_s >= spec.seconds:
        return media.decode(source, start_s, spec, modalities)
    waveform = frames = None
    if 'audio' in modalities:
        waveform, _ = media.decode(source, start_s, dataclasses.replace(spec, seconds=there_s), ['audio'])
        assert waveform is not None
        waveform = np.pad(waveform, (0, spec.num_samples - len(waveform)))
    if 'video' in modalities:
        step_s, span_s = spec.video_span / spec.frames, min(there_s, spec.video_span)
        count = max(1, math.floor(span_s / step_s + 1e-6))
        part = dataclasses.replace(spec, seconds=min(span_s, count * step_s), frames=count, video_seconds=0.0)
        _, frames = media.decode(source, start_s + FIXED.video * (there_s - span_s), part, ['video'])
        assert frames is not None
        frames = np.concatenate([frames, np.repeat(frames[-1:], spec.frames - count, axis=0)])
    return waveform, frames


def _in_order(
    threads: concurrent.futures.ThreadPoolExecutor,
    function: Callable[[S], T],
    items: Iterable[S],
    ahead: int,
) -> Iterator[T]:
    """The results of a function on items, in their order; up to `ahead` items are in work at once."""
    coming: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    for item in items:
        coming.append(threads.submit(function, item))
        if len(coming) >= ahead:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
