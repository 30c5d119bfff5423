"""Where a command may write: never over what it reads, and over what is there only when asked to."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from diffmavil_jax.atomic import set_aside
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage import lock
from diffmavil_jax.storage.paths import is_remote, local_path, open_path

Path = str | os.PathLike[str]

RUN_LOCK = 'run.lock'  # in the directory of a run, while the run goes on


def check_files(paths: Iterable[Path], *, inputs: Iterable[Path], overwrite: bool, flag: str) -> None:
    """Checks files before anything is read or computed for them.

    Args:
        paths: of the files that will be written.
        inputs: what the command reads, which no output may replace.
        overwrite: whether files that are there may be replaced.
        flag: what the user gave for the outputs, such as `--output=DIR`, for messages.

    Raises:
        ConfigError: an output is an input, under this name or another, or it is there already.
    """
    there = [os.fspath(path) for path in paths if os.path.lexists(path)]
    if not there:
        return
    read = {mark for path in inputs for mark in _marks(path)}
    for path in there:
        if read.intersection(_marks(path)):
            raise ConfigError(f'{flag}: {path} is an input, and no output replaces one; give another.')
        if os.path.isdir(path):
            raise ConfigError(f'{flag}: {path} is a folder, and must be a file or not there yet.')
    if not overwrite:
        more = f' (and {len(there) - 1:,} more)' if len(there) > 1 else ''
        raise ConfigError(
            f'{flag}: {there[0]}{more} is there already; give another, or --overwrite to replace it.'
        )


@dataclasses.dataclass(frozen=True)
class OutputDirectory:
    """A directory that a command fills.

    Attributes:
        path: as the user gave it with `--output`.
        inputs: what the command reads, which may not be moved away with the directory.
        overwrite: whether what is in the directory may be moved to a sibling.
    """

    path: Path
    inputs: Sequence[Path]
    overwrite: bool

    @property
    def _root(self) -> pathlib.Path:
        return local_path(self.path, f'--output={self.path}')

    def check(self) -> None:
        """Checks it before anything is read or computed.

        Raises:
            ConfigError: it is an input or holds one, it is not empty, or a run is at work in it.
        """
        flag = f'--output={self.path}'
        try:
            if not self._is_used():
                return
        except OSError as error:
            raise ConfigError(f'{flag}: must be a directory that can be read ({error.strerror}).') from None
        for held in held_inputs(self._root, self.inputs):
            raise ConfigError(f'{flag}: is, or holds, the input {held}; give another.')
        if not self.overwrite:
            raise ConfigError(
                f'{flag}: is not empty; give another, or --overwrite to keep the old one aside.'
            )
        lock.check_free(self._root / RUN_LOCK, f'{flag}: is in use')

    def open(self) -> pathlib.Path:
        """Makes it; with `overwrite`, what is there is first moved to a sibling directory.

        Raises:
            ConfigError: see `check`; or it can't be written.
        """
        self.check()
        try:
            if self._is_used():
                set_aside(self._root)
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f'--output={self.path}: must be a directory that can be written ({error.strerror}).'
            ) from None
        return self._root

    def _is_used(self) -> bool:
        root = self._root
        return os.path.lexists(root) and (not root.is_dir() or any(root.iterdir()))


def held_inputs(root: Path, inputs: Iterable[Path]) -> Iterator[str]:
    """The inputs that are the directory, or are below it, under these names or others."""
    folder = _marks(root)
    for path in (os.fspath(path) for path in inputs if os.fspath(path)):
        if is_remote(path):
            if f'{path.rstrip("/")}/'.startswith(f'{os.fspath(root).rstrip("/")}/'):
                yield path
            continue
        real = pathlib.Path(os.path.realpath(open_path(path)))
        if real.exists() and any(folder.intersection(_marks(place)) for place in (real, *real.parents)):
            yield path


def _marks(path: Path) -> set[object]:
    """What tells a file or directory, whatever it is called: its real path and, if it is there, its inode."""
    if is_remote(path):
        return {os.fspath(path)}
    real = os.path.realpath(open_path(path))
    try:
        status = os.stat(real)
    except OSError:
        return {real}
    return {real, (status.st_dev, status.st_ino)}
