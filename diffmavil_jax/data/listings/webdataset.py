"""Lists WebDataset shards: tars in which the files of a sample have the same name, up to its first dot."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from diffmavil_jax.data.clip import DataError, printable
from diffmavil_jax.data.listings import local, shard_names
from diffmavil_jax.data.listings.label_values import labelled
from diffmavil_jax.data.listings.row import Listing, Request, Row
from diffmavil_jax.data.listings.tar_media import is_hidden
from diffmavil_jax.data.shards import tars
from diffmavil_jax.data.shards.inside import Inside
from diffmavil_jax.data.shards.opening import READ_HEADERS, below

NO_MEDIA, REPEATED = 'no media', 'repeated'  # reasons

_CLASS, _TEXT, _JSON = 'cls', 'txt', 'json'
_JSON_FIELDS = ('label', 'labels')
_MAX_TEXT_BYTES = 16 << 20  # of the label or the JSON of a sample
_KEY = re.compile(r'((?:.*/)?[^./]+)(?:\.([^/]*))?')
_NUMBER = re.compile(r'-?\d+', re.ASCII)
_READERS = 16  # of shards in a bucket, at the same time
_NAMED = 8  # in an error


@dataclasses.dataclass
class _Sample:
    """What a shard has of one key.

    Attributes:
        media: the files of one recording.
        extensions: of its other files.
        values: what may be its label, by the extension of the file or the field of the JSON.
        unreadable: the extensions of those of its texts that can't be read, and why.
    """

    media: list[tars.Member] = dataclasses.field(default_factory=list)
    extensions: list[str] = dataclasses.field(default_factory=list)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


class _Shard:
    """What a shard has.

    Attributes:
        name: its path below the root.
        samples: by their keys.
        refused: files that belong to no sample, and why.
        broken: why it can't be read from some place on; empty if it can.
    """

    def __init__(self, name: str, label_column: str) -> None:
        self.name, self.broken = name, ''
        self.samples: dict[str, _Sample] = {}
        self.refused: dict[str, str] = {}
        self._names: set[str] = set()
        self._texts = {label_column or _CLASS, _JSON}
        self._fields = (label_column,) if label_column else _JSON_FIELDS

    def wants(self, name: str, size: int) -> bool:
        """Whether the bytes of a file are needed."""
        return _key(name)[1] in self._texts and size <= _MAX_TEXT_BYTES and not local.is_media(name)

    def add(self, member: tars.Member) -> None:
        """Adds a file to the sample that it belongs to."""
        key, extension = _key(member.name)
        if member.name in self._names:
            self.refused[member.name] = f'{REPEATED}: the shard has this name twice, and the first is used'
            return
        self._names.add(member.name)
        sample = self.samples.setdefault(key, _Sample())
        if not local.is_media(member.name):
            sample.extensions.append(extension)
            if extension in self._texts:
                self._add_text(sample, extension, member)
        elif not member.is_file:
            self.refused[member.name] = 'unreadable: it is a link or a device'
        elif sample.media and _stem(sample.media[0].name) != _stem(member.name):
            self.refused[member.name] = (
                f'{REPEATED}: its key ends at the first dot, and {sample.media[0].name} has it already'
            )
        else:
            sample.media.append(member)

    def _add_text(self, sample: _Sample, extension: str, member: tars.Member) -> None:
        try:
            text = (member.data or b'').decode('utf-8-sig').strip()
            if member.data is None:
                raise ValueError(f'has {member.size:,} bytes')
            if extension != _JSON:
                is_number = extension == _CLASS and _NUMBER.fullmatch(text)
                sample.values[extension] = int(text) if is_number else text
                return
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError('is no object')
            sample.values |= {name: fields[name] for name in self._fields if name in fields}
        except (ValueError, RecursionError) as error:
            sample.unreadable[extension] = f'unreadable: {extension}: {error}'


def read_webdataset(request: Request) -> Listing:
    """A row for every key. A key without media is refused, and so is what can't be read.

    The label is in `.cls`, or else in the field `label` or `labels` of `.json`; `label_column` names another
    extension or field. Splits are those that the names of the shards tell; the keys of other shards are held
    out as in a folder.

    Raises:
        DataError: there are no shards, none can be read, or the labels can't be understood.
    """
    root, names = shard_names.find_shards(str(request.input), tars.SUFFIXES)
    read = functools.partial(_read, root, label_column=request.label_column.lower())
    with concurrent.futures.ThreadPoolExecutor(_READERS if '://' in root else 1) as threads:
        shards = list(threads.map(read, names))
    if all(shard.broken and not shard.samples for shard in shards):
        first = shards[0]
        raise DataError(f'{shard_names.file_name(root, first.name)} {first.broken}.')
    column, holder = _label_column(shards, request.label_column.lower())
    found = [row for shard in shards for row in _rows(shard, column, holder, request)]
    return labelled(found, None, request.labels, _notes(shards, column), root)


def _read(root: str, name: str, label_column: str) -> _Shard:
    shard = _Shard(name, label_column)
    try:
        with tars.open_tar(below(root, name), READ_HEADERS) as file:
            for member in tars.members(file, shard.wants):
                if not is_hidden(member.name):
                    shard.add(member)
    except FileNotFoundError as error:
        raise DataError(
            f'{shard_names.file_name(root, name)} is missing: --input must name shards that are there.'
        ) from error
    except tars.TarError as error:
        shard.broken = str(error)
    return shard


def _rows(shard: _Shard, column: str, holder: str, request: Request) -> Iterator[tuple[Row, Any]]:
    """The rows of a shard, each with its label."""
    split = shard_names.split_of(shard.name)

    def row(name: str, file: str, **values: Any) -> Row:
        part = split or local.part(name, request)
        return Row(f'{shard.name}/{name}', part, f'{shard.name}/{file}', **values)

    for key, sample in shard.samples.items():
        if not sample.media:
            has = ', '.join(sample.extensions) or 'what is refused'
            yield row(key, key, refused=f'{NO_MEDIA}: the key has {has}'), None
        elif holder in sample.unreadable:
            yield row(key, sample.media[0].name, refused=sample.unreadable[holder]), None
        else:
            first, *others = (f'{shard.name}/{member.name}' for member in sample.media)
            inside = tuple(Inside(shard.name, member.begin, member.size) for member in sample.media)
            whole = row(key, sample.media[0].name, others=tuple(others), inside=inside)
            yield whole, sample.values.get(column)
    for name, reason in shard.refused.items():
        yield row(name, name, refused=reason), None
    if shard.broken:
        yield Row(shard.name, split or local.TRAIN, shard.name, refused=f'unreadable: {shard.broken}'), None


def _label_column(shards: Sequence[_Shard], wanted: str) -> tuple[str, str]:
    """The extension or the field of the JSON that has the labels, and the extension of its file.

    Both are empty if none has labels.

    Raises:
        DataError: there is none that is called as wanted.
    """
    samples = [sample for shard in shards for sample in shard.samples.values()]
    there = {name for sample in samples for name in sample.values}
    extensions = sorted({name for sample in samples for name in sample.extensions})
    if wanted and wanted not in there:
        raise DataError(
            f'--label_column={wanted}: no file ends in .{wanted}, and no .json has a field {wanted!r}. There '
            f'are the extensions {", ".join(extensions[:_NAMED]) or "of media alone"}.'
        )
    column = next((name for name in (wanted, _CLASS, *_JSON_FIELDS) if name in there), '')
    return column, column if column in ('', *extensions) else _JSON


def _notes(shards: Sequence[_Shard], column: str) -> Iterator[str]:
    for shard in shards:
        if shard.broken:
            yield f'{printable(shard.name)} {printable(shard.broken)}: what is before that is used'
    if column:
        yield f'labels are from {column}'
    elif any(_TEXT in sample.extensions for shard in shards for sample in shard.samples.values()):
        yield '.txt was taken for captions and not used; --label_column=txt takes it for the names of classes'


def _key(name: str) -> tuple[str, str]:
    """The key of a file and its extension, which begins after the first dot, in lower case."""
    found = _KEY.fullmatch(name)
    return (name, '') if found is None else (found[1], (found[2] or '').lower())


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
