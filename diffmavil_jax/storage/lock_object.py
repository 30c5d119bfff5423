"""A lock as an object in a bucket, which is written whole each time and says when its owner lived."""

from __future__ import annotations

import pathlib
import time

from diffmavil_jax.storage import owner
from diffmavil_jax.storage.buckets import as_os_errors, file_system
from diffmavil_jax.storage.owner import Owner, Seen

# A write takes less: of several that write over a lock at once, only the last finds its own text there.
SETTLED_AFTER_S = 3.0


class LockObject:
    """A lock in a bucket.

    A bucket writes an object only where none is, if asked to, but can't compare and write in one step. So
    who takes a lock over writes, waits, and looks whether it is still there.

    Args:
        path: of the lock.

    Raises:
        OSError: the bucket can't be reached; so do the methods.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._files, self._key = file_system(path)

    @staticmethod
    def make_owner() -> Owner:
        """This process as the owner of a lock."""
        return Owner.anywhere()

    def read(self) -> Seen | None:
        """The lock; None if there is none."""
        try:
            with as_os_errors():
                text = self._files.cat_file(self._key).decode('utf-8', 'replace')
        except FileNotFoundError:
            return None
        who, fields = owner.read(text)
        return Seen(who, fields.get('sign', 0.0))

    def create(self, mine: Owner) -> bool:
        """Writes a lock where none is; returns whether it did."""
        try:
            self._write(mine, mode='create')
        except FileExistsError:
            seen = self.read()  # an answer may get lost, and a second request then finds the first one's lock
            return seen is not None and seen.is_of(mine)
        return True

    def replace(self, seen: Seen, mine: Owner) -> bool:
        """Writes a lock over one whose owner has ended; returns False if another process was faster."""
        if self.read() != seen:
            return False
        self._write(mine)
        time.sleep(SETTLED_AFTER_S)
        now = self.read()
        return now is not None and now.is_of(mine)

    def restore(self, mine: Owner) -> None:
        """Writes the lock again, which somebody removed by hand."""
        self.create(mine)

    def give_sign(self, mine: Owner) -> None:
        """Shows that the owner is alive."""
        self._write(mine)

    def remove(self) -> None:
        """Removes the lock."""
        with as_os_errors():
            self._files.rm_file(self._key)

    def _write(self, mine: Owner, mode: str = 'overwrite') -> None:
        with as_os_errors():
            self._files.pipe_file(self._key, owner.written(mine, sign=time.time()).encode(), mode=mode)
