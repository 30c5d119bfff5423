"""Finds where a second recording begins in a file that was glued from several, as by `cat a.ts b.ts`.

FFmpeg reads such a file in one way from the beginning and in another after a seek, and most formats hide all
but the first recording. So only the first one is read, and what follows is reported.
"""

from __future__ import annotations

import functools
import io
import mmap
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

# Formats without an index are read whole to find out, up to this size. Of larger ones a part is read.
_WHOLE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20
_SAMPLED = 8  # of a larger transport stream every so many chunks are read
_BACK = 90_000  # a clock that goes back this far, one second at 90 kHz, begins again
_CLOCK = 1 << 33  # where that clock wraps around

# How a recording of a format begins, for formats whose headers do not say where it ends.
_BEGINNINGS = {
    b'fLaC': re.compile(rb'fLaC[\x00\x80]\x00\x00\x22', re.DOTALL),
    b'FLV\x01': re.compile(rb'FLV\x01[\x00-\x05]\x00\x00\x00\x09\x00\x00\x00\x00', re.DOTALL),
    b'0&\xb2u': re.compile(rb'0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel', re.DOTALL),  # ASF
    b'DKIF': re.compile(rb'DKIF\x00\x00\x20\x00', re.DOTALL),  # IVF
    b'caff': re.compile(rb'caff\x00\x01\x00\x00desc', re.DOTALL),
    b'nut/': re.compile(rb'nut/multimedia container\x00', re.DOTALL),
}
_EBML = b'\x1a\x45\xdf\xa3'
_MATROSKA = re.compile(_EBML + rb'.{1,60}?(?:matroska|webm)', re.DOTALL)
_PACK = re.compile(rb'\x00\x00\x01\xba(.{5})', re.DOTALL)
_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot')


def end_of_first(source: str | os.PathLike[str] | bytes) -> int | None:
    """Where the second recording of a file begins, in bytes; None: the file has one recording.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        OSError: the file can't be read.
    """
    if isinstance(source, bytes):
        return _second(io.BytesIO(source), source)
    status = os.stat(source)
    return _of_path(os.fspath(source), status.st_size, status.st_mtime_ns)


class FirstPart(io.RawIOBase):
    """The first bytes of a file, as a file."""

    def __init__(self, file: BinaryIO | io.FileIO, end: int) -> None:
        self._file, self._end = file, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(max(0, min(len(buffer), self._end - self._file.tell())))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._end + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@functools.lru_cache(maxsize=4096)
def _of_path(path: str, size: int, changed_ns: int) -> int | None:
    del changed_ns  # a file that was changed is looked at again
    if not size:
        return None
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _second(file, mapped)


def _second(file: BinaryIO, data: bytes | mmap.mmap) -> int | None:
    head = data[:12]
    if head[:4] == b'OggS':
        return _in_ogg(file)
    if head[:4] in (b'RIFF', b'FORM'):
        return _in_riff(file, head)
    if head[:4] == _EBML:
        return _in_matroska(data)
    if head[4:8] in _BOXES:
        return _in_boxes(file)
    if head[:4] == b'\x00\x00\x01\xba':
        return _in_program_stream(data)
    if head[:4] in _BEGINNINGS:
        return _found(_BEGINNINGS[head[:4]], data, 4)
    layout = _packet_layout(data)
    return None if layout is None else _in_transport_stream(data, *layout)


def _found(pattern: re.Pattern[bytes], data: bytes | mmap.mmap, begin: int) -> int | None:
    match = pattern.search(data, begin) if len(data) <= _WHOLE_BYTES else None
    return match.start() if match else None


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _in_ogg(file: BinaryIO) -> int | None:
    """The first page that begins a stream after a page that does not: chained streams."""
    position, begun = 0, False
    while (page := _at(file, position, 27))[:4] == b'OggS' and len(page) == 27:
        begins = bool(page[5] & 2)
        if begins and begun:
            return position
        begun |= not begins
        position += 27 + page[26] + sum(file.read(page[26]))
    return None


def _in_riff(file: BinaryIO, head: bytes) -> int | None:
    """A second RIFF or FORM of the same kind. AVI goes on in a RIFF of another kind, AVIX."""
    order: str = 'little' if head[:4] == b'RIFF' else 'big'
    chunk, position = head, 0
    while len(chunk) == 12 and chunk[:4] == head[:4]:
        if position and chunk[8:] == head[8:]:
            return position
        size = int.from_bytes(chunk[4:8], order)  # type: ignore[arg-type]
        position += 8 + size + size % 2
        chunk = _at(file, position, 12)
    return None


def _in_boxes(file: BinaryIO) -> int | None:
    """A second `ftyp`, or a second `moov`, of an MP4 or QuickTime file."""
    position, seen = 0, set()
    while len(box := _at(file, position, 16)) >= 8:
        size, kind = int.from_bytes(box[:4], 'big'), box[4:8]
        if kind in seen:
            return position
        seen |= {kind} & {b'ftyp', b'moov'}
        size = int.from_bytes(box[8:16], 'big') if size == 1 else size
        if size < 8:
            return None
        position += size
    return None


def _in_matroska(data: bytes | mmap.mmap) -> int | None:
    """A second EBML header, after the segment of the first if that states its size."""
    position = 0
    for width in (4, 4):  # the ids of the header and of the segment
        position, size = _ebml_size(data, position + width)
        if size is None:
            return _found(_MATROSKA, data, position)
        position += size
    return position if data[position : position + 4] == _EBML else None


def _ebml_size(data: bytes | mmap.mmap, position: int) -> tuple[int, int | None]:
    """The position after a size in EBML, and the size; None: it is not stated."""
    first = data[position : position + 1]
    if not first or not first[0]:
        return position, None
    length = 9 - first[0].bit_length()
    size = int.from_bytes(data[position : position + length], 'big') & ((1 << 7 * length) - 1)
    return position + length, None if size == (1 << 7 * length) - 1 else size


def _in_program_stream(data: bytes | mmap.mmap) -> int | None:
    """The first pack whose clock is earlier than that of the pack before it."""
    if len(data) > _WHOLE_BYTES:
        return None
    before = None
    for pack in _PACK.finditer(data):
        a, b, c, d, e = pack[1]
        if a >> 6 == 1:  # MPEG-2
            clock = (a & 0x38) << 27 | (a & 3) << 28 | b << 20 | (c & 0xF8) << 12 | (c & 3) << 13
            clock |= d << 5 | e >> 3
        elif a >> 4 == 2:  # MPEG-1
            clock = (a & 0x0E) << 29 | b << 22 | (c & 0xFE) << 14 | d << 7 | e >> 1
        else:
            continue
        if before is not None and _goes_back(before, clock):
            return pack.start()
        before = clock
    return None


def _goes_back(before: int, clock: int) -> bool:
    """Whether a clock of 33 bits goes back by a second or more, other than by wrapping around."""
    return _BACK <= (before - clock) % _CLOCK < _CLOCK // 2


def _packet_layout(data: bytes | mmap.mmap) -> tuple[int, int] | None:
    """Where the first packet of a transport stream begins, and how long packets are."""
    for size in (188, 192, 204):
        offset = size - 188 if size == 192 else 0
        syncs = data[offset : offset + 5 * size : size]
        if len(syncs) >= 2 and set(syncs) == {0x47}:
            return offset, size
    return None


def _in_transport_stream(data: bytes | mmap.mmap, offset: int, size: int) -> int | None:
    """The first packet after a clock of some program went back."""
    stride = 1 if len(data) <= _WHOLE_BYTES else _SAMPLED
    before: dict[int, int] = {}  # by program
    previous = offset
    for begin, end in _chunks(data, offset, size, stride):
        earlier = before.copy()
        found = _clock_back(data, begin, end, size, before)
        if found is not None:
            skipped = _clock_back(data, previous, begin, size, earlier) if previous < begin else None
            return found if skipped is None else skipped
        previous = end
    return None


def _chunks(data: bytes | mmap.mmap, begin: int, size: int, stride: int) -> Iterator[tuple[int, int]]:
    """Stretches of whole packets; after a damaged place from the next packet on."""
    length = _CHUNK_BYTES // size * size
    while begin + size <= len(data):
        end = min(begin + length, begin + (len(data) - begin) // size * size)
        syncs = np.frombuffer(data[begin:end:size], np.uint8) == 0x47
        if not syncs[0]:
            begin = _next_packet(data, begin + 1, size)
            continue
        end = end if syncs.all() else begin + int(syncs.argmin()) * size
        yield begin, end
        begin = end if end < begin + length else begin + length * stride


def _next_packet(data: bytes | mmap.mmap, begin: int, size: int) -> int:
    while (begin := data.find(b'\x47', begin)) >= 0:
        if set(data[begin : begin + 4 * size : size]) == {0x47}:
            return begin
        begin += 1
    return len(data)


def _clock_back(
    data: bytes | mmap.mmap, begin: int, end: int, size: int, before: dict[int, int]
) -> int | None:
    """Where a clock goes back in a stretch of whole packets; updates the last clock by program."""
    packets = np.frombuffer(data[begin : end - (end - begin) % size], np.uint8).reshape(-1, size)
    clocked = (packets[:, 3] & 0x20 > 0) & (packets[:, 4] >= 7) & (packets[:, 5] & 0x10 > 0)
    rows = np.flatnonzero(clocked & (packets[:, 0] == 0x47))
    table = (packets[:, 1] & 0x1F == 0) & (packets[:, 2] == 0)  # program associations, of identifier 0
    fields = packets[rows][:, [1, 2, 6, 7, 8, 9, 10]].astype(np.int64)
    programs = (fields[:, 0] & 0x1F) << 8 | fields[:, 1]
    clocks = fields[:, 2:6] @ [1 << 25, 1 << 17, 1 << 9, 2] + (fields[:, 6] >> 7)
    last = 0
    for row, program, clock in zip(rows.tolist(), programs.tolist(), clocks.tolist(), strict=True):
        if program in before and _goes_back(before[program], clock):
            # The tables of the second recording come before its first clock.
            tables = np.flatnonzero(table[last : row + 1])
            return begin + size * (last + int(tables[-1]) if len(tables) else row)
        before[program] = clock
        last = row
    return None
