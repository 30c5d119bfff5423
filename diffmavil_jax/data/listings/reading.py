"""Reads lists that people write: CSVs, lists of names, and the values in them.

A row is read as it is written, or refused by its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError, printable

Row = tuple[str, Mapping[str, str]]  # where a row is, and its cells by column

_SPLIT = re.compile(r'\w+', re.ASCII)
_OTHER_DELIMITERS = ';\t|'
_QUOTE_AFTER_SPACE = re.compile(r'[,\n][ \t]+"')


def read_names(path: epath.Path) -> list[str]:
    """The names in a file with one name per line.

    Raises:
        DataError: the file can't be read, or has no names.
    """
    names = [name for _, name in read_lines(path)]
    if not names:
        raise DataError(f'{path} names no class: it must have one name per line.')
    return names


def read_lines(path: epath.Path) -> list[tuple[str, str]]:
    """The lines of a file that are not empty, each with its place for error messages. Lines are stripped.

    Raises:
        DataError: it can't be read.
    """
    lines = io.StringIO(read_text(path), newline=None)  # only line ends end a line, no other separators
    return [(f'{path.name}, line {i}', text.strip()) for i, text in enumerate(lines, 1) if text.strip()]


def read_text(path: epath.Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a mark of its byte order.

    Raises:
        DataError: it can't be read.
    """
    try:
        data = path.read_bytes()
        return data.decode('utf-16' if _is_utf16(data) else 'utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as text in UTF-8: {error}.") from error


def read_csv(path: epath.Path, *, comments: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV that are not empty, each with its place for error messages.

    Args:
        path: of the CSV.
        comments: whether lines that begin with `# ` are comments.

    Raises:
        DataError: it can't be read as CSV.
    """
    text = read_text(path)
    # Spaces belong to a name, except before a quote, which would otherwise quote nothing.
    skip = _QUOTE_AFTER_SPACE.search(text) is not None
    lines = csv.reader(io.StringIO(text, newline=''), skipinitialspace=skip, strict=True)
    line = 0
    try:
        for values in lines:
            begin, line = line + 1, lines.line_num
            if any(value.strip() for value in values) and not (comments and values[0].startswith('# ')):
                yield f'{path.name}, line {begin}', values
    except csv.Error as error:
        raise DataError(f"{path} can't be read as CSV, line {line + 1}: {error}.") from error


def read_table(path: epath.Path, required: Sequence[str]) -> list[Row]:
    """The rows of a CSV with a header. Cells are as they are written; `cell` gives one without spaces.

    Raises:
        DataError: it lacks a required column, has one twice, has no rows, or a row has more or fewer cells
            than there are columns.
    """
    (_, first), *rows = list(read_csv(path)) or [('', [])]
    header = [name.strip().lower() for name in first]
    if missing := [column for column in required if column not in header]:
        raise DataError(
            f'{path} has no column {missing[0]!r}; its columns are {", ".join(header) or "none"}.'
        )
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise DataError(f'{path} has the column {twice[0]!r} twice.')
    if not rows:
        raise DataError(f'{path} has no rows.')
    return [(where, dict(zip(header, exactly(where, cells, header), strict=True))) for where, cells in rows]


def exactly(where: str, cells: list[str], columns: Sequence[str]) -> list[str]:
    """The cells of a row, if there is one for each column.

    Raises:
        DataError: there are more or fewer.
    """
    if len(cells) != len(columns):
        raise DataError(
            f'{where}: {len(cells)} values, not {len(columns)}: {", ".join(columns)}. A value that has a '
            'comma must be in quotes, and an empty one needs its comma.'
        )
    return cells


def cell(cells: Mapping[str, str], column: str, default: str = '') -> str:
    """A value without spaces around it; the default if the column is missing or the cell is empty."""
    return cells.get(column, '').strip() or default


def header(path: epath.Path) -> list[str]:
    """The columns of a file that may be a CSV, whatever follows them; none if there is no such line.

    Raises:
        DataError: the columns have a `path`, but are not separated by commas.
    """
    try:
        with path.open('rb') as file:
            data = file.read(1 << 16)
    except OSError:
        return []
    text = data.decode('utf-16' if _is_utf16(data) else 'utf-8-sig', 'replace')
    lines = io.StringIO(text, newline=None)  # only line ends end a line, as in `read_csv`
    line = next((line for line in lines if line.strip()), '')

    def columns(delimiter: str) -> list[str]:
        return [name.strip().strip('"').lower() for name in line.split(delimiter)]

    for delimiter in _OTHER_DELIMITERS:
        if 'path' in columns(delimiter) and 'path' not in columns(','):
            raise DataError(f'{path}: its columns are separated by {delimiter!r}: must be commas.')
    return columns(',')


def repeated(count: int) -> tuple[str, ...]:
    """The remark that some rows are repeated; none if there are none."""
    return (f'{count} rows are repeated and were taken once',) if count else ()


def seconds(where: str, column: str, text: str) -> float | None:
    """A time in seconds; None for an empty text.

    Raises:
        DataError: it is not a number of seconds.
    """
    try:
        value = float(text.replace('_', 'x')) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value < math.inf:
        raise DataError(f'{where}: {column} = {text!r}: must be a number of seconds, at least 0, or empty.')
    return value


def whole_number(where: str, column: str, text: str) -> int:
    """A number that is whole and not negative.

    Raises:
        DataError: it is not.
    """
    if not (text.isdecimal() and text.isascii()):
        raise DataError(f'{where}: {column} = {text!r}: must be a whole number.')
    return int(text)


def split_name(where: str, text: str) -> str:
    """Checks that TFDS accepts a name of a split.

    Raises:
        DataError: it does not.
    """
    if not _SPLIT.fullmatch(text) or text == 'all':
        raise DataError(f"{where}: split = {text!r}: must be letters, digits and '_', and not 'all'.")
    return text


def class_name(where: str, text: str) -> str:
    """Checks that the name of a class is one line.

    Raises:
        DataError: it has several, as where a quote is not closed.
    """
    if '\n' in text or '\r' in text:
        raise DataError(f'{where}: label = {printable(text[:40])}: has several lines; is a quote not closed?')
    return text


def _is_utf16(data: bytes) -> bool:
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
