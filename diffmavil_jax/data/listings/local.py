"""Lists the user's own media: all files of a folder, or those that a CSV names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings import reading
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row

EXTENSIONS = (
    '.3g2', '.3gp', '.aac', '.aif', '.aiff', '.asf', '.avi', '.caf', '.dv', '.f4v', '.flac', '.flv',
    '.ivf', '.m2ts', '.m4a', '.m4v', '.mka', '.mkv', '.mov', '.mp3', '.mp4', '.mpe', '.mpeg', '.mpg',
    '.mts', '.mxf', '.nut', '.oga', '.ogg', '.ogm', '.ogv', '.opus', '.qt', '.ts', '.vob', '.wav',
    '.webm', '.wma', '.wmv',
)  # fmt: skip
TRAIN, HELD_OUT = 'train', 'validation'
COLUMNS = ('split', 'label', 'labels', 'start_s', 'duration_s')
LABEL_SEPARATOR = ';'


def read_folder(request: Request) -> Listing:
    """A row for every media file below the input.

    A stable hash of the name holds out `eval_fraction` of the files as the split `validation`.

    Raises:
        DataError: there are none, or classes can't be found.
    """
    found = media_files(request.input)
    if not found:
        raise DataError(
            f'No media in --input={request.input}: looked in it and below for names that end in '
            f'{" ".join(EXTENSIONS)}.'
        )
    names = [class_folder(file) for file in found] if request.folder_labels else []
    classes = _classes(request, sorted(set(names)))
    rows = [
        Row(file, _part(file, request), file, labels=classes.indices([names[i]], file) if names else ())
        for i, file in enumerate(found)
    ]
    return Listing(rows, classes.names if names else ())


def read_csv(request: Request) -> Listing:
    """The rows of the CSV in the input that has a column `path`.

    Optional columns are `split`; `label`, or `labels` with several separated by `;`; `start_s` and
    `duration_s`. Rows without a split are held out as in a folder.

    Raises:
        DataError: there is no such CSV or more than one, or it can't be understood.
    """
    table = _table(request)
    lines = reading.read_table(table, ['path'])
    several = 'labels' in lines[0][1]
    if several and 'label' in lines[0][1]:
        raise DataError(f'{table} has both a column label and a column labels: keep one of them.')
    names = [_names(cells, several) for _, cells in lines]
    classes = _classes(request, sorted({name for group in names for name in group}))

    def split(where: str, cells: Mapping[str, str], file: str) -> str:
        text = cells.get('split', '')
        return reading.split_name(where, text) if text else _part(file, request)

    rows = list(dict.fromkeys(media_rows(lines, names, classes, split)))
    notes = (
        (f'{len(lines) - len(rows)} rows are repeated and were taken once',) if len(rows) < len(lines) else ()
    )
    return Listing(rows, classes.names, several, notes)


def media_files(root: epath.Path) -> list[str]:
    """The files below a folder whose names end in one of EXTENSIONS, sorted."""
    return [file for file in reading.files(root) if os.path.splitext(file)[1].lower() in EXTENSIONS]


def media_tables(tables: Iterable[epath.Path], columns: Sequence[str]) -> list[epath.Path]:
    """The CSVs with a column `path`; if there are several, those that have one of `columns` too."""
    headers = {table: set(next(reading.read_csv(table), ('', []))[1]) for table in tables}
    found = [table for table, header in headers.items() if 'path' in header]
    telling = [table for table in found if not headers[table].isdisjoint(columns)]
    return telling or found


def media_rows(
    lines: Sequence[tuple[str, Mapping[str, str]]],
    labels: Sequence[Sequence[str]],
    classes: Classes,
    split: Callable[[str, Mapping[str, str], str], str],
) -> list[Row]:
    """A row for each line of a CSV with the columns `path` and, maybe, `start_s` and `duration_s`.

    Args:
        lines: the result of `read_table`.
        labels: the names of the classes of each line.
        classes: all classes.
        split: gives the split of a line from where the line is, its cells and its file.

    Raises:
        DataError: a cell has a value that is not allowed, or a file is in two splits.
    """
    rows = []
    splits: dict[str, str] = {}
    for (where, cells), names in zip(lines, labels, strict=True):
        file = reading.below(where, cells['path'])
        row = Row(
            name=file,
            split=split(where, cells, file),
            file=file,
            start_s=reading.seconds(where, 'start_s', cells.get('start_s', '')),
            duration_s=reading.seconds(where, 'duration_s', cells.get('duration_s', '')),
            labels=classes.indices(names, where),
        )
        if splits.setdefault(file, row.split) != row.split:
            raise DataError(f'{where}: {file} is in {splits[file]} too: a file belongs to one split.')
        rows.append(row)
    return rows


def unit_hash(file: str) -> float:
    """A number in [0, 1) that depends on the name of a file alone."""
    digest = hashlib.sha256(file.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64


def _classes(request: Request, found: Sequence[str]) -> Classes:
    if request.labels is None:
        return Classes(found, 'the rows')
    return Classes(reading.read_names(request.labels), str(request.labels))


def _part(file: str, request: Request) -> str:
    return HELD_OUT if unit_hash(file) < request.eval_fraction else TRAIN


def class_folder(file: str) -> str:
    """The first sub-folder of a path, which names its class.

    Raises:
        DataError: the file is in no sub-folder.
    """
    folder, slash, _ = file.partition('/')
    if not slash:
        raise DataError(f'{file} is in no sub-folder, which must name its class.')
    return folder


def _table(request: Request) -> epath.Path:
    tables = media_tables(request.tables or sorted(request.input.glob('*.csv')), COLUMNS)
    if len(tables) != 1:
        found = ', '.join(table.name for table in tables) or 'none'
        raise DataError(
            f'There must be one CSV with a path column in --input={request.input}; found {found}. See --csv.'
        )
    return tables[0]


def _names(cells: Mapping[str, str], several: bool) -> list[str]:
    texts = cells['labels'].split(LABEL_SEPARATOR) if several else [cells.get('label', '')]
    return [text.strip() for text in texts if text.strip()]
