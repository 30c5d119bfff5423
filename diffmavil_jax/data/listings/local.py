"""Lists the user's own media: all files of a folder, or those that a CSV names."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import paths, reading
from diffmavil_jax.data.listings.row import Classes, Listing, Request, Row

EXTENSIONS = (
    '.3g2', '.3gp', '.aac', '.aif', '.aiff', '.asf', '.avi', '.caf', '.dv', '.f4v', '.flac', '.flv',
    '.ivf', '.m2ts', '.m4a', '.m4v', '.mka', '.mkv', '.mov', '.mp3', '.mp4', '.mpe', '.mpeg', '.mpg',
    '.mts', '.mxf', '.nut', '.oga', '.ogg', '.ogm', '.ogv', '.opus', '.qt', '.ts', '.vob', '.wav',
    '.webm', '.wma', '.wmv',
)  # fmt: skip
TRAIN, HELD_OUT = 'train', 'validation'
_TIMES = ('start_s', 'duration_s')
COLUMNS = ('split', 'label', 'labels', *_TIMES)  # of a CSV besides `path`
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
    if request.labels is None:
        classes = Classes(sorted(set(names)), 'the folders')
    else:
        classes = Classes(reading.read_names(request.labels), str(request.labels))
    rows = [
        Row(file, part(file, request), file, labels=classes.indices([names[i]], file) if names else ())
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
    if absent := [table for table in request.tables if not table.exists()]:
        raise DataError(f'--csv: there is no {absent[0]}.')
    tables, notes = media_tables(request.tables or tables_in(request.input))
    if len(tables) != 1:
        found = ', '.join(table.name for table in tables) or 'none'
        raise DataError(
            f'There must be one CSV with a path column in --input={request.input}; found {found}. See --csv.'
        )

    def split(where: str, text: str, file: str) -> str:
        return reading.split_name(where, text) if text else part(file, request)

    listing = read_table(tables[0], request.input, split, request.labels)
    rows = list(dict.fromkeys(listing.rows))
    repeated = reading.repeated(len(listing.rows) - len(rows))
    return dataclasses.replace(listing, rows=rows, notes=(*notes, *repeated))


def media_files(root: epath.Path) -> list[str]:
    """The files below a folder whose names end in one of EXTENSIONS, sorted.

    Raises:
        DataError: that of `paths.files`.
    """
    return [file for file in paths.files(root) if is_media(file)]


def is_media(file: str) -> bool:
    """Whether a name ends in one of EXTENSIONS."""
    return os.path.splitext(file)[1].lower() in EXTENSIONS


def tables_in(folder: epath.Path) -> list[epath.Path]:
    """The CSVs in a folder, sorted."""
    if '://' in str(folder):
        return sorted(folder.glob('*.csv'))
    names = os.listdir(folder) if os.path.isdir(folder) else []  # there may be millions of other files
    return [folder / name for name in sorted(names) if name.lower().endswith('.csv') and name[0] != '.']


def media_tables(tables: Iterable[epath.Path]) -> tuple[list[epath.Path], tuple[str, ...]]:
    """The CSVs with a column `path`; if there are several, those that have one of COLUMNS too.

    Also remarks on the others, which are no lists of media.

    Raises:
        DataError: that of `reading.header`.
    """
    headers = {table: set(reading.header(table)) for table in tables}
    found = [table for table, header in headers.items() if 'path' in header]
    telling = [table for table in found if not headers[table].isdisjoint(COLUMNS)]
    chosen = telling or found
    notes = (f'{printable(table.name)} has no column path, so it is no list' for table in headers)
    return chosen, tuple(note for table, note in zip(headers, notes, strict=True) if table not in found)


def read_table(
    table: epath.Path,
    root: epath.Path,
    split: Callable[[str, str, str], str],
    class_list: epath.Path | None = None,
) -> Listing:
    """A row for each line of a CSV with the column `path` and, maybe, COLUMNS.

    Args:
        table: the CSV.
        root: the folder that paths are below.
        split: gives the split of a line from where the line is, its cell (maybe empty) and its file.
        class_list: names of the classes in their order; None: the sorted names in the CSV.

    Raises:
        DataError: a line has more or fewer cells than there are columns, or a value that is not allowed; a
            file is in two splits; a stretch of it has different labels.
    """
    lines = reading.read_table(table, ['path'])
    several = 'labels' in lines[0][1]
    if several and 'label' in lines[0][1]:
        raise DataError(f'{table} has both a column label and a column labels: keep one of them.')
    names = [_names(where, cells, several) for where, cells in lines]
    if class_list is None:
        classes = Classes(sorted({name for group in names for name in group}), table.name)
    else:
        classes = Classes(reading.read_names(class_list), str(class_list))
    there = paths.Paths(root)
    rows = []
    for (where, cells), group in zip(lines, names, strict=True):
        file = there.below(where, cells['path'])
        start_s, duration_s = (reading.seconds(where, name, reading.cell(cells, name)) for name in _TIMES)
        rows.append(
            Row(
                name=file,
                split=split(where, reading.cell(cells, 'split'), file),
                file=file,
                start_s=start_s,
                duration_s=duration_s,
                labels=classes.indices(group, where),
            )
        )
    places = [where for where, _ in lines]
    paths.check_apart([(where, row.name, row.split) for where, row in zip(places, rows, strict=True)])
    check_labels(places, rows, classes)
    return Listing(rows, classes.names, several)


def check_labels(places: Sequence[str], rows: Sequence[Row], classes: Classes) -> None:
    """Checks that the same stretch of a file has the same labels everywhere.

    Raises:
        DataError: it has not.
    """
    seen: dict[tuple[str, float | None, float | None], tuple[str, tuple[int, ...]]] = {}
    for where, row in zip(places, rows, strict=True):
        before, labels = seen.setdefault((row.name, row.start_s, row.duration_s), (where, row.labels))
        if labels != row.labels:
            here, there = (', '.join(classes.names[i] for i in group) for group in (row.labels, labels))
            raise DataError(
                f'{where}: {printable(row.name)} is {here or "unlabelled"} here and {there or "unlabelled"} '
                f'before ({before}).'
            )


def unit_hash(file: str) -> float:
    """A number in [0, 1) that depends on the name of a file alone."""
    digest = hashlib.sha256(file.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64


def part(file: str, request: Request) -> str:
    """TRAIN, or HELD_OUT for the share of the files that the request holds out."""
    return HELD_OUT if unit_hash(file) < request.eval_fraction else TRAIN


def class_folder(file: str) -> str:
    """The first sub-folder of a path, which names its class.

    Raises:
        DataError: the file is in no sub-folder.
    """
    folder, slash, _ = file.partition('/')
    if not slash:
        raise DataError(f'{printable(file)} is in no sub-folder, which must name its class.')
    return printable(folder)


def _names(where: str, cells: Mapping[str, str], several: bool) -> list[str]:
    """The names of the classes of a line."""
    if several:
        texts = [text.strip() for text in cells['labels'].split(LABEL_SEPARATOR)]
    else:
        texts = [reading.cell(cells, 'label')]
    return [reading.class_name(where, text) for text in texts if text]
