"""The `folder` source: any videos with sound, decoded on the fly and split into train and held-out.

A CSV in the folder may say more: `path` (relative to the CSV), and optionally `split`,
`label`, `start_s` and `duration_s`. A row is a stretch of a file: the whole file, or its
first `duration_s`; with `start_s` (an offset in the file) from there on, for one clip where
there is no `duration_s`. Stretches are cut into consecutive clips; a last piece of at least
nine tenths of a clip is padded, a shorter one is dropped, or refused where it is all there is.

Nothing is dropped in silence: what can't be used is in `refused()`, and what was understood
otherwise than it may have been meant is in `FolderSources.notes`.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import hashlib
import math
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import MODALITIES, NO_LABEL, Clip, ClipSpec, DataError, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.sandbox import DecodePool

EXTENSIONS = (
    '.3g2', '.3gp', '.aac', '.aif', '.aiff', '.asf', '.avi', '.caf', '.dv', '.f4v', '.flac', '.flv',
    '.ivf', '.m2ts', '.m4a', '.m4v', '.mka', '.mkv', '.mov', '.mp3', '.mp4', '.mpe', '.mpeg', '.mpg',
    '.mts', '.mxf', '.nut', '.oga', '.ogg', '.ogm', '.ogv', '.opus', '.qt', '.ts', '.vob', '.wav',
    '.webm', '.wma', '.wmv',
)  # fmt: skip
TRAIN_SPLITS = ('train',)
HELD_OUT_SPLITS = ('val', 'valid', 'validation', 'test', 'eval')
OPTIONAL_COLUMNS = ('split', 'label', 'start_s', 'duration_s')

_PROBING_THREADS = min(4, os.cpu_count() or 1)

_Decoded = tuple[Int16[np.ndarray, ' samples'], UInt8[np.ndarray, 't h w 3']]


@dataclasses.dataclass(frozen=True)
class FolderSources:
    """The two parts of a folder, and remarks on how it was read, for the report."""

    train: FolderSource
    eval: FolderSource
    notes: tuple[str, ...]


def open_folder(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    *,
    eval_fraction: float,
    max_bad_fraction: float,
    cache_bytes: int,
    decoders: DecodePool,
) -> FolderSources:
    """Finds, probes and splits the media files of a folder.

    Args:
        path: searched recursively for files with one of EXTENSIONS; hidden ones are left out.
            The CSV with a `path` column in it, if there is one, is the list of files instead.
        spec: what a clip is.
        eval_fraction: share of the files held out by a stable hash of their names, where no
            CSV has a `split` column. At least one file is held out.
        max_bad_fraction: how many refused ones are tolerated, as a share of all clips, found
            when the folder is opened or later. A stretch that yields no clip counts as one.
        cache_bytes: decoded clips are kept in memory up to this size, shared by both parts.
        decoders: processes that read the files, so that one of them can't end the run.

    Raises:
        DataError: no media there, a CSV that can't be understood, too much that is refused, or
            a part that would be empty.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise DataError(f'{root} is not a folder (config.data.path).')
    table = _find_csv(root)
    rows = _read_csv(table) if table else [_Row(file) for file in _find_media(root)]
    label_names = tuple(sorted({row.label for row in rows} - {''}))
    index = _index(root, rows, spec, label_names, decoders)
    ledger = Ledger(str(root), len(index.places) + len(index.refused), max_bad_fraction)
    for _, refusal in index.refused:
        ledger.record(refusal)
    ledger.check()
    held_out = _split(root, rows, index, spec, eval_fraction, decoders)
    cache = _Cache(cache_bytes)

    def part(held: bool) -> FolderSource:
        places = [place for place in index.places if (place.file in held_out) == held]
        if not places:
            raise DataError(_empty_part(root, held, any(row.held_out is not None for row in rows)))
        refused = [refusal for file, refusal in index.refused if (file in held_out) == held]
        return FolderSource(root, places, spec, label_names, refused, ledger, cache, decoders)

    return FolderSources(part(False), part(True), tuple(index.notes))


class FolderSource:
    """One part of a folder (a ClipSource). `open_folder` makes it.

    A clip that turns out to be unusable is refused, and the next usable one takes its place.
    """

    modalities = MODALITIES
    multi_label = False

    def __init__(
        self,
        root: pathlib.Path,
        places: Sequence[_Place],
        spec: ClipSpec,
        label_names: tuple[str, ...],
        refused: Sequence[Refusal],
        ledger: Ledger,
        cache: _Cache,
        decoders: DecodePool,
    ) -> None:
        self.name = str(root)
        self.label_names = label_names
        self._root, self._places, self._spec = root, places, spec
        self._usable = Substitutes(self.name, len(places), ledger, refused)
        self._cache, self._decoders = cache, decoders

    @property
    def counts(self) -> dict[str, float]:
        """How much there is: `files`, `clips`, `seconds` of clips; refused clips are among them."""
        files = len({place.file for place in self._places})
        return {'files': files, 'clips': len(self), 'seconds': len(self) * self._spec.seconds}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Clip:
        """Decodes clip `index`, or takes it from the cache. Its arrays are read-only.

        Raises:
            DataError: more clips are unusable than config.data.max_bad_fraction allows.
        """
        i, (waveform, frames), passed = self._usable.find(index, self._decode)
        place = self._places[i]
        clip = Clip(waveform=waveform, frames=frames, label=place.label, id=place.id)
        if passed:
            clip['refused'] = passed
        return clip

    def refused(self) -> list[Refusal]:
        return self._usable.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._usable.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index` where the CSV has labels; decodes the clip to know which it is."""
        if not self.label_names:
            return {}
        i, _, _ = self._usable.find(index, self._decode)
        return {'label': self._places[i].label}

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        label = self.factors(index).get('label', NO_LABEL)
        return np.array([] if label == NO_LABEL else [label], np.int64)

    def _decode(self, i: int) -> _Decoded:
        place = self._places[i]
        decoded = self._cache.get(place)
        if decoded is not None:
            return decoded
        try:
            decoded = self._decoders.decode(self._root / place.file, place.start_s, self._spec)
        except media.MediaError as error:
            raise UnusableError(Refusal(place.id, str(error))) from error
        for array in decoded:
            array.flags.writeable = False  # it may be handed out again
        self._cache.put(place, decoded)
        return decoded


@dataclasses.dataclass(frozen=True)
class _Row:
    """A stretch of a file that is asked for."""

    file: str  # relative to the folder, with slashes
    held_out: bool | None = None  # None: the hash decides
    label: str = ''
    start_s: float | None = None
    duration_s: float | None = None


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a clip is."""

    file: str
    start_s: float
    label: int

    @property
    def id(self) -> str:
        return f'{self.file}@{self.start_s:.3f}'


@dataclasses.dataclass(frozen=True)
class _Index:
    """All clips of a folder in order, and what is refused already, with its file."""

    places: list[_Place]
    refused: list[tuple[str, Refusal]]
    notes: list[str]


class _Cache:
    """Decoded clips: the first to come are kept, until the memory is used up."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free = max_bytes
        self._clips: dict[_Place, _Decoded] = {}
        self._lock = threading.Lock()

    def get(self, place: _Place) -> _Decoded | None:
        return self._clips.get(place)

    def put(self, place: _Place, decoded: _Decoded) -> None:
        size = sum(array.nbytes for array in decoded)
        with self._lock:
            if size <= self._free and place not in self._clips:
                self._clips[place] = decoded
                self._free -= size

    def __reduce__(self) -> tuple[type[_Cache], tuple[int]]:
        return _Cache, (self._max_bytes,)  # a worker process begins with an empty one


def _find_media(root: pathlib.Path) -> list[str]:
    """Paths relative to root, sorted."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        for name in names:
            if not name.startswith('.') and os.path.splitext(name)[1].lower() in EXTENSIONS:
                found.append(pathlib.Path(folder, name).relative_to(root).as_posix())
    if not found:
        raise DataError(
            f'No media in {root} (config.data.path): looked in it and below for names that end in '
            f'{" ".join(EXTENSIONS)}, and for a CSV with a path column in it.'
        )
    return sorted(found)


def _find_csv(root: pathlib.Path) -> pathlib.Path | None:
    """The CSV that lists the media: the one with a path column and, of several, with a known other."""
    tables = {table: _columns(table) for table in sorted(root.glob('*.csv'))}
    tables = {table: columns for table, columns in tables.items() if 'path' in columns}
    if len(tables) > 1:
        telling = [table for table, columns in tables.items() if not columns.isdisjoint(OPTIONAL_COLUMNS)]
        if len(telling) != 1:
            raise DataError(
                f'{", ".join(table.name for table in tables)} in {root} all have a path column: leave one '
                f'of them there, or let only one have any of the columns {", ".join(OPTIONAL_COLUMNS)}.'
            )
        return telling[0]
    return next(iter(tables), None)


def _columns(table: pathlib.Path) -> set[str]:
    try:
        with table.open(newline='', encoding='utf-8-sig') as file:
            return {name.strip() for name in next(csv.reader(file), [])}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as CSV in UTF-8: {error}.") from error


def _read_csv(table: pathlib.Path) -> list[_Row]:
    """All rows, sorted by file and start."""
    try:
        with table.open(newline='', encoding='utf-8-sig') as file:
            rows = list(_parse_csv(table.name, csv.reader(file)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} can't be read as CSV in UTF-8: {error}.") from error
    if not rows:
        raise DataError(f'{table} has no rows.')
    splits: dict[str, bool | None] = {}
    for row in rows:
        if splits.setdefault(row.file, row.held_out) != row.held_out:
            raise DataError(
                f'{table} puts {row.file} in train and in held-out: a file belongs to one of them.'
            )
    return sorted(rows, key=lambda row: (row.file, row.start_s or 0.0))


def _parse_csv(name: str, lines: Iterator[list[str]]) -> Iterator[_Row]:
    header = [column.strip() for column in next(lines)]
    for number, values in enumerate(lines, start=2):
        if values:
            where = f'{name}, row {number}'
            filled = values + [''] * (len(header) - len(values))
            yield _parse_row(where, dict(zip(header, (value.strip() for value in filled), strict=False)))


def _parse_row(where: str, cells: Mapping[str, str]) -> _Row:
    path = pathlib.PurePosixPath(cells.get('path', ''))
    if not path.name or path.is_absolute() or '..' in path.parts:
        raise DataError(f'{where}: path = {cells.get("path", "")!r}: must be below the folder of the CSV.')
    return _Row(
        file=path.as_posix(),
        held_out=_parse_split(where, cells['split']) if 'split' in cells else None,
        label=cells.get('label', ''),
        start_s=parse_seconds(where, 'start_s', cells),
        duration_s=parse_seconds(where, 'duration_s', cells),
    )


def _parse_split(where: str, value: str) -> bool:
    if value.lower() not in TRAIN_SPLITS + HELD_OUT_SPLITS:
        allowed = f'{", ".join(TRAIN_SPLITS)}; or, held out, {", ".join(HELD_OUT_SPLITS)}'
        raise DataError(f'{where}: split = {value!r}: must be one of {allowed}.')
    return value.lower() in HELD_OUT_SPLITS


def parse_seconds(where: str, column: str, cells: Mapping[str, str]) -> float | None:
    """A time in a row of a CSV; None where the cell is empty or absent.

    Raises:
        DataError: it is no number of seconds; `where` names the row.
    """
    text = cells.get(column, '')
    try:
        seconds = float(text) if text else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 <= seconds < math.inf:
        raise DataError(f'{where}: {column} = {text!r}: must be a number of seconds, at least 0, or empty.')
    return seconds


def _index(
    root: pathlib.Path,
    rows: Sequence[_Row],
    spec: ClipSpec,
    label_names: Sequence[str],
    decoders: DecodePool,
) -> _Index:
    """Probes the files and cuts the rows into clips."""
    lengths = _probe(root, sorted({row.file for row in rows}), decoders)
    labels = {name: i for i, name in enumerate(label_names)}
    places: dict[str, _Place] = {}
    refused: dict[str, tuple[str, Refusal]] = {}
    beyond, num_cut = [], 0
    for row in rows:
        length = lengths[row.file]
        if isinstance(length, str):
            refused[row.file] = row.file, Refusal(row.file, length)
            continue
        if row.start_s and row.start_s >= length - media.PADDED_FRACTION * spec.seconds:
            beyond.append(f'{row.file}: start_s {row.start_s:g}, length {length:.2f} s')
            row = dataclasses.replace(row, start_s=None)
        begin, end = _stretch(row, length, spec)
        num_clips = math.floor((end - begin) / spec.seconds + media.PADDED_FRACTION + 1e-6)
        if num_clips < 1:
            name = row.file if row.start_s is None else f'{row.file}@{begin:.3f}'
            reason = f'too short: {end - begin:.2f} s for a clip of {spec.seconds:g} s'
            refused[name] = row.file, Refusal(name, reason)
        for i in range(num_clips):
            place = _Place(row.file, begin + i * spec.seconds, labels.get(row.label, NO_LABEL))
            places.setdefault(place.id, place)
        num_cut += num_clips
    notes = []
    if beyond:
        notes.append(
            f'start_s is beyond the end of the file in {len(beyond)} of {len(rows)} rows, so it was taken '
            f'for a position elsewhere and ignored there; the first is {beyond[0]}'
        )
    if num_cut > len(places):
        notes.append(f'{num_cut - len(places)} clips are in several rows and were taken once, from the first')
    return _Index(list(places.values()), list(refused.values()), notes)


def _stretch(row: _Row, length: float, spec: ClipSpec) -> tuple[float, float]:
    """From where to where a row reaches in its file, in seconds."""
    begin = row.start_s or 0.0
    if row.duration_s is not None:
        return begin, min(length, begin + row.duration_s)
    return begin, length if row.start_s is None else min(length, begin + spec.seconds)


def _probe(root: pathlib.Path, files: Sequence[str], decoders: DecodePool) -> dict[str, float | str]:
    """The usable length of each file in seconds, or the reason why there is none."""

    def one(file: str) -> float | str:
        try:
            info = decoders.probe(root / file)
        except media.MediaError as error:
            return str(error)
        if not info.has_video:
            return 'no video'
        return info.duration_s if info.has_audio else 'no audio'

    with concurrent.futures.ThreadPoolExecutor(_PROBING_THREADS) as pool:
        return dict(zip(files, pool.map(one, files), strict=True))


def _split(
    root: pathlib.Path,
    rows: Sequence[_Row],
    index: _Index,
    spec: ClipSpec,
    eval_fraction: float,
    decoders: DecodePool,
) -> set[str]:
    """The files that are held out: as the rows say, or by the hash of the name.

    The hash depends on nothing else, so that a file stays in its part when others come and go,
    except where a part would have no usable file: then the nearest one changes sides.
    """
    held_out = {row.file for row in rows if row.held_out}
    by_hash = {row.file for row in rows if row.held_out is None}
    if not by_hash:
        return held_out
    held_out |= {file for file in by_hash if unit_hash(file) < eval_fraction}
    firsts = {place.file: place for place in reversed(index.places)}
    in_order = sorted(firsts, key=unit_hash)

    def decodes(place: _Place) -> bool:
        try:
            decoders.decode(root / place.file, place.start_s, spec)
        except media.MediaError:
            return False
        return True

    def usable(files: Iterable[str]) -> str | None:
        return next((file for file in files if decodes(firsts[file])), None)

    if usable(file for file in in_order if file in held_out) is None:
        moved = usable(file for file in in_order if file not in held_out)
        if moved is not None:
            held_out.add(moved)
            index.notes.append(f'the hash of the names held out no usable file, so {moved} is held out')
    elif usable(file for file in reversed(in_order) if file not in held_out) is None:
        moved = usable(file for file in reversed(in_order) if file in held_out)
        if moved is not None:
            held_out.remove(moved)
            index.notes.append(
                f'the hash of the names held out every usable file, so {moved} is for training'
            )
    return held_out


def unit_hash(file: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(file.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64


def _empty_part(root: pathlib.Path, held: bool, by_csv: bool) -> str:
    part, splits = ('held-out', HELD_OUT_SPLITS) if held else ('training', TRAIN_SPLITS)
    if by_csv:
        return f'{root} has no usable {part} clip: the CSV needs rows with split {" or ".join(splits)}.'
    return f'{root} has no usable {part} clip: it takes at least two usable files, one of them is held out.'
