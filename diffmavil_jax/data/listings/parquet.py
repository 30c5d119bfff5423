"""Lists Parquet files of media and labels, as Hugging Face's datasets are published."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import local, shard_names
from diffmavil_jax.data.listings.label_values import labelled
from diffmavil_jax.data.listings.row import Listing, Request, Row
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.shards import parquets
from diffmavil_jax.data.shards.inside import Inside
from diffmavil_jax.data.shards.opening import below

_LABEL_COLUMNS = ('label', 'labels')
_AUDIO, _VIDEO, _CLASS_LABEL = 'Audio', 'Video', 'ClassLabel'  # Hugging Face's types
_READERS = 4  # processes
_TIMEOUT_S = 3600.0  # for the labels of a file


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A Parquet file, or why it can't be read."""

    name: str
    table: parquets.Table | None
    broken: str = ''


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The columns that are read: `label` is None without labels."""

    media: tuple[str, ...]
    label: str | None


def read_parquet(request: Request) -> Listing:
    """A row for every row of the files.

    Media are the columns of sound or video, and the label is in the column `label` or `labels`, or in the
    only one with named classes; `media_columns` and `label_column` name others. Splits are those that the
    names of the files tell; the rows of other files are held out as in a folder.

    Raises:
        DataError: there are no files, none can be read, or columns are missing or can't be understood.
    """
    root, names = shard_names.find_shards(str(request.input), parquets.SUFFIXES)
    with DecodePool(_READERS, _TIMEOUT_S) as pool, concurrent.futures.ThreadPoolExecutor(_READERS) as threads:
        shards = list(threads.map(lambda name: _describe(pool, root, name), names))
        first, table = _first(root, shards)
        columns = _columns(table, request, shard_names.file_name(root, first.name))
        found = list(threads.map(lambda shard: _rows(pool, root, shard, columns, request), shards))
    rows = [row for of_shard in found for row in of_shard]
    features = table.features.get(columns.label or '')
    return labelled(rows, _class_names(features), request.labels, _notes(shards, table, columns), root)


def offered(request: Request) -> tuple[str, ...]:
    """The modalities that the columns of the first file promise.

    Raises:
        DataError: that of `read_parquet`.
    """
    root, names = shard_names.find_shards(str(request.input), parquets.SUFFIXES)
    with DecodePool(1, _TIMEOUT_S) as pool:
        shards = (_describe(pool, root, name) for name in names)
        first = next((shard for shard in shards if shard.table is not None), None)
    if first is None or first.table is None:
        return MODALITIES
    chosen = _columns(first.table, request, shard_names.file_name(root, first.name)).media
    is_sound = all(_type(first.table, name) == _AUDIO or name == 'audio' for name in chosen)
    return ('audio',) if is_sound else MODALITIES


def _describe(pool: DecodePool, root: str, name: str) -> _Shard:
    try:
        return _Shard(name, pool.call(parquets.describe, below(root, name)))
    except FileNotFoundError as error:
        raise DataError(
            f'{shard_names.file_name(root, name)} is missing: --input must name files that are there.'
        ) from error
    except (parquets.ParquetError, media.MediaError) as error:
        return _Shard(name, None, str(error))


def _first(root: str, shards: Sequence[_Shard]) -> tuple[_Shard, parquets.Table]:
    """The first file that can be read."""
    for shard in shards:
        if shard.table is not None:
            return shard, shard.table
    raise DataError(f'{shard_names.file_name(root, shards[0].name)} {shards[0].broken}.')


def _rows(
    pool: DecodePool, root: str, shard: _Shard, columns: _Columns, request: Request
) -> list[tuple[Row, Any]]:
    """The rows of a file, each with its label."""
    split = shard_names.split_of(shard.name)
    if shard.table is None:
        return [(_unreadable(shard.name, split, shard.broken), None)]
    wanted = [*columns.media, *([columns.label] if columns.label else [])]
    if lacking := [name for name in wanted if name not in shard.table.kinds]:
        raise DataError(
            f'{shard_names.file_name(root, shard.name)} has no column {lacking[0]!r}, as the first file has; '
            f'its columns are {", ".join(shard.table.kinds)}. Prepare files of other columns for themselves.'
        )
    path = next((f'{name}.path' for name in columns.media if name in shard.table.with_path), None)
    extra = [name for name in (columns.label, path) if name]
    try:
        values = pool.call(parquets.read_columns, below(root, shard.name), extra) if extra else {}
    except (parquets.ParquetError, media.MediaError) as error:
        return [(_unreadable(shard.name, split, str(error)), None)]
    return list(_each(shard.name, shard.table, split, columns, values, path, request))


def _each(
    shard: str,
    table: parquets.Table,
    split: str | None,
    columns: _Columns,
    values: Mapping[str, Sequence[Any]],
    path: str | None,
    request: Request,
) -> Iterator[tuple[Row, Any]]:
    number = 0
    for group, num_rows in enumerate(table.groups):
        sizes = [table.row_bytes[column][group] for column in columns.media]
        for _ in range(num_rows):
            name = f'{shard}/{number}'
            base = posixpath.basename(values[path][number] or '') if path else ''
            file = f'{name}/{base}' if base else name
            row = Row(
                name,
                split or local.part(name, request),
                file,
                others=tuple(f'{file} ({column})' for column in columns.media[1:]),
                inside=tuple(
                    Inside(shard, number, size, column, group)
                    for column, size in zip(columns.media, sizes, strict=True)
                ),
            )
            yield row, values[columns.label][number] if columns.label else None
            number += 1


def _unreadable(name: str, split: str | None, reason: str) -> Row:
    return Row(name, split or local.TRAIN, name, refused=f'unreadable: {reason}')


def _columns(table: parquets.Table, request: Request, where: str) -> _Columns:
    """The columns to read.

    Raises:
        DataError: a column that is named does not exist or holds something else; or it is not clear which one
            has the media.
    """
    there = _of_kind(table, parquets.MEDIA)
    known = [name for name in there if _type(table, name) in (None, _AUDIO, _VIDEO)]
    typed = [name for name in known if _type(table, name)]
    named = [name for name in ('video', 'audio') if name in known]
    chosen = request.media_columns or tuple(typed or named or known)
    for name in chosen:
        if name not in there:
            raise DataError(
                f'{where} has no column {name!r} with the bytes of media; it has {_listed(there)}, of the '
                f'columns {_listed(table.kinds)}.'
            )
    num_kinds = len({_type(table, name) or (name if name in named else '') for name in chosen})
    if not chosen or not request.media_columns and num_kinds < len(chosen):
        raise DataError(
            f'{where}: it is not clear which column has the media: must be one of binary values, or of '
            f'structs of bytes and path. There are {_listed(there)}, of the columns {_listed(table.kinds)}: '
            'name it with --media_column.'
        )
    return _Columns(chosen, _label_column(table, request.label_column, where))


def _label_column(table: parquets.Table, wanted: str, where: str) -> str | None:
    usable = _of_kind(table, parquets.LABELS)
    if wanted and wanted not in usable:
        raise DataError(
            f'--label_column={wanted}: {where} has no column {wanted!r} of numbers, of names, or of lists of '
            f'them; it has {_listed(usable)}.'
        )
    with_names = [name for name in usable if _class_names(table.features.get(name)) is not None]
    usual = [name for name in _LABEL_COLUMNS if name in usable]
    return wanted or next(iter(usual or (with_names if len(with_names) == 1 else [])), None)


def _of_kind(table: parquets.Table, kind: str) -> list[str]:
    return [name for name, other in table.kinds.items() if other == kind]


def _type(table: parquets.Table, column: str) -> str | None:
    """Hugging Face's type of a column, if it is known."""
    feature = table.features.get(column)
    return feature.get('_type') if isinstance(feature, dict) else None


def _class_names(feature: Any) -> list[str] | None:
    """The names that Hugging Face's metadata give to the classes of a column, or of the lists in it."""
    if isinstance(feature, list):
        return _class_names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get('_type') != _CLASS_LABEL:
        return _class_names(feature.get('feature'))
    names = feature.get('names')
    return [str(name) for name in names] if isinstance(names, list) else None


def _notes(shards: Sequence[_Shard], table: parquets.Table, columns: _Columns) -> Iterator[str]:
    for shard in shards:
        if shard.broken:
            yield f'{printable(shard.name)} {printable(shard.broken)}'
    yield f'media are from {", ".join(columns.media)}'
    usable = _of_kind(table, parquets.LABELS)
    if columns.label:
        yield f'labels are from {columns.label}'
    elif usable:
        yield f'there are no labels; --label_column takes them from one of {", ".join(usable)}'


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ', '.join(names) or 'none'
