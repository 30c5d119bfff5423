"""Makes examples of rows: finds the clips in files, decodes them, and says why some are refused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
from etils import epath

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import clip_id, printable
from diffmavil_jax.data.listings.cutting import cut
from diffmavil_jax.data.listings.row import Row
from diffmavil_jax.data.prepare.encode import encode_clip
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
        for file, group in itertools.groupby(rows, operator.attrgetter('file')):
            seen = set()
            for outcome, example in self._of_file(file, list(group)):
                if example is not None:
                    if outcome.id in seen:
                        outcome, example = dataclasses.replace(outcome, reason=REPEATED), None
                    seen.add(outcome.id)
                yield outcome, example

    def _of_file(self, file: str | None, rows: list[Row]) -> Iterator[tuple[Outcome, Example | None]]:
        path = self._root / file if file else None
        # Not path.exists(), which is true of a pipe as well: opening one would wait forever.
        if path is None or not (path.exists() if self._is_remote else os.path.isfile(path)):
            yield from ((_refused(row, MISSING), None) for row in rows)
            return
        try:
            # A remote file is fetched once. A local one is not read whole: it may be larger than the memory.
            source = path.read_bytes() if self._is_remote else path
            digest = _hash(source)
            length = self._pool.probe(source).duration_s
        except (media.MediaError, OSError) as error:
            yield from ((_refused(row, _reason(error)), None) for row in rows)
            return
        for row in rows:
            try:
                places = list(self._places(row, length))
            except media.MediaError as error:
                yield _refused(row, str(error), digest), None
                continue
            for place in places:
                yield self._of_place(row, place, source, digest)

    def _places(self, row: Row, length: float) -> Iterator[_Place]:
        """The clips of a row in a file of this length."""
        if row.is_segment:
            yield _segment(row, length, self._settings.seconds)
            return
        found = cut(row, length, self._settings.seconds)
        if found.too_short:
            raise media.MediaError(found.too_short)
        note = START_IGNORED if found.start_ignored else ''
        for start_s in found.starts_s:
            yield _Place(start_s, start_s, found.seconds, note)

    def _of_place(
        self, row: Row, place: _Place, source: media.Source, digest: str
    ) -> tuple[Outcome, Example | None]:
        outcome = Outcome(
            id=clip_id(row.name, place.in_source),
            file=printable(row.file or ''),
            split=row.split,
            source_hash=digest,
            seconds=place.seconds,
            note=place.note,
        )
        try:
            spec = self._settings.spec(place.seconds)
            waveform, pictures = self._pool.call(self._encode, source, place.in_file, spec)
        except media.MediaError as error:
            return dataclasses.replace(outcome, reason=str(error)), None
        example = {
            'id': outcome.id,
            'start_s': place.in_source,
            'audio': waveform,
            'frames': np.array(pictures, object),
            'labels': np.array(row.labels, np.int64),
            'source_hash': digest,
        }
        return outcome, example


def _segment(row: Row, length: float, seconds: float | None) -> _Place:
    """Where a segment of a published video is in a file, which is the whole video or the segment alone.

    Raises:
        MediaError: the file ends before the segment.
    """
    start, duration = row.start_s or 0.0, row.duration_s or 0.0
    wanted = seconds if seconds is not None else duration
    reaches = start + (1 - media.PADDED_FRACTION) * wanted <= length
    if length <= _SEGMENT * duration or (not reaches and length <= _LOOSE_SEGMENT * duration):
        return _Place(start, 0.0, wanted if seconds is not None else min(duration, length))
    if not reaches:
        raise media.MediaError(f'too short: the file lasts {length:.2f} s, the segment begins at {start:g} s')
    return _Place(start, start, wanted if seconds is not None else min(duration, length - start))


def _refused(row: Row, reason: str, digest: str = '') -> Outcome:
    return Outcome(
        id=clip_id(row.name, row.start_s or 0.0),
        file=printable(row.file or ''),
        split=row.split,
        reason=reason,
        source_hash=digest,
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, media.MediaError) else f'unreadable: {error}'


def _hash(source: epath.Path | bytes) -> str:
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with open(source, 'rb') as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
