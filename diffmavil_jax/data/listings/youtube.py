"""Lists segments of YouTube videos: AudioSet and VGGSound, as they are published.

The files are found by their names, anywhere below the input and with any extension of a media file; if there
are no media there, they are looked for in the tars there. These are the names for the segment from 30 s to
40 s of the video VIDEO_ID_0:

    VIDEO_ID_0          or YVIDEO_ID_0       the video, or the segment
    VIDEO_ID_0_30       or ..._000030        the segment, by its start in seconds (VGGSound)
    VIDEO_ID_0_30.000   or ..._30000         the segment, by its start in seconds or milliseconds
    VIDEO_ID_0_30_40    or ..._30.000_40.000 or ..._30000_40000    the segment, by its start and end

Each may have a Y before it. A file that is named by the id alone may be the segment or the whole video. It is
taken for the segment if it is at most a tenth longer than the segment, or if it is at most twice as long and
ends before the segment's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import label_values, local, paths, reading
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row
from diffmavil_jax.data.listings.tar_media import media_in
from diffmavil_jax.data.shards import tars
from diffmavil_jax.data.shards.inside import Inside

AUDIOSET_TABLES = ('balanced_train_segments.csv', 'unbalanced_train_segments.csv', 'eval_segments.csv')
AUDIOSET_CLASSES = 'class_labels_indices.csv'
VGGSOUND_TABLE = 'vggsound.csv'
VGGSOUND_SECONDS = 10.0

_AUDIOSET_COLUMNS = ('YTID', 'start_seconds', 'end_seconds', 'positive_labels')
_VGGSOUND_COLUMNS = ('YouTube id', 'start seconds', 'label', 'split')
_VIDEO_ID = re.compile(r'[\w-]{11}', re.ASCII)


def read_audioset(request: Request) -> Listing:
    """AudioSet's segment CSVs and its class list `class_labels_indices.csv`.

    The name of a CSV without `_segments` is the split: balanced_train, unbalanced_train, eval.

    Raises:
        DataError: a list is missing or can't be understood, or no segment has a file.
    """
    tables = request.tables or tuple(
        path for name in AUDIOSET_TABLES if (path := request.input / name).exists()
    )
    if not tables:
        raise DataError(f'None of {", ".join(AUDIOSET_TABLES)} in --input={request.input}. See --csv.')
    labels = request.labels or request.input / AUDIOSET_CLASSES
    if not labels.exists():
        raise DataError(
            f'{labels} is missing: AudioSet needs its class list, --labels=.../{AUDIOSET_CLASSES}.'
        )
    mids, class_names = label_values.ontology(labels)
    classes = Classes(mids, labels.name)
    media = _Media(request.input)
    rows = []
    for table in tables:
        split = reading.split_name(table.name, table.stem.replace('_segments', ''))
        for where, values in reading.read_csv(table, comments=True):
            video, start, end, labelled = map(str.strip, reading.exactly(where, values, _AUDIOSET_COLUMNS))
            start_s, end_s = _number(where, 'start_seconds', start), _number(where, 'end_seconds', end)
            if end_s <= start_s:
                raise DataError(f'{where}: the segment ends at {end_s:g} s and begins at {start_s:g} s.')
            positive = [mid.strip() for mid in labelled.split(',') if mid.strip()]
            row = media.row(where, video, start_s, end_s, split, classes.indices(positive, where))
            rows.append((where, row))
    return Listing(_once(rows), class_names, multi_label=True, notes=media.check(rows))


def read_vggsound(request: Request) -> Listing:
    """VGGSound's `vggsound.csv`: YouTube id, start in seconds, label, train or test; no header.

    The classes are in alphabetical order.

    Raises:
        DataError: the list is missing or can't be understood, or no segment has a file.
    """
    table, *more = request.tables or (request.input / VGGSOUND_TABLE,)
    if more:
        raise DataError(f'--csv: VGGSound has one list, not {1 + len(more)}.')
    if not table.exists():
        raise DataError(f'{table} is missing. See --csv.')
    lines = [
        (where, [value.strip() for value in reading.exactly(where, values, _VGGSOUND_COLUMNS)])
        for where, values in reading.read_csv(table)
    ]
    found = sorted({reading.class_name(where, values[2]) for where, values in lines})
    classes = Classes(
        reading.read_names(request.labels) if request.labels else found, str(request.labels or table.name)
    )
    media = _Media(request.input)
    rows = []
    for where, (video, start, label, split) in lines:
        start_s = _number(where, 'start seconds', start)
        labels = classes.indices([label], where)
        split = reading.split_name(where, split)
        row = media.row(where, video, start_s, start_s + VGGSOUND_SECONDS, split, labels)
        rows.append((where, row))
    paths.check_apart([(where, f'{row.name} from {row.start_s:g} s', row.split) for where, row in rows])
    return Listing(_once(rows), classes.names, notes=media.check(rows))


def _once(rows: Sequence[tuple[str, Row]]) -> list[Row]:
    """The rows, each once.

    Raises:
        DataError: a segment is listed twice in a split, with different labels or ends.
    """
    seen: dict[tuple[str, float | None, str], tuple[str, Row]] = {}
    for where, row in rows:
        before, first = seen.setdefault((row.name, row.start_s, row.split), (where, row))
        if first != row:
            raise DataError(
                f'{where}: {row.name} from {row.start_s:g} s is listed otherwise before ({before}).'
            )
    return [row for _, row in seen.values()]


class _Media:
    """Finds the files of a segment by their names."""

    def __init__(self, root: epath.Path) -> None:
        self._root = root
        self._files: dict[str, list[str]] = {}
        self._inside: dict[str, Inside] = {}
        self._notes: list[str] = []
        everything = paths.files(root)
        loose = [file for file in everything if local.is_media(file)]
        archives = [file for file in everything if file.lower().endswith(tars.SUFFIXES)]
        if loose and archives:
            self._notes.append(
                f'{len(archives)} tars were not looked into, because there are media beside them'
            )
        for archive in [] if loose else archives:
            try:
                self._inside.update(media_in(str(root), archive))
            except tars.TarError as error:
                self._notes.append(f'{printable(archive)} {error}: what is before that is used')
        for file in loose or self._inside:
            self._files.setdefault(file.rpartition('/')[2].rpartition('.')[0], []).append(file)

    def row(
        self, where: str, video: str, start_s: float, end_s: float, split: str, labels: tuple[int, ...]
    ) -> Row:
        if not _VIDEO_ID.fullmatch(video):
            raise DataError(f'{where}: {video!r} is not the id of a YouTube video.')
        stems = dict.fromkeys(_stems(video, start_s, end_s))
        files = [file for stem in stems for file in self._files.get(stem, ())]
        file = files[0] if files else None
        return Row(
            video,
            split,
            file,
            start_s,
            end_s - start_s,
            labels,
            is_segment=True,
            others=tuple(files[1:]),
            inside=tuple(self._inside[name] for name in files if name in self._inside),
        )

    def check(self, rows: Sequence[tuple[str, Row]]) -> tuple[str, ...]:
        """Remarks on the files of the rows and on their repetition.

        Raises:
            DataError: no row has a file.
        """
        if all(row.file is None for _, row in rows):
            example = (
                f'; {rows[0][1].name} is looked for as {", ".join(_stems(rows[0][1].name, 30.0, 40.0))}'
                if rows
                else ''
            )
            raise DataError(
                f'None of {len(rows)} segments has a file below --input={self._root}{example}, with the '
                'extension of a media file, in a folder or in a tar, and the start and end of the segment '
                'for 30 and 40.'
            )
        unique = dict.fromkeys(row for _, row in rows)
        several = sum(bool(row.others) for row in unique)
        note = f'{several} segments have several files; the first that has what is wanted is used'
        return (*self._notes, *((note,) if several else ()), *reading.repeated(len(rows) - len(unique)))


def _stems(video: str, start_s: float, end_s: float) -> Iterator[str]:
    """Names of files of a segment without extension, the most precise ones first."""
    spellings: list[Callable[[float], str]] = [lambda s: f'{s:.3f}', lambda s: f'{1000 * s:.0f}']
    if start_s.is_integer() and end_s.is_integer():
        spellings = [lambda s: f'{s:06.0f}', lambda s: f'{s:.0f}', *spellings]
    for prefix in ('', 'Y'):
        yield from (f'{prefix}{video}_{spell(start_s)}_{spell(end_s)}' for spell in spellings)
        yield from (f'{prefix}{video}_{spell(start_s)}' for spell in spellings)
    yield from (video, f'Y{video}')


def _number(where: str, column: str, text: str) -> float:
    value = reading.seconds(where, column, text)
    if value is None:
        raise DataError(f'{where}: {column} is empty: must be a number of seconds.')
    return value
