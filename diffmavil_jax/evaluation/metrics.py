"""Scores of classification, with bootstrap intervals.

Letters: n clips, c classes. `targets` is 1 for each class of a clip. A class without a clip has
no score (NaN) and is left out of means.
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
    """A score of all clips, and where it lies for 95 % of the bootstrap's resamples."""

    value: float
    low: float
    high: float


def hits(scores: Scores, targets: Targets, k: int) -> Float[np.ndarray, ' n']:
    """1 for each clip that has a class among its k highest scores, where ties count against it."""
    best = np.where(targets > 0, scores, -np.inf).max(axis=1, keepdims=True)
    others = ((scores >= best) & (targets == 0)).sum(axis=1)
    return (others < k).astype(np.float64)


def average_precision(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """Of each class: the mean, over its clips, of the precision at the clip's score.

    Clips with equal scores are taken at once, as in scikit-learn's `average_precision_score`.
    """
    return _by_class(scores, targets, _average_precision)


def area_under_curve(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """Of each class: the chance that one of its clips scores above one of another, ties half."""
    return _by_class(scores, targets, _area)


def d_prime(area: float) -> float:
    """The distance of two normal distributions of variance 1 with that area under the ROC curve."""
    return float(np.sqrt(2) * scipy.stats.norm.ppf(area))


def recall(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """Of each class: the share of its clips whose highest score it is; a tie is no hit."""
    clips = (targets > 0).sum(axis=0)
    found = (hits(scores, targets, 1)[:, None] * (targets > 0)).sum(axis=0)
    return np.divide(found, clips, out=np.full(len(clips), np.nan), where=clips > 0)


def confusion(scores: Scores, labels: Int[np.ndarray, ' n']) -> Int[np.ndarray, 'c c']:
    """How many clips of class i (rows) were taken for class j (columns)."""
    classes = scores.shape[1]
    pairs = labels * classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def single_label_scores(scores: Scores, targets: Targets) -> dict[str, float]:
    """`top1`, `top5` (with more than five classes) and `mean_recall`, which weighs classes equally."""
    result = {'top1': float(hits(scores, targets, 1).mean())}
    if scores.shape[1] > 5:
        result['top5'] = float(hits(scores, targets, 5).mean())
    return result | {'mean_recall': float(np.nanmean(recall(scores, targets)))}


def multi_label_scores(scores: Scores, targets: Targets) -> dict[str, float]:
    """`map`, `auc` and `d_prime`: means over the classes, the last of the mean area."""
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


def _by_class(
    scores: Scores, targets: Targets, score: Callable[[np.ndarray, np.ndarray], float]
) -> Float[np.ndarray, ' c']:
    positive = targets > 0
    pairs = zip(scores.T, positive.T, strict=True)
    return np.array([score(column, truth) if truth.any() else np.nan for column, truth in pairs])


def _average_precision(scores: Float[np.ndarray, ' n'], truth: Bool[np.ndarray, ' n']) -> float:
    order = np.argsort(-scores, kind='stable')
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
    found = np.cumsum(truth[order])[ends]
    precision = found / (ends + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])


def _area(scores: Float[np.ndarray, ' n'], truth: Bool[np.ndarray, ' n']) -> float:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not negatives:
        return float('nan')
    ranks = scipy.stats.rankdata(scores)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
