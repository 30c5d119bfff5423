"""Scores of classification, with bootstrap intervals.

Letters: n clips, c classes. `targets` is 1 for each class of a clip. A class without a clip has
the score NaN and is left out of means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int, Num

Scores = Float[np.ndarray, 'n c']
Targets = Num[np.ndarray, 'n c']


@dataclasses.dataclass(frozen=True)
class Interval:
    """A score of all clips, and the range that holds 95 % of its bootstrap resamples."""

    value: float
    low: float
    high: float


def hits(scores: Scores, targets: Targets, k: int) -> Float[np.ndarray, ' n']:
    """1 for each clip with one of its classes among its k highest scores; a tie counts against it."""
    best = np.where(targets > 0, scores, -np.inf).max(axis=1, keepdims=True)
    others = ((scores >= best) & (targets == 0)).sum(axis=1)
    return (others < k).astype(np.float64)


def average_precision(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """For each class, the mean over its clips of the precision at the clip's score.

    Clips with equal scores share one threshold. A class without a clip has NaN.
    """
    from sklearn.metrics import average_precision_score

    return _by_class(average_precision_score, scores, targets, _clips(targets) > 0)


def area_under_curve(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """For each class, the chance that one of its clips scores above one of the others; a tie counts half.

    A class that no clip or every clip has is NaN.
    """
    from sklearn.metrics import roc_auc_score

    clips = _clips(targets)
    return _by_class(roc_auc_score, scores, targets, (clips > 0) & (clips < len(targets)))


def d_prime(area: float) -> float:
    """The distance of two normal distributions of variance 1 with this area under the ROC curve."""
    return float(np.sqrt(2) * scipy.stats.norm.ppf(area))


def recall(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """For each class, the share of its clips whose highest score it is; a tie is no hit."""
    clips = _clips(targets)
    found = (hits(scores, targets, 1)[:, None] * (targets > 0)).sum(axis=0)
    return np.divide(found, clips, out=np.full(len(clips), np.nan), where=clips > 0)


def confusion(scores: Scores, labels: Int[np.ndarray, ' n']) -> Int[np.ndarray, 'c c']:
    """How many clips of class i (rows) were taken for class j (columns)."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(scores.shape[1]))


def single_label_scores(scores: Scores, targets: Targets) -> dict[str, float]:
    """`top1`, `top5` (with more than five classes) and `mean_recall`, in which all classes weigh the same."""
    result = {'top1': float(hits(scores, targets, 1).mean())}
    if scores.shape[1] > 5:
        result['top5'] = float(hits(scores, targets, 5).mean())
    return result | {'mean_recall': float(np.nanmean(recall(scores, targets)))}


def multi_label_scores(scores: Scores, targets: Targets) -> dict[str, float]:
    """`map` and `auc`, which are means over the classes, and the `d_prime` of that mean area."""
    area = float(np.nanmean(area_under_curve(scores, targets)))
    precision = float(np.nanmean(average_precision(scores, targets)))
    return {'map': precision, 'auc': area, 'd_prime': d_prime(area)}


def bootstrap(
    metric: Callable[[Scores, Targets], Mapping[str, float]],
    scores: Scores,
    targets: Targets,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals over clips drawn with replacement (Efron and Tibshirani 1993, section 13.3)."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = rng.integers(len(scores), size=len(scores))
        for name, value in metric(scores[rows], targets[rows]).items():
            drawn.setdefault(name, []).append(value)
    intervals = {}
    for name, value in metric(scores, targets).items():
        low, high = np.nanpercentile(drawn[name], [2.5, 97.5])
        intervals[name] = Interval(value, float(low), float(high))
    return intervals


def _clips(targets: Targets) -> Int[np.ndarray, ' c']:
    """How many clips each class has."""
    return (targets > 0).sum(axis=0)


def _by_class(
    score: Callable[[np.ndarray, np.ndarray], float],
    scores: Scores,
    targets: Targets,
    defined: Bool[np.ndarray, ' c'],
) -> Float[np.ndarray, ' c']:
    """Calls `score` with the truth and the scores of each class; NaN where it is not defined."""
    defined = defined & np.isfinite(scores).all(axis=0)  # scikit-learn raises for NaN
    values = np.full(len(defined), np.nan)
    for c in np.flatnonzero(defined):
        values[c] = score(targets[:, c] > 0, scores[:, c])
    return values
