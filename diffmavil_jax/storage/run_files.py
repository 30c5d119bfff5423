"""Where a process writes the small files of a run: metrics, events, reports, lists of clips.

In a file system, that is the directory of the run. A bucket only keeps whole objects: there, a process writes
to a folder of this machine, and its files are copied to the bucket now and then, each whole.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from absl import logging

from diffmavil_jax.storage.buckets import as_os_errors
from diffmavil_jax.storage.paths import is_remote

# How long a copy is waited for: before a checkpoint and at the end, when a notice of preemption may leave
# half a minute; and where nothing else is left to do.
SOON_S = 5.0
PATIENT_S = 300.0

_EVERY_S = 60.0
_SHARE_OF_TIME = 0.05  # the most of it that copying takes, where files are large
_PAUSES_S = (0.0, 1.0, 5.0)  # before each attempt


class StorageError(RuntimeError):
    """A bucket does not give or take a file that the run can't do without: says which and why."""


class RunFiles(Protocol):
    """The files that a process writes.

    Attributes:
        path: the folder that they are written to.
    """

    path: pathlib.Path

    def begin(self, names: Sequence[str]) -> None:
        """Call it when the directory is held, before anything is written; see `Copied.begin`."""
        ...

    def shown(self, path: pathlib.Path) -> pathlib.Path:
        """Where a file below `path` will be found when the run has ended."""
        ...

    def keep(self, within_s: float) -> str:
        """Puts what was written so far where it is kept; returns why that failed, or an empty text."""
        ...


class InPlace:
    """Files that are written where they are kept.

    Args:
        path: the directory of the run.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def begin(self, names: Sequence[str]) -> None:
        """Has nothing to do."""
        del names

    def shown(self, path: pathlib.Path) -> pathlib.Path:
        """The file's own path."""
        return path

    def keep(self, within_s: float) -> str:
        """Has nothing to do."""
        del within_s
        return ''


class Copied:
    """Files that are written to a folder of this machine, and copied into a bucket by a thread.

    Args:
        root: the directory in the bucket.
        say: takes lines: that some file could not be copied, and that all could be again.
    """

    def __init__(self, root: pathlib.Path, say: Callable[[str], None]) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='diffmavil_run_'))
        self._root, self._say = root, say
        self._copied: dict[pathlib.Path, tuple[int, int]] = {}
        self._failure = ''
        self._wanted, self._done, self._took_s, self._closed = 0, 0, 0.0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True, name='copy to bucket')

    def begin(self, names: Sequence[str]) -> None:
        """Gets the files of earlier starts that this one adds to; from now on, files are copied.

        Args:
            names: of files directly in the directory, which need not be there.

        Raises:
            StorageError: a file that is there can't be read. Going on would replace it with a shorter one.
        """
        for name in names:
            data = self._fetched(name)
            if data is not None:
                (self.path / name).write_bytes(data)
                self._copied[self.path / name] = _state(self.path / name)
        self._thread.start()

    def shown(self, path: pathlib.Path) -> pathlib.Path:
        """The file's path in the bucket."""
        return self._root / path.relative_to(self.path).as_posix()

    def keep(self, within_s: float) -> str:
        """Copies what has changed, each file whole.

        A failure ends no run: the files are copied again at the next call, and each minute.

        Args:
            within_s: how long this waits at most; the copying goes on after that.

        Returns:
            Why it failed, or an empty text.
        """
        with self._changed:
            self._wanted += 1
            number = self._wanted
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._done >= number, within_s):
                return f'{self._root} has not taken them within {within_s:.0f} s'
            return self._failure

    def close(self) -> None:
        """Copies the rest, and removes the folder, which stays and is named if a file can't be copied."""
        if not self._thread.is_alive():  # never begun
            shutil.rmtree(self.path, ignore_errors=True)
            return
        failure = self.keep(SOON_S)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if failure:
            self._say(f'Not all files of the run are in the bucket ({failure}); they are in {self.path}.')
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def _fetched(self, name: str) -> bytes | None:
        for pause in _PAUSES_S:
            time.sleep(pause)
            try:
                with as_os_errors():
                    return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                reason = str(error)
        raise StorageError(f'{self._root / name} can not be read ({reason}); the same command tries again.')

    def _work(self) -> None:
        while True:
            with self._changed:
                pause = max(_EVERY_S, self._took_s / _SHARE_OF_TIME)
                self._changed.wait_for(lambda: self._closed or self._wanted > self._done, pause)
                if self._closed:
                    return
                number = self._wanted
            begin = time.monotonic()
            failure = self._copy()
            with self._changed:
                self._done, self._took_s = number, time.monotonic() - begin
                self._tell(failure)
                self._failure = failure
                self._changed.notify_all()

    def _tell(self, failure: str) -> None:
        if failure and not self._failure:
            logging.warning('Files of the run could not be copied; it is tried again: %s', failure)
        elif self._failure and not failure:
            self._say(f'The files of the run are in {self._root} again.')

    def _copy(self) -> str:
        """Copies the files that have changed; returns why the first of those that failed did."""
        waiting, failure = self._files(), ''
        for pause in _PAUSES_S:
            time.sleep(pause if waiting else 0.0)
            failed = []
            for path in waiting:
                reason = self._copy_one(path)
                if reason:
                    failed.append(path)
                    failure = failure or reason
            waiting = failed
        return failure if waiting else ''

    def _copy_one(self, path: pathlib.Path) -> str:
        try:
            state = _state(path)
            if self._copied.get(path) != state:
                data = path.read_bytes()
                with as_os_errors():
                    self.shown(path).write_bytes(data)
                self._copied[path] = state
        except FileNotFoundError:
            if path.exists():
                return f'{self.shown(path)}: there is no such bucket'
        except OSError as error:
            return f'{self.shown(path)}: {str(error)[:300]}'
        return ''

    def _files(self) -> list[pathlib.Path]:
        """Those that are whole; in this order, a kill in between leaves events twice, but loses none.

        A page of a report comes last: where it is, the report is complete.
        """
        found = [
            path
            for path in sorted(self.path.rglob('*'))
            if not path.name.startswith('.draft-') and path.is_file()
        ]
        order = {'metrics.jsonl': 1, 'index.html': 2}
        return sorted(found, key=lambda path: order.get(path.name, 0))


@contextlib.contextmanager
def run_files(root: pathlib.Path, say: Callable[[str], None]) -> Iterator[RunFiles]:
    """The files of a run until the end of the block.

    Args:
        root: the directory of the run, which may be in a bucket.
        say: see `Copied`.
    """
    if not is_remote(root):
        yield InPlace(root)
        return
    files = Copied(root, say)
    try:
        yield files
    finally:
        files.close()


def _state(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
