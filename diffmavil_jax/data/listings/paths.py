"""The files below a folder, and the paths that lists name them by."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NoReturn

from etils import epath

from diffmavil_jax.data.clip import DataError, printable

_NAMED = 5  # folders in an error


def files(root: epath.Path) -> list[str]:
    """All files below a folder except hidden ones, with slashes, sorted.

    Links to folders are followed, unless they lead to a part of the folder or to a folder around it: a file
    with two names would count as two files.

    Raises:
        DataError: it is not a folder, or a folder below it can't be read.
    """
    found, unreadable = readable_files(root)
    if unreadable:
        named = '; '.join(f'{folder}: {reason}' for folder, reason in unreadable[:_NAMED])
        raise DataError(
            f"{len(unreadable)} folders can't be read: {named}. Allow it, or move them out of "
            f'{printable(str(root))}.'
        )
    return found


def readable_files(root: epath.Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Like `files`; also the paths of folders that can't be read, each with the reason.

    Raises:
        DataError: it is not a folder.
    """
    if '://' in str(root):
        return sorted(_remote_files(str(root))), []
    if not os.path.isdir(root):
        raise DataError(f'--input={printable(str(root))} is not a folder.')
    found: list[str] = []
    unreadable: list[tuple[str, str]] = []

    def refuse(error: OSError) -> None:
        unreadable.append((printable(os.fspath(error.filename)), error.strerror or str(error)))

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        here = pathlib.Path(folder)
        subfolders[:] = [
            name for name in subfolders if not name.startswith('.') and not _leads_back(here / name, root)
        ]
        prefix = here.relative_to(root)
        found += [(prefix / name).as_posix() for name in names if not name.startswith('.')]
    return sorted(found), sorted(unreadable)


@contextlib.contextmanager
def said(root: epath.Path) -> Iterator[None]:
    """Says which file or folder can't be read.

    Raises:
        DataError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        name = printable(os.fsdecode(error.filename or str(root)))
        raise DataError(f"{name} can't be read: {error.strerror or error}.") from error


def same_name(text: str) -> str:
    """The form in which two spellings of a name with the same characters are equal (Unicode NFC)."""
    return unicodedata.normalize('NFC', text)


class Paths:
    """Finds the files that a list names, however the paths are written."""

    def __init__(self, root: epath.Path) -> None:
        """Reads nothing yet.

        Args:
            root: the input folder.
        """
        self._root = root
        # A relative one would be taken for a sub-folder of the same name.
        tops = [str(root)] if '://' in str(root) else [os.path.abspath(root), os.path.realpath(root)]
        self._tops = [f'{top.rstrip("/")}/' for top in tops]
        self._names = functools.cache(self._names_in)

    def below(self, where: str, text: str) -> str:
        """The path below the input folder of the file that a list names, as the disk writes it.

        It may be absolute, have `./` or backslashes, or be in another Unicode form than on the disk. A path
        without a file is kept, with single slashes.

        Args:
            where: the place in the list, for messages.
            text: as it is in the list.

        Raises:
            DataError: it leads out of the input folder, or names no file.
        """
        spellings = dict.fromkeys([text, text.strip(), text.strip().replace('\\', '/')])
        found = [self._found(path) for path in map(self._relative, spellings) if path is not None]
        there = next((path for path, exists in found if exists), None)
        if there is not None:
            return there
        # The last spelling has no backslashes: none may hide a way out of the folder.
        path = self._relative(text.strip().replace('\\', '/'))
        if path is None:
            _refuse(where, text)
        return path

    def _relative(self, text: str) -> str | None:
        """A path with single slashes and without `./`; None if it is not below the input folder."""
        top = next((top for top in self._tops if text.startswith(top)), '')
        text = text.removeprefix(top)
        path = pathlib.PurePosixPath(text)
        elsewhere = path.is_absolute() or '..' in path.parts or path.parts[:1] and path.parts[0].endswith(':')
        return None if elsewhere or not path.name or '\0' in text else path.as_posix()

    def _found(self, path: str) -> tuple[str, bool]:
        """The path as the disk writes it, and whether it is there."""
        if '://' in str(self._root):
            return path, False
        parts: list[str] = []
        for part in path.split('/'):
            names = self._names('/'.join(parts))
            there = names.get(part, names.get(same_name(part)))
            if there is None:
                return path, False
            parts.append(there)
        return '/'.join(parts), True

    def _names_in(self, folder: str) -> dict[str, str]:
        """The names in a folder, by themselves and by their normal form."""
        try:
            names = os.listdir(self._root / folder)
        except OSError:
            return {}
        return {same_name(name): name for name in names} | {name: name for name in names}


def check_apart(files_by_split: Sequence[tuple[str, str, str]]) -> None:
    """Checks that no file is in two splits.

    Args:
        files_by_split: the place in the list, the file and the split of each row.

    Raises:
        DataError: a file is.
    """
    splits: dict[str, tuple[str, str]] = {}
    for where, file, split in files_by_split:
        first, other = splits.setdefault(same_name(file), (split, where))
        if first != split:
            raise DataError(
                f'{where}: {printable(file)} is in {first} too ({other}): a file belongs to one split.'
            )


def _refuse(where: str, text: str) -> NoReturn:
    raise DataError(f'{where}: path = {text!r}: must be below the input folder.')


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
