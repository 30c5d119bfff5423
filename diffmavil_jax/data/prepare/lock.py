"""A lock that keeps two runs from making the same dataset at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from typing import TextIO

from etils import epath

from diffmavil_jax.data.clip import DataError


@contextlib.contextmanager
def locked(path: epath.Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a file. The lock ends with the process, however that ends.

    Args:
        path: of the file. It is removed at the end, and so is its folder if that is empty.
        what: name of what is locked, for messages.
        say: takes a warning if the file can't be locked; the block then runs without a lock.

    Raises:
        DataError: another run holds the lock.
    """
    try:
        if '://' in str(path):
            raise OSError('it is remote')
        file = _lock(path, what)
    except OSError as error:
        say(f"{what} can't be locked ({error}): make sure that no other run prepares it at the same time")
        yield
        return
    with file:
        file.truncate(0)
        print(f'process {os.getpid()} on {socket.gethostname()}', file=file, flush=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.rmdir(path.parent)


def _lock(path: epath.Path, what: str) -> TextIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, 'a+', encoding='utf-8'))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or 'which has just begun'
                raise DataError(
                    f'{what} is being prepared by another run, {owner}: wait for it, or choose another '
                    '--name or --output.'
                ) from None
            # If its last owner removed the file after it was opened here, the lock is useless: try again.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                stack.pop_all()
                return file
