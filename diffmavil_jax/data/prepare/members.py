"""Takes media files out of shards, one at a time, into a temporary folder."""

from __future__ import annotations

import contextlib
import errno
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.shards import parquets, tars
from diffmavil_jax.data.shards.inside import Inside
from diffmavil_jax.data.shards.opening import READ_AHEAD, below

TakeOut = Callable[[Inside], pathlib.Path]

_CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Members:
    """Takes media out of the shards of one input. The shard that was read last stays open."""

    def __init__(self, root: str, pool: DecodePool) -> None:
        """Opens nothing yet.

        Args:
            root: the folder of the shards.
            pool: reads Parquet, which is no more trusted than media.
        """
        self._root, self._pool = root, pool
        self._shard: str | None = None
        self._opened = contextlib.ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Members:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @contextlib.contextmanager
    def taking_out(self) -> Iterator[TakeOut]:
        """Gives a function that takes a file out of its shard; the files are gone at the end of the block.

        The function raises a MediaError or an OSError if the shard can't be read there, and a DataError if
        the disk is full.
        """
        with contextlib.ExitStack() as folder:
            paths: list[pathlib.Path] = []

            def take_out(inside: Inside) -> pathlib.Path:
                if not paths:
                    paths.append(pathlib.Path(folder.enter_context(tempfile.TemporaryDirectory())))
                path = paths[0] / str(next(self._numbers))
                try:
                    if inside.column:
                        self._copy_row(inside, path)
                    else:
                        self._copy_member(inside, path)
                except (*tars.BROKEN, parquets.ParquetError) as error:
                    self._close()
                    raise media.MediaError(f'unreadable: {inside.shard}: {error}') from error
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    raise DataError(
                        f'{paths[0].parent} is full: it must have room for a recording of each worker. Make '
                        'room, or set TMPDIR to another folder, and run the same command again.'
                    ) from error
                return path

            yield take_out

    def _copy_member(self, inside: Inside, path: pathlib.Path) -> None:
        tar = self._tar(inside.shard)
        tar.seek(inside.begin)
        with open(path, 'wb') as file:
            left = inside.size
            while left and (chunk := tar.read(min(left, _CHUNK_BYTES))):
                file.write(chunk)
                left -= len(chunk)
        if left:
            raise tars.TarError('is cut off')

    def _copy_row(self, inside: Inside, path: pathlib.Path) -> None:
        url = below(self._root, inside.shard)
        while not self._pool.call(parquets.take_out, url, inside.column, inside.begin, str(path)):
            pass

    def _tar(self, shard: str) -> BinaryIO:
        if self._shard != shard:
            self._close()
            self._file = self._opened.enter_context(tars.open_tar(below(self._root, shard), READ_AHEAD))
            self._shard = shard
        return self._file

    def _close(self) -> None:
        self._shard = None
        self._opened.close()
