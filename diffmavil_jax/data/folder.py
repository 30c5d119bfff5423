"""The `folder` source: any videos with sound, decoded on the fly and split into train and held-out.

A CSV in the folder may say more: `path` (relative to the CSV), and optionally `split`,
`label`, `start_s` and `duration_s`. `listings.cutting` says which clips a row or a file has.

Nothing is dropped in silence: what can't be used is in `refused()`, and what was understood
otherwise than it may have been meant is in `FolderSources.notes`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Int16, Int64, UInt8

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ARRAYS, MODALITIES, NO_LABEL, Clip, ClipSpec, DataError, Refusal
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.listings import row as rows_lib
from diffmavil_jax.data.listings.cutting import cut
from diffmavil_jax.data.listings.local import (
    EXTENSIONS,
    folder_of,
    media_files,
    media_rows,
    media_tables,
    unit_hash,
)
from diffmavil_jax.data.listings.row import Classes, Listing, Row
from diffmavil_jax.data.sandbox import DecodePool

TRAIN_SPLITS = ('train',)
HELD_OUT_SPLITS = ('val', 'valid', 'validation', 'test', 'eval')
OPTIONAL_COLUMNS = ('split', 'label', 'start_s', 'duration_s')

_HELD_OUT = 'held-out'
_PROBING_THREADS = min(4, os.cpu_count() or 1)

_Decoded = dict[str, Int16[np.ndarray, ' samples'] | UInt8[np.ndarray, 't h w 3']]  # a clip's arrays


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
    modalities: tuple[str, ...] = MODALITIES,
    folder_labels: bool = False,
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
        modalities: what a file must have, and all that is read of it.
        folder_labels: whether, without a CSV, the first sub-folder of a file is its class.

    Raises:
        DataError: no media there, a CSV that can't be understood, too much that is refused, or
            a part that would be empty.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise DataError(f'{root} is not a folder (config.data.path).')
    listing = _list(epath.Path(root), folder_labels)
    reader = _Reader(root, spec, decoders, modalities)
    index = _index(reader, listing.rows)
    ledger = Ledger(str(root), len(index.places) + len(index.refused), max_bad_fraction)
    for _, refusal in index.refused:
        ledger.record(refusal)
    ledger.check()
    held_out = _split(reader, listing.rows, index, eval_fraction)
    cache = _Cache(cache_bytes)

    def part(held: bool) -> FolderSource:
        places = [place for place in index.places if (place.file in held_out) == held]
        if not places:
            raise DataError(_empty_part(root, held, any(row.split for row in listing.rows)))
        refused = [refusal for file, refusal in index.refused if (file in held_out) == held]
        return FolderSource(reader, places, listing.class_names, refused, ledger, cache)

    return FolderSources(part(False), part(True), tuple(index.notes))


class FolderSource:
    """One part of a folder (a ClipSource). `open_folder` makes it.

    A clip that turns out to be unusable is refused, and the next usable one takes its place.
    """

    multi_label = False

    def __init__(
        self,
        reader: _Reader,
        places: Sequence[_Place],
        label_names: tuple[str, ...],
        refused: Sequence[Refusal],
        ledger: Ledger,
        cache: _Cache,
    ) -> None:
        self.name, self.modalities = str(reader.root), reader.modalities
        self.label_names = label_names
        self._reader, self._places, self._cache = reader, places, cache
        self._usable = Substitutes(self.name, len(places), ledger, refused)

    @property
    def counts(self) -> dict[str, float]:
        """How much there is: `files`, `clips`, `seconds` of clips; refused clips are among them."""
        files = len({place.file for place in self._places})
        return {'files': files, 'clips': len(self), 'seconds': len(self) * self._reader.spec.seconds}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Clip:
        """Decodes clip `index`, or takes it from the cache. Its arrays are read-only.

        Raises:
            DataError: more clips are unusable than config.data.max_bad_fraction allows.
        """
        i, arrays, passed = self._usable.find(index, self._decode)
        place = self._places[i]
        clip = Clip(**arrays, label=place.label, id=place.id)  # type: ignore[typeddict-item]
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
            decoded = self._reader.decode(place)
        except media.MediaError as error:
            raise UnusableError(Refusal(place.id, str(error))) from error
        for array in decoded.values():
            array.flags.writeable = False  # it may be handed out again
        self._cache.put(place, decoded)
        return decoded


@dataclasses.dataclass(frozen=True)
class _Reader:
    """How the files of a folder are read, and what of them."""

    root: pathlib.Path
    spec: ClipSpec
    decoders: DecodePool
    modalities: tuple[str, ...]

    def decode(self, place: _Place) -> _Decoded:
        """Raises a media.MediaError where there is no such clip."""
        file = self.root / place.file
        arrays = self.decoders.decode(file, place.start_s, self.spec, self.modalities)  # type: ignore[arg-type]
        return {ARRAYS[m]: array for m, array in zip(MODALITIES, arrays, strict=True) if array is not None}

    def length_s(self, file: str) -> float | str:
        """The usable length of a file, or the reason why there is none."""
        try:
            info = self.decoders.probe(self.root / file)
        except media.MediaError as error:
            return str(error)
        if 'video' in self.modalities and not info.has_video:
            return 'no video'
        if 'audio' in self.modalities and not info.has_audio:
            return 'no audio'
        return info.duration_s


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
        size = sum(array.nbytes for array in decoded.values())
        with self._lock:
            if size <= self._free and place not in self._clips:
                self._clips[place] = decoded
                self._free -= size

    def __reduce__(self) -> tuple[type[_Cache], tuple[int]]:
        return _Cache, (self._max_bytes,)  # a worker process begins with an empty one


def _list(root: epath.Path, folder_labels: bool) -> Listing:
    """The rows of the CSV, by file and start, or all files. A row without a split is held out by a hash."""
    tables = media_tables(sorted(root.glob('*.csv')), OPTIONAL_COLUMNS)
    if len(tables) > 1:
        raise DataError(
            f'{", ".join(table.name for table in tables)} in {root} all have a path column: leave one '
            f'of them there, or let only one have any of the columns {", ".join(OPTIONAL_COLUMNS)}.'
        )
    if tables:
        lines = rows_lib.read_table(tables[0], ['path'])
        labels = [[cells['label']] if cells.get('label') else [] for _, cells in lines]
        classes = Classes(sorted({name for names in labels for name in names}), tables[0].name)
        rows = media_rows(lines, labels, classes, _split_of)
        return Listing(sorted(rows, key=lambda row: (row.name, row.start_s or 0.0)), classes.names)
    files = media_files(root)
    if not files:
        raise DataError(
            f'No media in {root} (config.data.path): looked in it and below for names that end in '
            f'{" ".join(EXTENSIONS)}, and for a CSV with a path column in it.'
        )
    if not folder_labels:
        return Listing([Row(file, '', file) for file in files])
    names = [folder_of(file) for file in files]
    classes = Classes(sorted(set(names)), str(root))
    rows = [
        Row(file, '', file, labels=classes.indices([name], file))
        for file, name in zip(files, names, strict=True)
    ]
    return Listing(rows, classes.names)


def _split_of(where: str, cells: Mapping[str, str], _: str) -> str:
    if 'split' not in cells:
        return ''
    value = cells['split']
    if value.lower() not in TRAIN_SPLITS + HELD_OUT_SPLITS:
        allowed = f'{", ".join(TRAIN_SPLITS)}; or, held out, {", ".join(HELD_OUT_SPLITS)}'
        raise DataError(f'{where}: split = {value!r}: must be one of {allowed}.')
    return _HELD_OUT if value.lower() in HELD_OUT_SPLITS else TRAIN_SPLITS[0]


def _index(reader: _Reader, rows: Sequence[Row]) -> _Index:
    """Probes the files and cuts the rows into clips."""
    lengths = _probe(reader, sorted({row.name for row in rows}))
    places: dict[str, _Place] = {}
    refused: dict[str, tuple[str, Refusal]] = {}
    beyond, num_cut = [], 0
    for row in rows:
        length = lengths[row.name]
        if isinstance(length, str):
            refused[row.name] = row.name, Refusal(row.name, length)
            continue
        clips = cut(row, length, reader.spec.seconds)
        if clips.start_ignored:
            beyond.append(f'{row.name}: start_s {row.start_s:g}, length {length:.2f} s')
        if clips.too_short:
            whole = row.start_s is None or clips.start_ignored
            name = row.name if whole else f'{row.name}@{row.start_s:.3f}'
            refused[name] = row.name, Refusal(name, clips.too_short)
        for start_s in clips.starts_s:
            place = _Place(row.name, start_s, row.labels[0] if row.labels else NO_LABEL)
            places.setdefault(place.id, place)
        num_cut += len(clips.starts_s)
    notes = []
    if beyond:
        notes.append(
            f'start_s is beyond the end of the file in {len(beyond)} of {len(rows)} rows, so it was taken '
            f'for a position elsewhere and ignored there; the first is {beyond[0]}'
        )
    if num_cut > len(places):
        notes.append(f'{num_cut - len(places)} clips are in several rows and were taken once, from the first')
    return _Index(list(places.values()), list(refused.values()), notes)


def _probe(reader: _Reader, files: Sequence[str]) -> dict[str, float | str]:
    with concurrent.futures.ThreadPoolExecutor(_PROBING_THREADS) as pool:
        return dict(zip(files, pool.map(reader.length_s, files), strict=True))


def _split(reader: _Reader, rows: Sequence[Row], index: _Index, eval_fraction: float) -> set[str]:
    """The files that are held out: as the rows say, or by the hash of the name.

    The hash depends on nothing else, so that a file stays in its part when others come and go,
    except where a part would have no usable file: then the nearest one changes sides.
    """
    held_out = {row.name for row in rows if row.split == _HELD_OUT}
    by_hash = {row.name for row in rows if not row.split}
    if not by_hash:
        return held_out
    held_out |= {file for file in by_hash if unit_hash(file) < eval_fraction}
    firsts = {place.file: place for place in reversed(index.places)}
    in_order = sorted(firsts, key=unit_hash)

    def decodes(place: _Place) -> bool:
        try:
            reader.decode(place)
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


def _empty_part(root: pathlib.Path, held: bool, by_csv: bool) -> str:
    part, splits = ('held-out', HELD_OUT_SPLITS) if held else ('training', TRAIN_SPLITS)
    if by_csv:
        return f'{root} has no usable {part} clip: the CSV needs rows with split {" or ".join(splits)}.'
    return f'{root} has no usable {part} clip: it takes at least two usable files, one of them is held out.'
