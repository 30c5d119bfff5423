"""Makes one source of several datasets, and draws clips in an endless order."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from jaxtyping import Float, Int64

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import ARRAYS, NO_LABEL, Clip, ClipSource, DataError, Refusal, read
from diffmavil_jax.data.take import FIXED, Take, Takes
from diffmavil_jax.data.wrappers import Balanced

# Between the seeds of two parts, each of which is shuffled by its own seed.
_SEED_STEP = 1_000_003
_ENDLESS = 2**31  # positions: more than any run sees


class Mixture:
    """The clips of several sources, one source after the other (a ClipSource).

    `endless` draws from them by `weights`. The classes are those of all parts, by name. A clip has the
    modalities that all parts have, and its id begins with the name of its part.
    """

    def __init__(self, parts: Sequence[ClipSource], weights: Sequence[float] = ()) -> None:
        """Joins sources.

        Args:
            parts: the sources.
            weights: positive, one for each part. Without them each clip has the same weight.

        Raises:
            DataError: the parts have no modality in common, or two have the same name.
        """
        names = [part.name for part in parts]
        self.name = ', '.join(names)
        if len(set(names)) < len(names):
            raise DataError(f'Each dataset of a mixture must have a name of its own: {self.name}.')
        self.modalities = tuple(m for m in MODALITIES if all(m in part.modalities for part in parts))
        if not self.modalities:
            has = '; '.join(f'{part.name} has {" and ".join(part.modalities)}' for part in parts)
            raise DataError(f"Datasets that share neither audio nor video can't be mixed: {has}.")
        self.parts = tuple(parts)
        self.weights = tuple(weights) or tuple(float(len(part)) for part in parts)
        self.label_names = tuple(dict.fromkeys(name for part in parts for name in part.label_names))
        self.multi_label = any(part.multi_label for part in parts)
        self._labels = [[self.label_names.index(name) for name in part.label_names] for part in parts]
        self.starts = [0, *np.cumsum([len(part) for part in parts]).tolist()]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        k, i = self._place(index)
        clip = read(self.parts[k], i, take).copy()
        for modality in set(MODALITIES) - set(self.modalities):
            clip.pop(ARRAYS[modality], None)  # type: ignore[misc]
        clip['id'] = f'{self.parts[k].name}/{clip["id"]}'
        clip['label'] = self._label(k, clip['label'])
        if 'labels' in clip:
            clip['labels'] = self._all_labels(k, clip['labels'])
        if 'refused' in clip:
            clip['refused'] = {self.starts[k] + j: refusal for j, refusal in clip['refused'].items()}
        return clip

    def refused(self) -> list[Refusal]:
        return [
            Refusal(f'{part.name}/{refusal.path}', refusal.reason)
            for part in self.parts
            for refusal in part.refused()
        ]

    def record(self, refused: Mapping[int, Refusal]) -> None:
        for index, refusal in refused.items():
            k, i = self._place(index)
            self.parts[k].record({i: refusal})

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        """The label of item `index`, if any part has labels. Parts differ in other factors."""
        if not self.label_names:
            return {}
        k, i = self._place(index)
        return {'label': self._label(k, int(self.parts[k].factors(i).get('label', NO_LABEL)))}

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        k, i = self._place(index)
        return self._all_labels(k, self.parts[k].labels(i))

    def _all_labels(self, k: int, labels: Int64[np.ndarray, ' n']) -> Int64[np.ndarray, ' n']:
        return np.sort([self._labels[k][label] for label in labels]).astype(np.int64)

    def _label(self, k: int, label: int) -> int:
        return NO_LABEL if label == NO_LABEL else self._labels[k][label]

    def _place(self, index: int) -> tuple[int, int]:
        """The part that an item belongs to, and its index in that part."""
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        k = int(np.searchsorted(self.starts, index, side='right')) - 1
        return k, index - self.starts[k]


def endless(source: ClipSource, seed: int, takes: Takes | None = None) -> grain.MapDataset:
    """The clip at every position of an endless order, which depends on the seed and the sizes alone.

    With `takes`, it is the take of its position.

    A source is shuffled anew in each epoch. Of a Mixture each part is, and any stretch of positions has
    clips of the parts in proportion to their weights, to within one clip. From a Balanced source clips are
    drawn with replacement.
    """
    indices = _indices(source, seed)
    if takes is None:
        return indices.map(source.__getitem__)
    return indices.map_with_index(functools.partial(_taken, source, takes))


def _taken(source: ClipSource, takes: Takes, position: int, index: int) -> Clip:
    return read(source, index, takes(position))


def _indices(source: ClipSource, seed: int) -> grain.MapDataset:
    if isinstance(source, Balanced):
        return grain.MapDataset.range(_ENDLESS).map(functools.partial(source.draw, seed))
    if not isinstance(source, Mixture):
        return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    streams = [
        grain.MapDataset.range(start, end).seed(seed + k * _SEED_STEP).shuffle().repeat()
        for k, (start, end) in enumerate(zip(source.starts, source.starts[1:], strict=False))
    ]
    return grain.MapDataset.mix(streams, source.weights)
