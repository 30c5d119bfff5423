"""Reads lists that people write: CSVs, lists of names, and the values in them."""

from __future__ import annotations

import csv
import io
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from diffmavil_jax.data.clip import DataError

_SPLIT = re.compile(r'\w+', re.ASCII)


def read_names(path: epath.Path) -> list[str]:
    """The names in a file with one name per line.

    Raises:
        DataError: the file can't be read, or has no names.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f'{path} names no class: it must have one name per line.')
    return names


def read_text(path: epath.Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        DataError: it can't be read.
    """
    try:
        return path.read_bytes().decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as text in UTF-8: {error}.") from error


def read_csv(path: epath.Path, *, comments: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV that are not empty, each with its place for error messages. Values are stripped.

    Args:
        path: of the CSV.
        comments: whether lines that begin with `# ` are comments.

    Raises:
        DataError: it can't be read as CSV.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=''), skipinitialspace=True)
    try:
        for values in lines:
            if values and not (comments and values[0].startswith('# ')):
                yield f'{path.name}, line {lines.line_num}', [value.strip() for value in values]
    except csv.Error as error:
        raise DataError(f"{path} can't be read as CSV, line {lines.line_num}: {error}.") from error


def read_table(path: epath.Path, required: Sequence[str]) -> list[tuple[str, Mapping[str, str]]]:
    """The rows of a CSV with a header, each with its place and its values by column.

    Columns that are missing at the end of a row are empty.

    Raises:
        DataError: it lacks a required column, or has no rows.
    """
    (_, header), *rows = list(read_csv(path)) or [('', [])]
    if missing := [column for column in required if column not in header]:
        raise DataError(
            f'{path} has no column {missing[0]!r}; its columns are {", ".join(header) or "none"}.'
        )
    if not rows:
        raise DataError(f'{path} has no rows.')
    return [
        (where, dict(zip(header, values + [''] * (len(header) - len(values)), strict=False)))
        for where, values in rows
    ]


def below(where: str, text: str) -> str:
    """Checks a path, and writes it with single slashes.

    Raises:
        DataError: it leads out of the input folder.
    """
    path = pathlib.PurePosixPath(text)
    elsewhere = path.is_absolute() or '..' in path.parts or path.parts[:1] and path.parts[0].endswith(':')
    if elsewhere or not path.name or '\\' in text or '\0' in text:
        raise DataError(f'{where}: path = {text!r}: must be below the input folder, with slashes.')
    return path.as_posix()


def seconds(where: str, column: str, text: str) -> float | None:
    """A time in seconds; None for an empty text.

    Raises:
        DataError: it is not a number of seconds.
    """
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value < math.inf:
        raise DataError(f'{where}: {column} = {text!r}: must be a number of seconds, at least 0, or empty.')
    return value


def split_name(where: str, text: str) -> str:
    """Checks that TFDS accepts a name of a split.

    Raises:
        DataError: it does not.
    """
    if not _SPLIT.fullmatch(text) or text == 'all':
        raise DataError(f"{where}: split = {text!r}: must be letters, digits and '_', and not 'all'.")
    return text


def files(root: epath.Path) -> list[str]:
    """All files below a folder except hidden ones, with slashes, sorted.

    Links to folders are followed, unless they lead to a part of the folder or to a folder around it: a file
    with two names would count as two files.

    Raises:
        DataError: it is not a folder.
    """
    if '://' in str(root):
        return sorted(_remote_files(str(root)))
    if not root.is_dir():
        raise DataError(f'--input={root} is not a folder.')
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = pathlib.Path(folder)
        subfolders[:] = [
            name for name in subfolders if not name.startswith('.') and not _leads_back(here / name, root)
        ]
        prefix = here.relative_to(root)
        found += [(prefix / name).as_posix() for name in names if not name.startswith('.')]
    return sorted(found)


def _leads_back(folder: pathlib.Path, root: epath.Path) -> bool:
    """Whether a folder is a link to a part of root, or to a folder that root is in."""
    if not folder.is_symlink():
        return False
    target, top = os.path.realpath(folder), os.path.realpath(root)
    return os.path.commonpath([target, top]) in (target, top)


def _remote_files(root: str) -> list[str]:
    import fsspec  # which needs the package of the store, such as gcsfs

    system, path = fsspec.core.url_to_fs(root)
    below_root = (found.removeprefix(path).lstrip('/') for found in system.find(path))
    return [name for name in below_root if not any(part.startswith('.') for part in name.split('/'))]
