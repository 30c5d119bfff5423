"""Scores of classification, with jackknife intervals.

Letters: n clips, c classes. `targets` is 1 for each class of a clip. A class without a clip has
the score NaN and is left out of means. A prediction that is NaN counts as wrong: as the lowest for a class
that the clip has, as the highest for another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int, Num

Scores = Float[np.ndarray, 'n c']
Targets = Num[np.ndarray, 'n c']


@dataclasses.dataclass(frozen=True)
class Interval:
    """A score of all clips, and the ends of its 95 % interval over clips."""

    value: float
    low: float
    high: float


def hits(scores: Scores, targets: Targets, k: int) -> Float[np.ndarray, ' n']:
    """1 for each clip with one of its classes among its k highest scores; a tie counts against it."""
    scores = _without_nan(scores, targets)
    best = np.where(targets > 0, scores, -np.inf).max(axis=1, keepdims=True)
    others = ((scores >= best) & (targets == 0)).sum(axis=1)
    return ((others < k) & (best[:, 0] > -np.inf)).astype(np.float64)


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
    return float(np.sqrt(2) * scipy.special.ndtri(area))


def recall(scores: Scores, targets: Targets) -> Float[np.ndarray, ' c']:
    """For each class, the share of its clips whose highest score it is; a tie is no hit."""
    clips = _clips(targets)
    found = (hits(scores, targets, 1)[:, None] * (targets > 0)).sum(axis=0)
    return np.divide(found, clips, out=np.full(len(clips), np.nan), where=clips > 0)


def confusion(scores: Scores, labels: Int[np.ndarray, ' n']) -> Int[np.ndarray, 'c c']:
    """How many clips of class i (rows) were taken for class j (columns); not those with a score of NaN."""
    from sklearn.metrics import confusion_matrix

    classes, known = np.arange(scores.shape[1]), ~np.isnan(scores).any(axis=1)
    if not known.any():  # scikit-learn raises
        return np.zeros((len(classes), len(classes)), int)
    return confusion_matrix(labels[known], scores[known].argmax(axis=1), labels=classes)


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


def jackknife(
    metric: Callable[[Scores, Targets], Mapping[str, float]],
    scores: Scores,
    targets: Targets,
    *,
    groups: int = 50,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of what the scores would be on other test sets of as many clips, drawn alike.

    The deviation is that of a grouped jackknife: the scores are computed without each of the groups of
    clips, which are random. No clip counts twice, as it does in a bootstrap, which inflates the average
    precision. A score from 0 to 1 has an interval that is even in its log odds, another one on its own scale.

    Args:
        metric: gives scores by name; those called `d_prime` are not shares.
        scores: of the classifier.
        targets: 1 for each class of a clip.
        groups: of clips, at most; as many as there are clips is the delete-one jackknife.
        seed: of the groups.
    """
    parts = np.array_split(np.random.default_rng(seed).permutation(len(scores)), min(groups, len(scores)))
    without = [metric(np.delete(scores, part, axis=0), np.delete(targets, part, axis=0)) for part in parts]
    sizes = np.array([len(part) for part in parts])
    return {
        name: _interval(value, np.array([scores[name] for scores in without]), sizes, name != 'd_prime')
        for name, value in metric(scores, targets).items()
    }


def _interval(
    value: float, without: Float[np.ndarray, ' g'], sizes: Int[np.ndarray, ' g'], is_share: bool
) -> Interval:
    """Student's interval from the scores without each group of clips; a single point where all are equal."""
    known = np.isfinite(without)  # the only clip of the only class may have been left out
    without, sizes = without[known], sizes[known]
    if len(without) < 2 or np.ptp(without) == 0 or not np.isfinite(value):
        return Interval(value, value, value)
    ratio = sizes.sum() / sizes
    pseudo = ratio * value - (ratio - 1) * without
    deviation = np.sqrt((np.square(pseudo - pseudo.mean()) / (ratio - 1)).mean())
    half = scipy.special.stdtrit(len(without) - 1, 0.975) * deviation
    if not is_share or not 0 < value < 1:
        return Interval(value, value - half, value + half)
    odds, half = scipy.special.logit(value), half / (value * (1 - value))
    low, high = scipy.special.expit([odds - half, odds + half])
    return Interval(value, float(low), float(high))


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
    scores = _without_nan(scores, targets)
    values = np.full(len(defined), np.nan)
    for c in np.flatnonzero(defined):
        column = scores[:, c]
        if not np.isfinite(column).all():  # scikit-learn raises; only the order counts
            column = np.unique(column, return_inverse=True)[1]
        values[c] = score(targets[:, c] > 0, column)
    return values


def _without_nan(scores: Scores, targets: Targets) -> Scores:
    """Scores with the worst value in place of NaN."""
    return np.where(np.isnan(scores), np.where(targets > 0, -np.inf, np.inf), scores)
