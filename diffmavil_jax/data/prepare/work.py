"""The work of a preparation on disk: its shards, and which of them are done.

    WORK/plan.json                      the settings and the number of shards; written after all rows
    WORK/00012.rows.jsonl               the split of a shard in the first line, then its rows
    WORK/00012-TOKEN.array_record       the examples that one attempt wrote
    WORK/00012.done.jsonl               which attempt succeeded in the first line, then all outcomes

A shard is done when its done file exists. Every file appears in one step, so any number of attempts do no
harm, whether at the same time or one after the other.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from diffmavil_jax.atomic import replacing, write_json
from diffmavil_jax.data.listings.row import Listing, Row
from diffmavil_jax.data.prepare.settings import Settings

# A shard of files that are cut into clips ends when the files have this size, even if its rows are few.
_SHARD_SOURCE_BYTES = 1 << 30
# A small dataset has about _MANY_SHARDS shards of at least _FEW_CLIPS clips, so that all workers have work.
_MANY_SHARDS, _FEW_CLIPS = 64, 16
# Raise this when examples are written differently, so that older datasets and work do not count as the same.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a clip. `reason` says why it was refused, and is empty if it was written."""

    id: str
    file: str
    split: str
    reason: str = ''
    source_hash: str = ''
    seconds: float = 0.0
    num_bytes: int = 0
    note: str = ''
    labels: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class DoneShard:
    """A shard that is done; `labels` has the class indices of each of its examples."""

    index: int
    split: str
    data: epath.Path
    num_examples: int
    num_bytes: int
    labels: list[tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker needs to know besides the rows of a shard."""

    input: str
    settings: Settings


class Work:
    """The folder of a preparation that may be unfinished."""

    def __init__(self, folder: epath.Path) -> None:
        self.folder = folder
        plan = json.loads((folder / 'plan.json').read_text())
        self.num_shards: int = plan['num_shards']
        settings: dict[str, Any] = {
            field: tuple(value) if isinstance(value, list) else value
            for field, value in plan['settings'].items()
        }
        self.job = Job(plan['input'], Settings(**settings))

    @classmethod
    def open(cls, folder: epath.Path, listing: Listing, job: Job) -> Work:
        """Continues the work in a folder, or begins it."""
        if not (folder / 'plan.json').exists():
            folder.mkdir(parents=True, exist_ok=True)
            shards = list(_shards(listing.rows, job))
            for index, rows in enumerate(shards):
                _write_lines(
                    folder / f'{index:05d}.rows.jsonl',
                    [{'split': rows[0].split}, *(row.to_list() for row in rows)],
                )
            plan = {
                'num_shards': len(shards),
                'input': job.input,
                'settings': dataclasses.asdict(job.settings),
            }
            write_json(folder / 'plan.json', plan)
        return cls(folder)

    def rows(self, index: int) -> list[Row]:
        """The rows of a shard."""
        lines = _read_lines(self.folder / f'{index:05d}.rows.jsonl')
        next(lines)
        return [Row.of_list(values) for values in lines]

    def is_done(self, index: int) -> bool:
        return self._done_path(index).exists()

    def num_done(self) -> int:
        return sum(1 for _ in self.folder.glob('*.done.jsonl'))

    def data_path(self, index: int) -> epath.Path:
        """A new path, to which an attempt at a shard can write its examples."""
        return self.folder / f'{index:05d}-{uuid.uuid4().hex}.array_record'

    def finish(self, index: int, data: epath.Path, num_bytes: int, outcomes: Sequence[Outcome]) -> None:
        """Declares a shard done, with the examples in `data`."""
        first = {
            'data': data.name,
            'num_examples': sum(not outcome.reason for outcome in outcomes),
            'num_bytes': num_bytes,
        }
        _write_lines(self._done_path(index), [first, *(dataclasses.astuple(o) for o in outcomes)])

    def done(self, index: int) -> DoneShard:
        split = next(_read_lines(self.folder / f'{index:05d}.rows.jsonl'))['split']
        lines = _read_lines(self._done_path(index))
        first = next(lines)
        written = [outcome for outcome in map(_outcome, lines) if not outcome.reason]
        return DoneShard(
            index=index,
            split=split,
            data=self.folder / first['data'],
            num_examples=first['num_examples'],
            num_bytes=first['num_bytes'],
            labels=[outcome.labels for outcome in written],
        )

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes of all shards that are done, in order."""
        for index in range(self.num_shards):
            if self.is_done(index):
                lines = _read_lines(self._done_path(index))
                next(lines)
                yield from map(_outcome, lines)

    def remove(self) -> None:
        self.folder.rmtree()

    def _done_path(self, index: int) -> epath.Path:
        return self.folder / f'{index:05d}.done.jsonl'


def identity(listing: Listing, job: Job, source: str) -> str:
    """A hash of everything that a prepared dataset depends on."""
    settings = dataclasses.asdict(job.settings)
    digest = hashlib.sha256()
    digest.update(
        json.dumps([_FORMAT, source, job.input, settings, listing.class_names, listing.multi_label]).encode()
    )
    for row in listing.rows:
        digest.update(json.dumps(row.to_list()).encode())
    return digest.hexdigest()[:16]


def link_or_copy(source: epath.Path, target: epath.Path) -> None:
    """Puts a file in a second place, as a link if the file system can do that, or else as a copy."""
    if '://' in str(source):
        source.copy(target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _shards(rows: Sequence[Row], job: Job) -> Iterator[list[Row]]:
    """Divides rows among shards: sorted by split, and within a split in an order that is random but fixed.

    The rows of a file stay together, so that it is read and hashed once; and the files of a stretch of a
    shard that is read, so that it is read from its beginning to its end.
    """
    at_most = min(job.settings.shard_clips, max(_FEW_CLIPS, len(rows) // _MANY_SHARDS))
    by_split: dict[str, dict[str, list[Row]]] = {}
    stretches: collections.Counter[tuple[str, str, int]] = collections.Counter()
    for row in sorted(rows, key=_place):
        together = row.file or row.name
        if row.inside:
            first = row.inside[0]
            stretch = row.split, first.shard, first.stretch
            part = stretches[stretch] // at_most if first.can_begin_anywhere else 0
            stretches[stretch] += 1
            together = f'{first.shard}/{first.stretch}/{part}'
        by_split.setdefault(row.split, {}).setdefault(together, []).append(row)
    for split in sorted(by_split):
        by_file = by_split[split]
        shard: list[Row] = []
        size = 0
        for file in sorted(
            by_file, key=lambda name: hashlib.sha256(name.encode('utf-8', 'replace')).digest()
        ):
            shard += by_file[file]
            size += _source_bytes(by_file[file], job)
            if len(shard) >= at_most or size >= _SHARD_SOURCE_BYTES:
                yield shard
                shard, size = [], 0
        if shard:
            yield shard


def _place(row: Row) -> tuple[str, int, int]:
    """The order in which the files of shards are read; other rows keep theirs."""
    return (row.inside[0].shard, row.inside[0].stretch, row.inside[0].begin) if row.inside else ('', 0, 0)


def _source_bytes(rows: Sequence[Row], job: Job) -> int:
    """Size of a file if it will be cut into an unknown number of clips, else 0."""
    if job.settings.seconds is None or all(row.start_s is not None for row in rows):
        return 0
    if any(row.inside for row in rows):
        return sum(row.inside[0].size for row in rows if row.inside)
    try:
        return epath.Path(job.input, rows[0].file).stat().length
    except OSError:
        return 0


def _outcome(values: list[Any]) -> Outcome:
    outcome = Outcome(*values)
    return dataclasses.replace(outcome, labels=tuple(outcome.labels))


def _write_lines(path: epath.Path, values: Iterable[Any]) -> None:
    with replacing(path) as draft, open(draft, 'w', encoding='utf-8') as file:
        for value in values:
            file.write(json.dumps(value) + '\n')


def _read_lines(path: epath.Path) -> Iterator[Any]:
    with path.open('r') as file:
        for line in file:
            yield json.loads(line)
