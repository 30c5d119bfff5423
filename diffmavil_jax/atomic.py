"""Files that are written whole or not at all, and directories that make way for new ones."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
from etils import epath


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, overwrite: bool = True) -> Iterator[pathlib.Path]:
    """Yields a path to write a file to; at the end of the block the file replaces `path` in one step.

    Where the block raises or the process is killed, `path` stays as it was. The file gets the mode that
    `open` would give it.

    Args:
        path: in a directory that exists, or in a bucket (an `epath.Path`), which only keeps whole files.
        overwrite: whether a file that is there is replaced.

    Raises:
        FileExistsError: at the end, if there is a file by then that may not be replaced.
    """
    if '://' in str(path):
        with tempfile.TemporaryDirectory() as folder:
            draft = epath.Path(folder) / path.name
            yield draft
            if not overwrite and path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
            draft.copy(path, overwrite=True)
        return
    # Beside it, because a file can only be renamed within a file system. The name is new for each writer,
    # and short: `path.name` may be as long as a name can be.
    draft = path.with_name(f'.draft-{uuid.uuid4().hex}')
    try:
        yield draft
        with open(draft, 'rb+') as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(draft, path)
        else:
            _name(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a file a name that must be free; renaming would replace what has it."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path)) from None
        os.replace(draft, path)


def write_bytes(path: pathlib.Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file in one step; see `replacing`."""
    with replacing(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text as UTF-8 in one step; see `replacing`.

    Surrogates, which stand for the bytes of a file name that is not UTF-8, are escaped.
    """
    write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON in one step; see `replacing`."""
    write_text(path, json.dumps(value, indent=2) + '\n')


def set_aside(root: pathlib.Path) -> pathlib.Path:
    """Renames a directory to a sibling `NAME.old-1`, or the next free number; returns its new path.

    In a bucket all objects are copied, and then removed: a kill in between leaves the directory there too,
    or what is left of it, with the config of its run.
    """
    number = 1
    while _is_there(target := root.with_name(f'{root.name}.old-{number}')):
        number += 1
    if '://' not in str(root):
        return root.rename(target)
    files, source = fsspec.core.url_to_fs(os.fspath(root))
    files.copy(source, files._strip_protocol(os.fspath(target)), recursive=True)
    others = [name for name in files.find(source) if not name.endswith('/config.json')]
    if others:
        files.rm(others)
    with contextlib.suppress(FileNotFoundError):  # nothing was left
        files.rm(source, recursive=True)
    return target


def _is_there(path: pathlib.Path) -> bool:
    return path.exists() if '://' in str(path) else os.path.lexists(path)
