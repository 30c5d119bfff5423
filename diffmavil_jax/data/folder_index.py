"""Finds the clips of a folder, and says which files are held out."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from etils import epath
from jaxtyping import Int16, UInt8

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ARRAYS, ClipSpec, DataError, Refusal, clip_id, printable
from diffmavil_jax.data.listings.cutting import cut
from diffmavil_jax.data.listings.local import (
    COLUMNS,
    EXTENSIONS,
    class_folder,
    media_files,
    media_tables,
    read_table,
    tables_in,
    unit_hash,
)
from diffmavil_jax.data.listings.row import Classes, Listing, Row
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.take import FIXED, Take

# What a CSV may have in its column `split`.
TRAIN_SPLITS = ('train',)
HELD_OUT_SPLITS = ('val', 'valid', 'validation', 'test', 'eval')

_HELD_OUT = 'held-out'
_PROBING_THREADS = min(4, os.cpu_count() or 1)

# By their keys in a clip.
ClipArrays = dict[str, Int16[np.ndarray, ' samples'] | UInt8[np.ndarray, 't h w 3']]


@dataclasses.dataclass(frozen=True)
class Length:
    """For how many seconds the wanted modalities of a file last, and why the rest of it can't be used."""

    seconds: float
    unusable: str = ''


@dataclasses.dataclass(frozen=True)
class FolderReader:
    """Reads the files of a folder.

    Attributes:
        root: the folder.
        spec: what a clip is.
        decoders: processes that read.
        modalities: what a file must have, and all that is read of it.
    """

    root: pathlib.Path
    spec: ClipSpec
    decoders: DecodePool
    modalities: tuple[str, ...]

    def decode(self, place: ClipPlace, take: Take = FIXED) -> ClipArrays:
        """Decodes a clip.

        Raises:
            MediaError: it can't be used.
        """
        file = self.root / place.file
        modalities = cast(tuple[media.Modality, ...], self.modalities)
        arrays = self.decoders.decode(file, place.begin_s(take), self.spec, modalities, take)
        return {ARRAYS[m]: array for m, array in zip(MODALITIES, arrays, strict=True) if array is not None}

    def length_s(self, file: str) -> Length:
        """How much of a file can be used."""
        try:
            info = self.decoders.probe(self.root / file)
            return Length(info.lasts_s(self.modalities), info.left_out)
        except media.MediaError as error:
            return Length(0.0, str(error))


@dataclasses.dataclass(frozen=True)
class ClipPlace:
    """Where a clip is.

    Attributes:
        file: a path below the folder.
        start_s: where it begins.
        labels: its class indices.
        earliest_s: where it begins at the earliest, if its start is random.
        spare_s: how much later it may begin.
    """

    file: str
    start_s: float
    labels: tuple[int, ...]
    earliest_s: float = 0.0
    spare_s: float = 0.0

    def begin_s(self, take: Take) -> float:
        """Where a take of it begins."""
        return self.start_s if take.start is None else self.earliest_s + take.start * self.spare_s

    @property
    def id(self) -> str:
        return clip_id(self.file, self.start_s)


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """The clips of a folder.

    Attributes:
        places: of all clips, in the order of the list.
        refused: files and parts of them that can't be used, each after the name of its file.
        notes: remarks on how the list was understood.
    """

    places: list[ClipPlace]
    refused: list[tuple[str, Refusal]]
    notes: list[str]


def list_rows(root: epath.Path, folder_labels: bool) -> Listing:
    """The rows of a folder's CSV, sorted by file and start; without a CSV, a row for each media file.

    The split of a row is empty if the CSV states none; `held_out_files` then decides.

    Args:
        root: the folder.
        folder_labels: whether the first sub-folder of a file is its class, if there is no CSV.

    Raises:
        DataError: there are no media, several CSVs, or one that can't be understood; or a folder can't be
            read.
    """
    tables, notes = media_tables(tables_in(root))
    if len(tables) > 1:
        raise DataError(
            f'{", ".join(table.name for table in tables)} in {root} all have a path column: leave one '
            f'of them there, or let only one have any of the columns {", ".join(COLUMNS)}.'
        )
    if tables:
        listing = read_table(tables[0], root, _split_of)
        rows = sorted(listing.rows, key=lambda row: (row.name, row.start_s or 0.0))
        return dataclasses.replace(listing, rows=rows, notes=notes)
    files = media_files(root)
    if not files:
        raise DataError(
            f'No media in {root} (config.data.path): looked in it and below for names that end in '
            f'{" ".join(EXTENSIONS)}, and for a CSV with a path column in it.'
        )
    if not folder_labels:
        return Listing([Row(file, '', file) for file in files], notes=notes)
    names = [class_folder(file) for file in files]
    classes = Classes(sorted(set(names)), str(root))
    rows = [
        Row(file, '', file, labels=classes.indices([name], file))
        for file, name in zip(files, names, strict=True)
    ]
    return Listing(rows, classes.names, notes=notes)


def _split_of(where: str, text: str, file: str) -> str:
    """The part that a cell of the column `split` stands for; empty: the hash of the name decides."""
    del file
    if not text:
        return ''
    if text.lower() not in TRAIN_SPLITS + HELD_OUT_SPLITS:
        allowed = f'{", ".join(TRAIN_SPLITS)}; or, held out, {", ".join(HELD_OUT_SPLITS)}'
        raise DataError(f'{where}: split = {text!r}: must be one of {allowed}; or empty.')
    return _HELD_OUT if text.lower() in HELD_OUT_SPLITS else TRAIN_SPLITS[0]


def index_folder(reader: FolderReader, rows: Sequence[Row]) -> FolderIndex:
    """Probes the files and cuts the rows into clips."""
    lengths = _probe(reader, sorted({row.name for row in rows}))
    places: dict[str, ClipPlace] = {}
    refused: dict[str, tuple[str, Refusal]] = {}
    beyond, num_cut = [], 0
    for row in rows:
        length = lengths[row.name]
        if length.unusable:
            rest = clip_id(row.name, length.seconds) if length.seconds else printable(row.name)
            refused[rest] = row.name, Refusal(rest, length.unusable)
            if not length.seconds:
                continue
        clips = cut(row, length.seconds, reader.spec.seconds)
        if clips.start_ignored:
            beyond.append(f'{printable(row.name)}: start_s {row.start_s:g}, length {length.seconds:.2f} s')
        if clips.too_short:
            whole = row.start_s is None or clips.start_ignored
            name = printable(row.name) if whole else clip_id(row.name, row.start_s or 0.0)
            refused[name] = row.name, Refusal(name, clips.too_short)
        for i, start_s in enumerate(clips.starts_s):
            place = ClipPlace(row.name, start_s, row.labels, *clips.stretch(i))
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
    return FolderIndex(list(places.values()), list(refused.values()), notes)


def _probe(reader: FolderReader, files: Sequence[str]) -> dict[str, Length]:
    with concurrent.futures.ThreadPoolExecutor(_PROBING_THREADS) as pool:
        return dict(zip(files, pool.map(reader.length_s, files), strict=True))


def held_out_files(
    reader: FolderReader, rows: Sequence[Row], index: FolderIndex, eval_fraction: float
) -> set[str]:
    """The files that are held out: as the rows say, or by a hash of the name.

    The hash depends on the name alone, so that a file stays in its part when others come and go. There is one
    exception: if a part would have no usable file, the file with the nearest hash changes sides, and a note
    says so. A file whose row states its split never does.
    """
    held_out = {row.name for row in rows if row.split == _HELD_OUT}
    by_hash = {row.name for row in rows if not row.split}
    if not by_hash:
        return held_out
    held_out |= {file for file in by_hash if unit_hash(file) < eval_fraction}
    firsts = {place.file: place for place in reversed(index.places)}
    in_order = sorted(firsts, key=unit_hash)

    def decodes(place: ClipPlace) -> bool:
        try:
            reader.decode(place)
        except media.MediaError:
            return False
        return True

    def usable(files: Iterable[str]) -> str | None:
        return next((file for file in files if decodes(firsts[file])), None)

    if usable(file for file in in_order if file in held_out) is None:
        moved = usable(file for file in in_order if file in by_hash - held_out)
        if moved is not None:
            held_out.add(moved)
            index.notes.append(f'the hash of the names held out no usable file, so {moved} is held out')
    elif usable(file for file in reversed(in_order) if file not in held_out) is None:
        moved = usable(file for file in reversed(in_order) if file in by_hash & held_out)
        if moved is not None:
            held_out.remove(moved)
            index.notes.append(
                f'the hash of the names held out every usable file, so {moved} is for training'
            )
    return held_out
