"""Makes examples of rows: finds the clips in files, decodes them, and says why some are refused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import operator
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
from etils import epath

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import clip_id, printable
from diffmavil_jax.data.listings.cutting import cut
from diffmavil_jax.data.listings.row import MediaFile, Row
from diffmavil_jax.data.prepare.encode import Pair, encode_clip
from diffmavil_jax.data.prepare.members import Members, TakeOut
from diffmavil_jax.data.prepare.work import Job, Outcome
from diffmavil_jax.data.sandbox import DecodePool

MISSING, REPEATED = 'missing', 'repeated'  # reasons
START_IGNORED = 'start_s is beyond the end of the file, so it was taken for a position elsewhere and ignored'

# A file named after a video is taken for one segment of it if it is at most this many times as long as the
# segment, or at most _LOOSE_SEGMENT times if the segment would begin or end beyond the end of the file.
_SEGMENT = 1.1
_LOOSE_SEGMENT = 2.0
_CHUNK_BYTES = 1 << 20

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a clip begins in the listed source and in the file, and how long it is, in seconds."""

    in_source: float
    in_file: float
    seconds: float
    note: str = ''


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A file, or why it can't be used."""

    name: str | None
    data: media.Source | Pair
    digest: str
    info: media.MediaInfo | None
    reason: str = ''

    def usable(self) -> media.MediaInfo:
        """What its headers say.

        Raises:
            MediaError: it can't be used.
        """
        if self.info is None:
            raise media.MediaError(self.reason)
        return self.info


class Clips:
    """Examples of the rows of one input."""

    def __init__(self, job: Job, pool: DecodePool) -> None:
        self._root, self._settings, self._pool = epath.Path(job.input), job.settings, pool
        self._is_remote = '://' in job.input
        self._encode = functools.partial(
            encode_clip,
            modalities=cast(tuple[media.Modality, ...], job.settings.modalities),
            jpeg_quality=job.settings.jpeg_quality,
            keep_silent='silent' in job.settings.keep,
            keep_still='still' in job.settings.keep,
        )

    def of_rows(self, rows: Iterable[Row]) -> Iterator[tuple[Outcome, Example | None]]:
        """Every clip of the rows with its example, or with None if it is refused.

        Rows of the same file should follow each other: the file is then read and hashed once.
        """
        with Members(str(self._root), self._pool) as members:
            for _, group in itertools.groupby(rows, operator.attrgetter('file')):
                seen = set()
                with members.taking_out() as take_out:
                    for outcome, example in self._of_file(list(group), take_out):
                        if example is not None:
                            if outcome.id in seen:
                                outcome, example = dataclasses.replace(outcome, reason=REPEATED), None
                            seen.add(outcome.id)
                        yield outcome, example

    def _of_file(self, rows: list[Row], take_out: TakeOut) -> Iterator[tuple[Outcome, Example | None]]:
        opened = functools.cache(functools.partial(self._open, take_out))
        for row in rows:
            if row.refused:
                yield _refused(row, row.refused), None
                continue
            found, places = self._find(row, opened)
            if isinstance(places, str):
                yield _refused(row, places, found.digest), None
                continue
            for place in places:
                yield self._of_place(dataclasses.replace(row, file=found.name), place, found)
        if rows[0].refused:
            return
        first = opened(rows[0].files[0])
        if first.info is not None and first.info.left_out and not rows[0].is_segment:
            rest = dataclasses.replace(rows[0], name=rows[0].file or '', start_s=first.info.duration_s)
            yield _refused(rest, first.info.left_out, first.digest), None

    def _find(self, row: Row, opened: Callable[[MediaFile], _Opened]) -> tuple[_Opened, list[_Place] | str]:
        """The first of a row's files that has its clips, and their places; or why its main file has none.

        In a shard, one of the files may have the sound and another one the pictures.
        """
        reason = ''
        for found in self._candidates(row, opened):
            try:
                return found, list(self._places(row, found.usable()))
            except media.MediaError as error:
                reason = reason or str(error)
        return opened(row.files[0]), reason

    def _candidates(self, row: Row, opened: Callable[[MediaFile], _Opened]) -> Iterator[_Opened]:
        yield from map(opened, row.files)
        if row.inside and set(self._settings.modalities) == set(media.BOTH):
            there = [(found, found.info) for found in map(opened, row.files) if found.info is not None]
            sound = next(((found, info) for found, info in there if info.has_audio), None)
            pictures = next(((found, info) for found, info in there if info.has_video), None)
            if sound and pictures and sound[0] is not pictures[0]:
                yield _paired(*sound, *pictures)

    def _open(self, take_out: TakeOut, file: MediaFile) -> _Opened:
        digest = ''
        try:
            data = self._source(file.name) if file.inside is None else take_out(file.inside)
            digest = _hash(data)
            return _Opened(file.name, data, digest, self._pool.probe(data))
        except (media.MediaError, OSError) as error:
            return _Opened(file.name, b'', digest, None, _reason(error))

    def _source(self, file: str | None) -> media.Source:
        """The path of a local file, which may be larger than the memory; the bytes of a remote one.

        Raises:
            MediaError: there is no such file.
            OSError: it can't be read.
        """
        path = None if file is None else self._root / file
        if path is None or self._is_remote and not path.exists():
            raise media.MediaError(MISSING)
        if self._is_remote:
            return path.read_bytes()
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)  # opening a pipe would wait forever
        except (FileNotFoundError, NotADirectoryError):
            is_file = False
        if not is_file:
            raise media.MediaError(MISSING)
        return path

    def _places(self, row: Row, info: media.MediaInfo) -> Iterator[_Place]:
        """The clips of a row in a file.

        Raises:
            MediaError: there are none.
        """
        length = info.lasts_s(self._settings.modalities)
        if row.is_segment:
            place = _segment(row, length, self._settings.seconds)
            note = f'{printable(row.file or "")}: {info.left_out}' if info.left_out else ''
            yield dataclasses.replace(place, note=note)
            return
        found = cut(row, length, self._settings.seconds)
        if found.too_short:
            raise media.MediaError(found.too_short)
        note = START_IGNORED if found.start_ignored else ''
        for start_s in found.starts_s:
            yield _Place(start_s, start_s, found.seconds, note)

    def _of_place(self, row: Row, place: _Place, opened: _Opened) -> tuple[Outcome, Example | None]:
        outcome = Outcome(
            id=clip_id(row.name, place.in_source),
            file=printable(row.file or ''),
            split=row.split,
            source_hash=opened.digest,
            seconds=place.seconds,
            note=place.note,
            labels=row.labels,
        )
        try:
            spec = self._settings.spec(place.seconds)
            waveform, pictures = self._pool.call(self._encode, opened.data, place.in_file, spec)
        except media.MediaError as error:
            return dataclasses.replace(outcome, reason=str(error)), None
        example = {
            'id': outcome.id,
            'start_s': place.in_source,
            'audio': waveform,
            'frames': np.array(pictures, object),
            'labels': np.array(row.labels, np.int64),
            'source_hash': opened.digest,
        }
        return outcome, example


def _paired(
    sound: _Opened, of_sound: media.MediaInfo, pictures: _Opened, of_pictures: media.MediaInfo
) -> _Opened:
    """Two files as one recording. Its hash is that of the two hashes, the sound's first."""
    assert not isinstance(sound.data, Pair) and not isinstance(pictures.data, Pair)
    return _Opened(
        f'{sound.name} + {pictures.name}',
        Pair(sound.data, pictures.data),
        hashlib.sha256((sound.digest + pictures.digest).encode()).hexdigest(),
        dataclasses.replace(
            of_pictures,
            audio_s=of_sound.audio_s,
            left_out=of_sound.left_out or of_pictures.left_out,
        ),
    )


def _segment(row: Row, length: float, seconds: float | None) -> _Place:
    """Where a segment of a published video is in a file, which is the whole video or the segment alone.

    Raises:
        MediaError: the segment is shorter than the clip, or the file ends before nine tenths of it.
    """
    start, duration = row.start_s or 0.0, row.duration_s or 0.0
    wanted = seconds if seconds is not None else duration
    needed = (1 - media.PADDED_FRACTION) * wanted - 1e-6
    if duration < needed:
        raise media.MediaError(f'too short: a segment of {duration:g} s for a clip of {wanted:g} s')
    reaches = start + needed <= length
    is_cut = (
        row.is_cut or length <= _SEGMENT * duration or (not reaches and length <= _LOOSE_SEGMENT * duration)
    )
    begin = 0.0 if is_cut else start
    if begin + needed > length:
        where = '' if is_cut else f', the segment begins at {start:g} s'
        raise media.MediaError(f'too short: the file lasts {length:.2f} s{where}, for a clip of {wanted:g} s')
    return _Place(start, begin, wanted if seconds is not None else min(duration, length - begin))


def _refused(row: Row, reason: str, digest: str = '') -> Outcome:
    return Outcome(
        id=clip_id(row.name, row.start_s or 0.0),
        file=printable(row.file or ''),
        split=row.split,
        reason=reason,
        source_hash=digest,
    )


def _reason(error: media.MediaError | OSError) -> str:
    return str(error) if isinstance(error, media.MediaError) else f'unreadable: {error.strerror or error}'


def _hash(source: media.Source) -> str:
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with open(source, 'rb') as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
