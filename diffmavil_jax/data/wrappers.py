"""Sources for training on labels: targets, choices of clips, and draws that favour rare classes.

Each wraps another ClipSource, and is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from diffmavil_jax.data.clip import ARRAYS, MODALITIES, Clip, ClipSource, DataError, Refusal

_SMOOTHING = 0.01  # of class counts, as AudioMAE's sampler has it


class Subset:
    """Some clips of a source, in the order given."""

    def __init__(self, source: ClipSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, tuple(indices)
        self.name, self.modalities = source.name, source.modalities
        self.label_names, self.multi_label = source.label_names, source.multi_label

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Clip:
        return self.source[self.indices[index]]

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
    """A source whose clips have a `target`, and of their arrays those of some modalities."""

    def __init__(self, source: ClipSource, modalities: Sequence[str]) -> None:
        super().__init__(source, range(len(source)))
        self.modalities = tuple(modalities)

    def __getitem__(self, index: int) -> Clip:
        clip = self.source[index].copy()
        for modality in set(MODALITIES) - set(self.modalities):
            clip.pop(ARRAYS[modality], None)  # type: ignore[misc]
        clip['target'] = np.zeros(len(self.label_names), np.float32)
        clip['target'][self.source.labels(index)] = 1.0
        return clip


class Balanced(Subset):
    """A source from which clips are drawn with replacement, those of rare classes more often.

    A clip weighs the sum over its classes of 1 / (clips of the class + 0.01) (AudioMAE's sampler).
    """

    def __init__(self, source: ClipSource, label_sets: Sequence[Int64[np.ndarray, ' n']]) -> None:
        super().__init__(source, range(len(source)))
        counts = class_counts(label_sets, len(source.label_names))
        weights = np.array([(1 / (counts[labels] + _SMOOTHING)).sum() for labels in label_sets])
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, seed: int, position: int) -> int:
        """The index of the clip at a position of the endless order."""
        drawn = np.random.default_rng([seed, position]).random()
        return min(int(np.searchsorted(self._cumulative, drawn, side='right')), len(self) - 1)


def label_sets(source: ClipSource) -> list[Int64[np.ndarray, ' n']]:
    """The classes of every clip."""
    return [source.labels(i) for i in range(len(source))]


def class_counts(sets: Iterable[Int64[np.ndarray, ' n']], classes: int) -> Int64[np.ndarray, ' c']:
    """How many clips each class has."""
    counts = np.zeros(classes, np.int64)
    for labels in sets:
        counts[labels] += 1
    return counts


def check_labels(source: ClipSource, sets: Sequence[Int64[np.ndarray, ' n']], least: int) -> None:
    """Checks that there is something to learn, and that no class is a silent zero.

    Raises:
        DataError: a clip has no class, or fewer than two classes have clips, or one has fewer
            than `least`.
    """
    unlabelled = sum(not len(labels) for labels in sets)
    if unlabelled and not source.multi_label:
        raise DataError(
            f'{unlabelled} of the {len(sets)} training clips of {source.name} have no label. Classification '
            'needs one for each: complete the list, or drop these rows and prepare again.'
        )
    counts = class_counts(sets, len(source.label_names))
    if (counts > 0).sum() < 2:
        raise DataError(
            f'{source.name} has training clips of {int((counts > 0).sum())} classes; classification needs '
            'two or more. Its list needs a column `label`, or its folder a sub-folder for each class.'
        )
    scarce = {source.label_names[c]: int(counts[c]) for c in np.flatnonzero(counts < least)}
    if scarce and not source.multi_label:
        few = ', '.join(f'{name!r} ({count})' for name, count in list(scarce.items())[:5])
        raise DataError(
            f'{len(scarce)} of {len(counts)} classes of {source.name} have fewer than {least} clips to train '
            f'on: {few}. Add clips, drop these classes from the list, or set '
            'config.finetune.validation_fraction=0, for which one clip is enough.'
        )


def split_by_class(
    sets: Sequence[Int64[np.ndarray, ' n']], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): of each class `fraction` of its clips are held out, at least one.

    A clip of several classes goes by the rarest of them; one of no class is kept.
    """
    held_out: list[int] = []
    for members in _by_rarest(sets).values():
        count = max(1, round(fraction * len(members))) if fraction and len(members) > 1 else 0
        held_out += _shuffled(members, seed)[:count]
    chosen = set(held_out)
    return [i for i in range(len(sets)) if i not in chosen], sorted(held_out)


def few_of_each_class(sets: Sequence[Int64[np.ndarray, ' n']], count: int, seed: int) -> list[int]:
    """Indices of up to `count` clips of each class; a clip of several classes goes by the rarest of them."""
    return sorted(i for members in _by_rarest(sets).values() for i in _shuffled(members, seed)[:count])


def _by_rarest(sets: Sequence[Int64[np.ndarray, ' n']]) -> dict[int, list[int]]:
    counts = class_counts(sets, 1 + max((int(labels.max()) for labels in sets if len(labels)), default=0))
    groups: dict[int, list[int]] = {}
    for i, labels in enumerate(sets):
        if len(labels):
            groups.setdefault(int(labels[counts[labels].argmin()]), []).append(i)
    return groups


def _shuffled(members: list[int], seed: int) -> list[int]:
    return np.random.default_rng([seed, members[0]]).permutation(members).tolist()
