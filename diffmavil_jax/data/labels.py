"""Which labels clips have, and how they are divided by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from diffmavil_jax.data.clip import ClipSource, DataError


def label_sets(source: ClipSource) -> list[Int64[np.ndarray, ' _']]:
    """The classes of every clip."""
    return [source.labels(i) for i in range(len(source))]


def class_counts(sets: Iterable[Int64[np.ndarray, ' _']], classes: int) -> Int64[np.ndarray, ' c']:
    """How many clips each class has."""
    counts = np.zeros(classes, np.int64)
    for labels in sets:
        counts[labels] += 1
    return counts


def check_labels(source: ClipSource, sets: Sequence[Int64[np.ndarray, ' _']], least: int) -> None:
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
    sets: Sequence[Int64[np.ndarray, ' _']], fraction: float, seed: int
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


def few_of_each_class(sets: Sequence[Int64[np.ndarray, ' _']], count: int, seed: int) -> list[int]:
    """Indices of up to `count` clips of each class; a clip of several classes goes by the rarest of them."""
    return sorted(i for members in _by_rarest(sets).values() for i in _shuffled(members, seed)[:count])


def _by_rarest(sets: Sequence[Int64[np.ndarray, ' _']]) -> dict[int, list[int]]:
    counts = class_counts(sets, 1 + max((int(labels.max()) for labels in sets if len(labels)), default=0))
    groups: dict[int, list[int]] = {}
    for i, labels in enumerate(sets):
        if len(labels):
            groups.setdefault(int(labels[counts[labels].argmin()]), []).append(i)
    return groups


def _shuffled(members: list[int], seed: int) -> list[int]:
    return np.random.default_rng([seed, members[0]]).permutation(members).tolist()
