"""Sources that change another source: some of its clips, targets, balanced draws, blanks for what is missing.

Each wraps a ClipSource and is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.data.clip import ARRAYS, NO_LABEL, Clip, ClipSource, ClipSpec, Refusal, read
from diffmavil_jax.data.labels import class_counts
from diffmavil_jax.data.take import FIXED, Take

_SMOOTHING = 0.01  # added to class counts, as in AudioMAE's sampler


class Subset:
    """Some clips of a source, in the order given."""

    def __init__(self, source: ClipSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, tuple(indices)
        self.name, self.modalities = source.name, source.modalities
        self.label_names, self.multi_label = source.label_names, source.multi_label

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        return read(self.source, self.indices[index], take)

    def refused(self) -> list[Refusal]:
        return self.source.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        """Takes over what another process refused, by index in the whole source."""
        self.source.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        return self.source.factors(self.indices[index])

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        return self.source.labels(self.indices[index])


class Targets(Subset):
    """A source whose clips have a `target` float32 [classes], and the arrays of some modalities only."""

    def __init__(self, source: ClipSource, modalities: Sequence[str]) -> None:
        super().__init__(source, range(len(source)))
        self.modalities = tuple(modalities)

    def read(self, index: int, take: Take) -> Clip:
        clip = read(self.source, index, take).copy()
        for modality in set(MODALITIES) - set(self.modalities):
            clip.pop(ARRAYS[modality], None)  # type: ignore[misc]
        clip['target'] = np.zeros(len(self.label_names), np.float32)
        # Those of the item that came, which may stand in for another.
        labels = clip.get('labels', [clip['label']] if clip['label'] != NO_LABEL else None)
        clip['target'][self.source.labels(index) if labels is None else labels] = 1.0
        return clip


class Balanced(Subset):
    """A source whose clips are drawn with replacement, those of rare classes more often.

    The weight of a clip is the sum over its classes of 1 / (clips of the class + 0.01), as in AudioMAE's
    sampler. `mixture.endless` draws.
    """

    def __init__(self, source: ClipSource, label_sets: Sequence[Int64[np.ndarray, ' _']]) -> None:
        super().__init__(source, range(len(source)))
        counts = class_counts(label_sets, len(source.label_names))
        weights = np.array([(1 / (counts[labels] + _SMOOTHING)).sum() for labels in label_sets])
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, seed: int, position: int) -> int:
        """The index of the clip at a position of the endless order."""
        drawn = np.random.default_rng([seed, position]).random()
        return min(int(np.searchsorted(self._cumulative, drawn, side='right')), len(self) - 1)


class Completed:
    """A source whose clips have both modalities: silence or black pictures stand in for one that is missing.

    `present` float32 [2] of a clip is 1 for each of MODALITIES that it really has, else 0. Nothing may be
    learned from what stands in, and nothing may be measured on it.
    """

    modalities = MODALITIES

    def __init__(self, source: ClipSource, spec: ClipSpec) -> None:
        self._source, self._spec = source, spec
        self.name, self.label_names = source.name, source.label_names
        self.multi_label = source.multi_label

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index, FIXED)

    def read(self, index: int, take: Take) -> Clip:
        clip = read(self._source, index, take).copy()
        clip['present'] = np.array([ARRAYS[m] in clip for m in MODALITIES], np.float32)
        for modality in MODALITIES:
            if ARRAYS[modality] not in clip:
                clip[ARRAYS[modality]] = self._spec.blank(ARRAYS[modality])  # type: ignore[literal-required]
        return clip

    def refused(self) -> list[Refusal]:
        return self._source.refused()

    def record(self, refused: Mapping[int, Refusal]) -> None:
        self._source.record(refused)

    def factors(self, index: int) -> dict[str, Float[np.ndarray, ' d'] | int]:
        return self._source.factors(index)

    def labels(self, index: int) -> Int64[np.ndarray, ' n']:
        return self._source.labels(index)
