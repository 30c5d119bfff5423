"""What differences of two methods allow to say: intervals that respect how scores are nested, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Verdict = Literal['better', 'worse', 'within the margin', 'undecided']


def by_pretraining(scores: Sequence[Any]) -> Float[np.ndarray, ' n']:
    """One value for each pretraining: the mean of what was measured of it, level by level.

    Folds and fine-tunings of one pretraining share its luck, so they are no independent values: an interval
    over all of them would be too short.

    Args:
        scores: of each pretraining a number or, nested, its folds' and their fine-tunings' (lists or
            mappings).
    """
    return np.array([_mean(score) for score in scores])


def interval(differences: Float[np.ndarray, ' n'], comparisons: int = 1) -> tuple[float, float]:
    """Student's t interval of the mean difference, paired by pretraining; infinite for a single one.

    Args:
        differences: one for each pair of pretrainings.
        comparisons: intervals that shall all hold at once with 95 % (Bonferroni).
    """
    n = len(differences)
    if n < 2:
        return -np.inf, np.inf
    half = stats.t.ppf(1 - 0.025 / comparisons, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return float(differences.mean() - half), float(differences.mean() + half)


def verdict(low: float, high: float, margin: float) -> Verdict:
    """What the interval of a difference says. Being within the margin goes before its sign.

    Args:
        low: end of the interval.
        high: the other end.
        margin: the largest difference that does not matter.
    """
    if -margin < low and high < margin:
        return 'within the margin'
    if low > 0:
        return 'better'
    return 'worse' if high < 0 else 'undecided'


def _mean(score: Any) -> float:
    if isinstance(score, Mapping):
        score = list(score.values())
    if isinstance(score, Sequence):
        return float(np.mean([_mean(part) for part in score]))
    return float(score)
