"""Files that are written whole or not at all, and directories that make way for new ones."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write a file to; at the end of the block the file replaces `path` in one step.

    Where the block raises or the process is killed, `path` stays as it was. The file gets the mode that
    `open` would give it.

    Args:
        path: in a directory that exists, or in a bucket (an `epath.Path`), which only keeps whole files.
    """
    if '://' in str(path):
        with tempfile.TemporaryDirectory() as folder:
            draft = epath.Path(folder) / path.name
            yield draft
            draft.copy(path, overwrite=True)
        return
    # Beside it, because a file can only be renamed within a file system. The name is new for each writer,
    # and short: `path.name` may be as long as a name can be.
    draft = path.with_name(f'.draft-{uuid.uuid4().hex}')
    try:
        yield draft
        with open(draft, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file in one step; see `replacing`."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text as UTF-8 in one step; see `replacing`.

    Surrogates, which stand for the bytes of a file name that is not UTF-8, are escaped.
    """
    write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as indented JSON in one step; see `replacing`."""
    write_text(path, json.dumps(value, indent=2) + '\n')


def set_aside(root: pathlib.Path) -> None:
    """Renames a directory to a sibling `NAME.old-1`, or the next number that is free."""
    number = 1
    while (target := root.with_name(f'{root.name}.old-{number}')).exists():
        number += 1
    root.rename(target)
