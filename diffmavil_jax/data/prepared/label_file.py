"""The labels of a split in a file of their own, beside its shards: they are read without any clip.

    VERSION/train.labels.npz    counts int32 [n]: of each clip; indices int32 [sum of counts]: of its classes

Datasets of older versions have no such file: then the records are read, but no sound or picture is decoded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import Int

from diffmavil_jax.atomic import replacing


class Labels(Sequence[Int[np.ndarray, ' _']]):
    """The class indices of each of n clips, ascending."""

    def __init__(self, counts: Int[np.ndarray, ' n'], indices: Int[np.ndarray, ' m']) -> None:
        """Takes the number of classes of each clip, and all of their indices one after the other.

        Raises:
            ValueError: they do not fit each other.
        """
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._indices = np.asarray(indices, np.int64)
        self._begins = self._ends - counts
        if (np.asarray(counts) < 0).any() or len(self._indices) != (self._ends[-1] if len(counts) else 0):
            raise ValueError(f'{len(self._indices)} labels of {len(counts)} clips do not fit their counts')

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Int[np.ndarray, ' _']:  # type: ignore[override]
        return self._indices[self._begins[index] : self._ends[index]]

    @classmethod
    def of(cls, sets: Sequence[Sequence[int]]) -> Labels:
        """Labels of the class indices of each clip."""
        return cls(_counts(sets), _indices(sets))

    @classmethod
    def joined(cls, parts: Sequence[Labels]) -> Labels:
        """The labels of the clips of several parts, one part after the other."""
        counts = [part._ends - part._begins for part in parts]
        return cls(np.concatenate(counts), np.concatenate([part._indices for part in parts]))

    def between(self, begin: int, end: int) -> Labels:
        """The labels of the clips from `begin` until before `end`."""
        counts = (self._ends - self._begins)[begin:end]
        first = self._begins[begin] if len(counts) else 0
        return Labels(counts, self._indices[first : first + counts.sum()])


def write_labels(folder: epath.Path, split: str, sets: Sequence[Sequence[int]]) -> None:
    """Writes the class indices of each clip of a split."""
    with replacing(folder / _name(split)) as draft, draft.open('wb') as file:
        np.savez(file, counts=_counts(sets), indices=_indices(sets))


def read_labels(folder: epath.Path, split: str) -> Labels | None:
    """The labels of a split; None if there is no file of them, or a broken one."""
    try:
        with (folder / _name(split)).open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            return Labels(arrays['counts'], arrays['indices'])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _name(split: str) -> str:
    return f'{split}.labels.npz'


def _counts(sets: Sequence[Sequence[int]]) -> Int[np.ndarray, ' n']:
    return np.array([len(labels) for labels in sets], np.int32)


def _indices(sets: Sequence[Sequence[int]]) -> Int[np.ndarray, ' m']:
    return np.array([label for labels in sets for label in labels], np.int32)
