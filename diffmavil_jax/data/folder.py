"""The `folder` source: any videos with sound, decoded on the fly and split into train and held-out.

A CSV in the folder may say more: `path` (relative to the CSV), and optionally `split`,
`label`, `start_s` and `duration_s`. `listings.cutting` says which clips a row or a file has.

Nothing is dropped in silence: what can't be used is in `refused()`, and what was understood
otherwise than it may have been meant is in `FolderSources.notes`.
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
from diffmavil_jax.data.sandbox import DecodePool


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
        return FolderSource(reader, places, listing.class_names, refused, ledger, cache)

    return FolderSources(part(False), part(True), tuple(index.notes))


class FolderSource:
    """One part of a folder (a ClipSource). `open_folder` makes it.

    A clip that turns out to be unusable is refused, and the next usable one takes its place.
    """

    multi_label = False

    def __init__(
        self,
        reader: FolderReader,
        places: Sequence[ClipPlace],
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

    def _decode(self, i: int) -> ClipArrays:
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


class _Cache:
    """ClipArrays clips: the first to come are kept, until the memory is used up."""

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
        return _Cache, (self._max_bytes,)  # a worker process begins with an empty one


def _empty_part(root: pathlib.Path, held: bool, by_csv: bool) -> str:
    part, splits = ('held-out', HELD_OUT_SPLITS) if held else ('training', TRAIN_SPLITS)
    if by_csv:
        return f'{root} has no usable {part} clip: the CSV needs rows with split {" or ".join(splits)}.'
    return f'{root} has no usable {part} clip: it takes at least two usable files, one of them is held out.'
