"""The `folder` source: clips of any media files, decoded when they are read.

A CSV in the folder may say more about the files. It has a column `path` (relative to the CSV), and maybe
`split`, `label` or `labels`, `start_s` and `duration_s`. `data.folder_index` finds the clips and says which
are held out; `listings.cutting` cuts files into clips.

Nothing is dropped silently. `refused()` lists what can't be used, and `FolderSources.notes` says where a list
was understood differently from how it may have been meant.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Int64

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import NO_LABEL, Clip, ClipSpec, DataError, Refusal
from diffmavil_jax.data.folder_index import (
    HELD_OUT_SPLITS,
    TRAIN_SPLITS,
    ClipArrays,
    ClipPlace,
    FolderReader,
    held_out_files,
    index_folder,
    list_rows,
)
from diffmavil_jax.data.ledger import Ledger, Substitutes, UnusableError
from diffmavil_jax.data.listings import paths
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.take import FIXED, Take


@dataclasses.dataclass(frozen=True)
class FolderSources:
    """The two parts of a folder, and remarks for the report on how it was read."""

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
        path: of the folder. A CSV in it with a column `path` lists the files; without one, all files below
            the folder whose names end in one of EXTENSIONS are taken, except hidden ones.
        spec: what a clip is.
        eval_fraction: share of the files held out by a stable hash of their names, if no CSV has a column
            `split`. At least one file is held out.
        max_bad_fraction: share of all clips that may be refused, now or later. A stretch of a file that
            gives no clip counts as one.
        cache_bytes: decoded clips of both parts are kept in memory up to this size.
        decoders: processes that read the files, so that a bad file can't end the run.
        modalities: what a file must have, and all that is read of it.
        folder_labels: whether the first sub-folder of a file is its class, if there is no CSV.

    Raises:
        DataError: there are no media, the CSV can't be understood, too much is refused, or a part would be
            empty.
    """
    root = pathlib.Path(path)
    if not os.path.isdir(root):
        raise DataError(f'{root} is not a folder (config.data.path).')
    with paths.said(epath.Path(root)):
        listing = list_rows(epath.Path(root), folder_labels)
    reader = FolderReader(root, spec, decoders, modalities)
    index = index_folder(reader, listing.rows)
    ledger = Ledger(str(root), len(index.places) + len(index.refused), max_bad_fraction)
    for _, refusal in index.refused:
        ledger.record(refusal)
    ledger.check()
    held_out = held_out_files(reader, listing.rows, index, eval_fraction)
    cache = _Cache(cache_bytes)

    def part(held: bool) -> FolderSource:
        places = [place for place in index.places if (place.file in held_out) == held]
        if not places:
            raise DataError(_empty_part(root, held, any(row.split for row in listing.rows)))
        refused = [refusal for file, refusal in index.refused if (file in held_out) == held]
        return FolderSource(reader, places, listing.class_names, listing.multi_label, refused, ledger, cache)

    return FolderSources(part(False), part(True), (*listing.notes, *index.notes))


class FolderSource:
    """The training or the held-out clips of a folder (a ClipSource); `open_folder` makes both.

    A clip that turns out to be unusable is refused, and the next usable one takes its place. A random take of
    a clip that can't be used, for it may be silent there, gives way to the fixed one.
    """

    def __init__(
        self,
        reader: FolderReader,
        places: Sequence[ClipPlace],
        label_names: tuple[str, ...],
        multi_label: bool,
        refused: Sequence[Refusal],
        ledger: Ledger,
        cache: _Cache,
    ) -> None:
        self.name, self.modalities = str(reader.root), reader.modalities
        self.label_names, self.multi_label = label_names, multi_label
        self._reader, self._places, self._cache = reader, places, cache
        self._usable = Substitutes(self.name, len(places), ledger, refused)

    @property
    def counts(self) -> dict[str, float]:
        """The number of `files` and `clips`, and the `seconds` of the clips, refused ones included."""
        files = len({place.file for place in self._places})
        return {'files': files, 'clips': len(self), 'seconds': len(self) * self._reader.spec.seconds}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        """Decodes a take of clip `index`; the fixed one may be in the cache. Its arrays may be read-only.

        Raises:
            DataError: more clips are unusable than config.data.max_bad_fraction allows.
        """
        anew = None if take == FIXED else lambda i: self._decode_take(i, take)
        i, arrays, passed = self._usable.find(index, self._decode, anew)
        place = self._places[i]
        clip = Clip(
            **arrays,  # type: ignore[typeddict-item]
            label=self._label(place.labels),
            labels=np.array(place.labels, np.int64),
            id=place.id,
        )
        if passed:
            clip['refused'] = passed
        return clip

    def refused(self) -> list[Refusal]:
        return self._usable.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._usable.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index`, if each clip may have one; reads a clip that was never read.

        For another takes its place if it can't be used.
        """
        if self.multi_label or not self.label_names:
            return {}
        return {'label': self._label(self._places[self._usable.place(index, self._decode)].labels)}

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        return np.array(self._places[self._usable.expected(index)].labels, np.int64)

    def _label(self, labels: tuple[int, ...]) -> int:
        return labels[0] if len(labels) == 1 and not self.multi_label else NO_LABEL

    def _decode(self, i: int) -> ClipArrays:
        place = self._places[i]
        decoded = self._cache.get(place)
        if decoded is not None:
            return decoded
        decoded = self._decode_take(i, FIXED)
        for array in decoded.values():
            array.flags.writeable = False  # the cache may hand it out again
        self._cache.put(place, decoded)
        return decoded

    def _decode_take(self, i: int, take: Take) -> ClipArrays:
        place = self._places[i]
        try:
            return self._reader.decode(place, take)
        except media.MediaError as error:
            raise UnusableError(Refusal(place.id, str(error))) from error


class _Cache:
    """Keeps decoded clips in memory, first come first served, up to a size in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free = max_bytes
        self._clips: dict[ClipPlace, ClipArrays] = {}
        self._lock = threading.Lock()

    def get(self, place: ClipPlace) -> ClipArrays | None:
        return self._clips.get(place)

    def put(self, place: ClipPlace, decoded: ClipArrays) -> None:
        size = sum(array.nbytes for array in decoded.values())
        with self._lock:
            if size <= self._free and place not in self._clips:
                self._clips[place] = decoded
                self._free -= size

    def __reduce__(self) -> tuple[type[_Cache], tuple[int]]:
        return _Cache, (self._max_bytes,)  # in a worker process it is empty at first


def _empty_part(root: pathlib.Path, held: bool, by_csv: bool) -> str:
    part, splits = ('held-out', HELD_OUT_SPLITS) if held else ('training', TRAIN_SPLITS)
    if by_csv:
        return f'{root} has no usable {part} clip: the CSV needs rows with split {" or ".join(splits)}.'
    return f'{root} has no usable {part} clip: it needs at least two usable files, one of which is held out.'
