"""Counts and checks the labels of clips, and chooses clips by their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from diffmavil_jax.data.clip import ClipSource, DataError


def label_sets(source: ClipSource) -> list[Int64[np.ndarray, ' _']]:
    """The class indices of each clip; decodes none."""
    return [source.labels(i) for i in range(len(source))]


def class_counts(sets: Iterable[Int64[np.ndarray, ' _']], classes: int) -> Int64[np.ndarray, ' c']:
    """The number of clips of each class."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *sets]), minlength=classes)


def check_labels(source: ClipSource, sets: Sequence[Int64[np.ndarray, ' _']], least: int) -> None:
    """Checks that training clips have labels, and that there are enough clips of each class.

    Args:
        source: the training clips.
        sets: their labels.
        least: clips that each class must have. With several labels per clip this is not checked, nor is
            whether each clip has one.

    Raises:
        DataError: a clip has no class, fewer than two classes have clips, or a class has fewer than `least`.
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
    sets: Sequence[Int64[np.ndarray, ' _']], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices (kept, held out): of each class a fraction of its clips is held out, at least one.

    A class of one clip keeps it, and fraction 0 holds out none. A clip of several classes counts for the
    rarest of them; a clip without a class is kept.
    """
    held_out: list[int] = []
    for members in _by_rarest(sets).values():
        count = max(1, round(fraction * len(members))) if fraction and len(members) > 1 else 0
        held_out += _shuffled(members, seed)[:count]
    chosen = set(held_out)
    return [i for i in range(len(sets)) if i not in chosen], sorted(held_out)


def few_of_each_class(sets: Sequence[Int64[np.ndarray, ' _']], count: int, seed: int) -> list[int]:
    """Indices of up to `count` clips of each class. A clip of several counts for the rarest of them."""
    return sorted(i for members in _by_rarest(sets).values() for i in _shuffled(members, seed)[:count])


def _by_rarest(sets: Sequence[Int64[np.ndarray, ' _']]) -> dict[int, list[int]]:
    """Indices of the clips, by the rarest class of each."""
    counts = class_counts(sets, 1 + max((int(labels.max()) for labels in sets if len(labels)), default=0))
    groups: dict[int, list[int]] = {}
    for i, labels in enumerate(sets):
        if len(labels):
            groups.setdefault(int(labels[counts[labels].argmin()]), []).append(i)
    return groups


def _shuffled(members: list[int], seed: int) -> list[int]:
    return np.random.default_rng([seed, members[0]]).permutation(members).tolist()
