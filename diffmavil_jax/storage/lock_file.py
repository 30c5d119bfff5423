"""A lock as a file, which appears with its whole text and whose time tells the newest sign of life."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from diffmavil_jax.storage import owner
from diffmavil_jax.storage.owner import Owner, Seen


class LockFile:
    """A lock in a file system, which may be one that several hosts share.

    Args:
        path: of the lock, whose folder exists.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @staticmethod
    def make_owner() -> Owner:
        """This process as the owner of a lock."""
        return Owner.here()

    def read(self) -> Seen | None:
        """The lock; None if there is none."""
        try:
            # Opened anew each time: only then does a network file system show what others wrote.
            with open(self.path, encoding='utf-8', errors='replace') as file:
                text, sign = file.read(), os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Seen(owner.read(text)[0], sign)

    def create(self, mine: Owner) -> bool:
        """Writes a lock where none is; returns whether it did. It appears with its whole text."""
        with self._drafted(mine) as draft:
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                try:
                    with open(self.path, 'x', encoding='utf-8') as file:
                        file.write(draft.read_text(encoding='utf-8'))
                except FileExistsError:
                    return False
        return True

    def replace(self, seen: Seen, mine: Owner) -> bool:
        """Writes a lock over one whose owner has ended; returns False if another process was faster."""
        with self._one_at_a_time(), self._drafted(mine) as draft:
            if self.read() != seen:
                return False
            os.replace(draft, self.path)
            return True

    def restore(self, mine: Owner) -> None:
        """Writes the lock again, which somebody removed by hand; not if its folder is gone as well."""
        if self.path.parent.exists():
            self.create(mine)

    def give_sign(self, mine: Owner) -> None:
        """Shows that the owner is alive."""
        del mine
        os.utime(self.path)

    def remove(self) -> None:
        """Removes the lock."""
        self.path.unlink()

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Lets one process at a time into the block, where the file system can tell."""
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _drafted(self, mine: Owner) -> Iterator[pathlib.Path]:
        """A lock under another name, which is gone after the block."""
        draft = self.path.with_name(f'.{self.path.name}-{mine.token}')
        try:
            draft.write_text(owner.written(mine), encoding='utf-8')
            yield draft
        finally:
            draft.unlink(missing_ok=True)
