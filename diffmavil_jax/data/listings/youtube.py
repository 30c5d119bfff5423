"""Lists segments of YouTube videos: AudioSet and VGGSound, as they are published.

The files are found by their names, anywhere below the input and with any extension of a media file. These are
the names for the segment from 30 s to 40 s of the video VIDEO_ID_0:

    VIDEO_ID_0          or YVIDEO_ID_0       the video, or the segment
    VIDEO_ID_0_30       or ..._000030        the segment, by its start in seconds (VGGSound)
    VIDEO_ID_0_30.000   or ..._30000         the segment, by its start in seconds or milliseconds
    VIDEO_ID_0_30_40    or ..._30.000_40.000 or ..._30000_40000    the segment, by its start and end

Each may have a Y before it. A file that is named by the id alone may be the segment or the whole video. It is
taken for the segment if it is at most a tenth longer than the segment, or if it is at most twice as long and
ends before the segment's place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings import local, reading
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row

AUDIOSET_TABLES = ('balanced_train_segments.csv', 'unbalanced_train_segments.csv', 'eval_segments.csv')
AUDIOSET_CLASSES = 'class_labels_indices.csv'
VGGSOUND_TABLE = 'vggsound.csv'
VGGSOUND_SECONDS = 10.0

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
    mids, class_names = _ontology(labels)
    classes = Classes(mids, labels.name)
    media = _Media(request.input)
    rows = []
    for table in tables:
        split = reading.split_name(table.name, table.stem.replace('_segments', ''))
        for where, values in reading.read_csv(table, comments=True):
            if len(values) != 4:
                raise DataError(
                    f'{where}: {len(values)} values, not YTID, start_seconds, end_seconds, positive_labels.'
                )
            video, start, end, labelled = values
            start_s, end_s = _number(where, 'start_seconds', start), _number(where, 'end_seconds', end)
            if end_s <= start_s:
                raise DataError(f'{where}: the segment ends at {end_s:g} s and begins at {start_s:g} s.')
            positive = [mid.strip() for mid in labelled.split(',') if mid.strip()]
            rows.append(media.row(where, video, start_s, end_s, split, classes.indices(positive, where)))
    return Listing(rows, class_names, multi_label=True, notes=media.check(rows))


def read_vggsound(request: Request) -> Listing:
    """VGGSound's `vggsound.csv`: YouTube id, start in seconds, label, train or test; no header.

    The classes are in alphabetical order.

    Raises:
        DataError: the list is missing or can't be understood, or no segment has a file.
    """
    table = request.tables[0] if request.tables else request.input / VGGSOUND_TABLE
    if not table.exists():
        raise DataError(f'{table} is missing. See --csv.')
    lines = list(reading.read_csv(table))
    for where, values in lines:
        if len(values) != 4:
            raise DataError(f'{where}: {len(values)} values, not YouTube id, start seconds, label, split.')
    names = reading.read_names(request.labels) if request.labels else sorted({v[2] for _, v in lines})
    classes = Classes(names, str(request.labels or table.name))
    media = _Media(request.input)
    rows = []
    for where, (video, start, label, split) in lines:
        start_s = _number(where, 'start seconds', start)
        labels = classes.indices([label], where)
        split = reading.split_name(where, split)
        rows.append(media.row(where, video, start_s, start_s + VGGSOUND_SECONDS, split, labels))
    return Listing(rows, classes.names, notes=media.check(rows))


class _Media:
    """Finds the file of a segment by its name."""

    def __init__(self, root: epath.Path) -> None:
        self._root = root
        self._files: dict[str, str] = {}
        self._num_shadowed = 0
        for file in local.media_files(root):
            stem = file.rpartition('/')[2].rpartition('.')[0]
            if self._files.setdefault(stem, file) != file:
                self._num_shadowed += 1

    def row(
        self, where: str, video: str, start_s: float, end_s: float, split: str, labels: tuple[int, ...]
    ) -> Row:
        if not _VIDEO_ID.fullmatch(video):
            raise DataError(f'{where}: {video!r} is not the id of a YouTube video.')
        file = next(
            (self._files[stem] for stem in _stems(video, start_s, end_s) if stem in self._files), None
        )
        return Row(video, split, file, start_s, end_s - start_s, labels, is_segment=True)

    def check(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Remarks on the files of the rows.

        Raises:
            DataError: no row has a file.
        """
        if all(row.file is None for row in rows):
            example = (
                f'; {rows[0].name} is looked for as {", ".join(_stems(rows[0].name, 30.0, 40.0))}'
                if rows
                else ''
            )
            raise DataError(
                f'None of {len(rows)} segments has a file below --input={self._root}{example}, with the '
                'extension of a media file and the start and end of the segment for 30 and 40.'
            )
        if not self._num_shadowed:
            return ()
        return (
            f'{self._num_shadowed} files have the name of another one in another folder and were not used',
        )


def _stems(video: str, start_s: float, end_s: float) -> Iterator[str]:
    """Names of files of a segment without extension, the most precise ones first."""
    spellings: list[Callable[[float], str]] = [lambda s: f'{s:.3f}', lambda s: f'{1000 * s:.0f}']
    if start_s.is_integer() and end_s.is_integer():
        spellings = [lambda s: f'{s:06.0f}', lambda s: f'{s:.0f}', *spellings]
    for prefix in ('', 'Y'):
        yield from (f'{prefix}{video}_{spell(start_s)}_{spell(end_s)}' for spell in spellings)
        yield from (f'{prefix}{video}_{spell(start_s)}' for spell in spellings)
    yield from (video, f'Y{video}')


def _ontology(path: epath.Path) -> tuple[list[str], tuple[str, ...]]:
    """The identifiers and the display names of the classes, in the order of their indices."""
    found = []
    for where, cells in reading.read_table(path, ['index', 'mid', 'display_name']):
        if not cells['index'].isdecimal():
            raise DataError(f'{where}: index = {cells["index"]!r}: must be a whole number.')
        found.append((int(cells['index']), cells['mid'], cells['display_name']))
    found.sort()
    if [index for index, _, _ in found] != list(range(len(found))):
        raise DataError(f'{path}: the indices of its {len(found)} classes are not 0, 1, 2 and so on.')
    return [mid for _, mid, _ in found], tuple(name for _, _, name in found)


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f'{where}: {column} = {text!r}: must be a number of seconds, at least 0.')
    return value
