"""Reads tars as streams: which files are in them, and the bytes of one."""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, cast

from diffmavil_jax.data.shards.opening import open_file

SUFFIXES = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')

_COMPRESSED: Mapping[bytes, Callable[..., Any]] = {
    b'\x1f\x8b': gzip.open,
    b'BZh': bz2.open,
    b'\xfd7zXZ\x00': lzma.open,
}
_BLOCK = tarfile.BLOCKSIZE
_AFTER_BYTES = 1 << 20  # what is looked at after the end of an archive


class TarError(ValueError):
    """A tar that can't be read from some place on; the message says why and where."""


# What is raised where a tar is damaged.
BROKEN = (TarError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar.

    Attributes:
        name: as the tar has it, with slashes.
        begin: of its bytes in the tar after decompression.
        size: in bytes.
        is_file: False for a link or a device.
        data: its bytes, if they were asked for.
    """

    name: str
    begin: int
    size: int
    is_file: bool
    data: bytes | None = None


@contextlib.contextmanager
def open_tar(url: str, read_ahead: int) -> Iterator[BinaryIO]:
    """The bytes of a tar, decompressed if they are compressed with gzip, bzip2 or xz.

    Args:
        url: of the tar.
        read_ahead: how many bytes are fetched at once from a bucket.

    Raises:
        OSError: it can't be read.
        TarError: it is compressed in another way.
    """
    with open_file(url, read_ahead) as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b'\x28\xb5\x2f\xfd'):
            raise TarError('is compressed with Zstandard: decompress it first, zstd -d')
        opener = next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)
        if opener is None:
            yield file
        else:
            with opener(file) as plain:
                yield cast(BinaryIO, plain)


def members(file: BinaryIO, wanted: Callable[[str, int], bool]) -> Iterator[Member]:
    """The files in a tar, in order, with the bytes of some. Folders are left out. Never reads backwards.

    Args:
        file: the tar, at its beginning.
        wanted: whether the bytes of a file are wanted, by its name and its size.

    Raises:
        OSError: it can't be read.
        TarError: after the files before it: the tar is cut off or damaged, goes on after its end, or is none.
    """
    last, remembering = '', _Remembering(file)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, remembering), mode='r:') as tar:
            while (found := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep all of them
                data = None
                is_file = found.isreg() and not found.issparse()
                if is_file and wanted(found.name, found.size):
                    file.seek(found.offset_data)
                    data = file.read(found.size)
                if is_file and not _reaches(file, found.offset_data + found.size):
                    raise TarError(f'is cut off in {found.name}')
                last = found.name
                if not found.isdir():
                    yield Member(found.name, found.offset_data, found.size, is_file, data)
        _check_end(remembering.block, file.read(_AFTER_BYTES), last)
    except TarError:
        raise
    except BROKEN as error:
        where = f'after {last}' if last else 'at its beginning'
        raise TarError(f'is no tar, or is cut off or damaged, {where} ({error})') from error


def _reaches(file: BinaryIO, end: int) -> bool:
    """Whether a file has so many bytes."""
    if end <= file.tell():
        return True
    file.seek(end - 1)
    return len(file.read(1)) == 1


class _Remembering:
    """A file that remembers what was read last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.block = file, b''
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        self.block = self._file.read(size)
        return self.block


def _check_end(block: bytes, rest: bytes, last: str) -> None:
    """Checks that an archive ends where tarfile stopped reading it.

    Args:
        block: what tarfile read last, which must be a block of zeros.
        rest: what follows, which must be zeros.
        last: the last file before that.

    Raises:
        TarError: it does not.
    """
    if len(block) < _BLOCK:
        raise TarError(f'is cut off, or has no mark of its end, after {last}')
    if block.strip(b'\0'):
        raise TarError(f'is damaged after {last}')
    if rest.strip(b'\0'):
        raise TarError(f'goes on with something else after its end, after {last}')
