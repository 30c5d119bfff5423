"""Reads Parquet files by batches: what columns they have, and the bytes of one row's media.

These functions run in a process of their own (`data.sandbox`), because the files are not trusted. What they
raise is a ParquetError, or an OSError where a file can't be read at all.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffmavil_jax.data.shards.opening import READ_AHEAD, open_file

SUFFIXES = ('.parquet',)
MEDIA, LABELS, OTHER = 'media', 'labels', 'other'  # kinds of columns

_BYTES, _PATH = 'bytes', 'path'  # fields of Hugging Face's structs of media
_BATCH_ROWS, _BATCH_LABELS = 8, 4096
_PAGE_BYTES = 1 << 20  # are read at once, instead of all of a row group
_CALL_S = 10.0  # for which rows are passed over before the caller is asked again


class ParquetError(ValueError):
    """A Parquet file, or a row of one, that can't be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Table:
    """What the footer of a Parquet file says.

    Attributes:
        kinds: column -> MEDIA, LABELS or OTHER.
        with_path: those MEDIA that have a path beside their bytes.
        features: column -> what Hugging Face's metadata say of it.
        groups: rows of each row group.
        row_bytes: column -> bytes of a row on average, by row group.
    """

    kinds: Mapping[str, str]
    with_path: Sequence[str]
    features: Mapping[str, Any]
    groups: Sequence[int]
    row_bytes: Mapping[str, Sequence[int]]


def describe(url: str) -> Table:
    """Reads the footer of a file."""
    with _open(url) as file:
        schema, metadata = file.schema_arrow, file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes: dict[str, list[int]] = {field.name: [0] * len(groups) for field in schema}
        for number, group in enumerate(groups):
            for i in range(group.num_columns):
                name = group.column(i).path_in_schema.split('.')[0]
                if name in sizes and group.num_rows:
                    sizes[name][number] += group.column(i).total_compressed_size // group.num_rows
        return Table(
            {field.name: _kind(field.type) for field in schema},
            [field.name for field in schema if _kind(field.type) == MEDIA and _has_path(field.type)],
            _features(schema.metadata or {}),
            [group.num_rows for group in groups],
            sizes,
        )


def read_columns(url: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The values of some columns in all rows, such as `labels` or `audio.path`."""
    with _open(url) as file:
        found: dict[str, list[Any]] = {name: [] for name in columns}
        for batch in file.iter_batches(_BATCH_LABELS, columns=list(columns)):
            for name, values in found.items():
                column, _, part = name.partition('.')
                array = batch.column(column) if column in batch.schema.names else batch.column(name)
                values += (
                    array.field(part) if part and pa.types.is_struct(array.type) else array
                ).to_pylist()
        return found


def take_out(url: str, column: str, row: int, target: str) -> bool:
    """Writes the media of a row to a file.

    Rows that follow each other are read once. Passing over many rows takes several calls.

    Returns:
        Whether it is done; if not, call again.
    """
    with _said():
        data = _reader(url, column).read(row)
    if data is None:
        return False
    with open(target, 'wb') as file:
        file.write(data)
    return True


class _Reader:
    """Reads the media of a column, forwards."""

    def __init__(self, url: str, column: str) -> None:
        self._file = _parquet(open_file(url, READ_AHEAD))
        self._column = column
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._begins = [0, *itertools.accumulate(sizes)]
        self._start(0)

    def _start(self, group: int) -> None:
        """Goes to the beginning of a row group."""
        kind = self._file.schema_arrow.field(self._column).type
        name = f'{self._column}.{_BYTES}' if pa.types.is_struct(kind) else self._column
        self._group, self._first = group, self._begins[group]
        self._values: Any = ()
        self._batches = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[name])

    def read(self, row: int) -> pa.Buffer | None:
        """The bytes of a row; None: the time is over, call again."""
        began = time.monotonic()
        if not 0 <= row < self._begins[-1]:
            raise ParquetError(f'has {self._begins[-1]} rows, and no row {row}')
        group = bisect.bisect_right(self._begins, row) - 1
        if group != self._group or row < self._first:
            self._start(group)
        while row >= self._first + len(self._values):
            batch = next(self._batches, None)
            if batch is None:
                raise ParquetError(f'ends or is damaged before row {row}')
            array = batch.column(0)
            self._first += len(self._values)
            self._values = array.field(0) if pa.types.is_struct(array.type) else array
            if row >= self._first + len(self._values) and time.monotonic() - began > _CALL_S:
                return None
        value = self._values[row - self._first]
        if not value.is_valid:
            raise ParquetError(f'row {row} has no bytes in its column {self._column}')
        return value.as_buffer()


@functools.lru_cache(maxsize=2)  # the sound and the pictures of a row may be in two columns
def _reader(url: str, column: str) -> _Reader:
    return _Reader(url, column)


@contextlib.contextmanager
def _open(url: str) -> Iterator[pq.ParquetFile]:
    with _said(), open_file(url, READ_AHEAD) as file:
        yield _parquet(file)


def _parquet(file: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, buffer_size=_PAGE_BYTES, pre_buffer=False)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ParquetError):
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        text = ' '.join(str(error).split())
        raise ParquetError(f'is no Parquet file, or is cut off or damaged ({text[:200]})') from error


def _kind(type_: pa.DataType) -> str:
    if _is_binary(type_) or pa.types.is_struct(type_) and type_.get_field_index(_BYTES) >= 0:
        is_media = _is_binary(type_) or _is_binary(type_.field(_BYTES).type)
        return MEDIA if is_media else OTHER
    while pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        type_ = type_.value_type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return LABELS if is_number or pa.types.is_string(type_) or pa.types.is_large_string(type_) else OTHER


def _is_binary(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _has_path(type_: pa.DataType) -> bool:
    return pa.types.is_struct(type_) and type_.get_field_index(_PATH) >= 0


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What Hugging Face's metadata say of each column; nothing if there are none."""
    try:
        features = json.loads(metadata[b'huggingface'])['info']['features']
        return dict(features)
    except (LookupError, ValueError, TypeError):
        return {}
