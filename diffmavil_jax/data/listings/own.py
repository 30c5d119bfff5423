"""Media of one's own: a folder, or a CSV that says more about the files in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.folder import EXTENSIONS, parse_seconds, unit_hash
from diffmavil_jax.data.listings import row as rows_lib
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row

TRAIN, HELD_OUT = 'train', 'validation'
COLUMNS = ('path', 'split', 'label', 'labels', 'start_s', 'duration_s')
LABEL_SEPARATOR = ';'


def read_folder(request: Request) -> Listing:
    """Every media file below the input, as a whole.

    A stable hash of the name holds out `eval_fraction` of the files as `validation`.
    """
    found = media_files(request.input)
    names = [_folder_of(file) for file in found] if request.folder_labels else []
    classes = _classes(request, sorted(set(names)))
    rows = [
        Row(file, _part(file, request), file, labels=classes.indices([names[i]], file) if names else ())
        for i, file in enumerate(found)
    ]
    return Listing(rows, classes.names if names else ())


def read_csv(request: Request) -> Listing:
    """The CSV in the input with a `path` column.

    Optional columns: `split`; `label`, or `labels` with several separated by `;`; `start_s` and
    `duration_s`. Rows without a split are held out as in a folder.
    """
    table = _table(request)
    lines = list(rows_lib.read_table(table, ['path']))
    if not lines:
        raise DataError(f'{table} has no rows.')
    several = 'labels' in lines[0][1]
    if several and 'label' in lines[0][1]:
        raise DataError(f'{table} has both a column label and a column labels: keep one of them.')
    names = [_names(cells, several) for _, cells in lines]
    classes = _classes(request, sorted({name for group in names for name in group}))
    rows: dict[Row, None] = {}
    splits: dict[str, str] = {}
    for (where, cells), labels in zip(lines, names, strict=True):
        row = _row(where, cells, classes.indices(labels, where), request)
        if splits.setdefault(row.name, row.split) != row.split:
            raise DataError(f'{where}: {row.name} is in {splits[row.name]} too: a file belongs to one split.')
        rows.setdefault(row)
    notes = (
        (f'{len(lines) - len(rows)} rows are repeated and were taken once',) if len(rows) < len(lines) else ()
    )
    return Listing(list(rows), classes.names, several, notes)


def media_files(root: epath.Path) -> list[str]:
    """Those with a known extension.

    Raises:
        DataError: there is none.
    """
    found = [file for file in rows_lib.files(root) if os.path.splitext(file)[1].lower() in EXTENSIONS]
    if not found:
        raise DataError(f'No media in --input={root}: looked for names that end in {" ".join(EXTENSIONS)}.')
    return found


def _classes(request: Request, found: Sequence[str]) -> Classes:
    if request.labels is None:
        return Classes(found, 'the rows')
    return Classes(rows_lib.read_names(request.labels), str(request.labels))


def _part(file: str, request: Request) -> str:
    return HELD_OUT if unit_hash(file) < request.eval_fraction else TRAIN


def _folder_of(file: str) -> str:
    folder, slash, _ = file.partition('/')
    if not slash:
        raise DataError(f'{file} is in no sub-folder, which --folder_labels takes for its class.')
    return folder


def _table(request: Request) -> epath.Path:
    """The CSV that lists the media: the one with a path column and, of several, with a known other."""
    columns = {
        table: next(rows_lib.read_csv(table), ('', []))[1]
        for table in request.tables or sorted(request.input.glob('*.csv'))
    }
    tables = [table for table, names in columns.items() if 'path' in names]
    if len(tables) > 1:
        tables = [table for table in tables if len(set(columns[table]) & set(COLUMNS)) > 1] or tables
    if len(tables) != 1:
        found = ', '.join(table.name for table in tables) or 'none'
        raise DataError(
            f'One CSV with a path column is wanted in --input={request.input}, found {found}. See --csv.'
        )
    return tables[0]


def _names(cells: Mapping[str, str], several: bool) -> list[str]:
    texts = cells['labels'].split(LABEL_SEPARATOR) if several else [cells.get('label', '')]
    return [text.strip() for text in texts if text.strip()]


def _row(where: str, cells: Mapping[str, str], labels: tuple[int, ...], request: Request) -> Row:
    file = rows_lib.below(where, cells['path'])
    split = cells.get('split', '')
    return Row(
        name=file,
        split=rows_lib.split_name(where, split) if split else _part(file, request),
        file=file,
        start_s=parse_seconds(where, 'start_s', cells),
        duration_s=parse_seconds(where, 'duration_s', cells),
        labels=labels,
    )
