"""Scores against their definitions, on scores with ties and classes without clips."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from diffmavil_jax.evaluation import metrics
from diffmavil_jax.evaluation.classification import Answers


@pytest.fixture(params=[0, 1, 2])
def multi_label(request):
    """Rounded scores, many of them equal, of 200 clips with any number of 12 classes."""
    rng = np.random.default_rng(request.param)
    targets = (rng.random((200, 12)) < np.linspace(0.02, 0.6, 12)).astype(np.float64)
    targets[0] = 1
    scores = np.round(targets * 0.3 + rng.random((200, 12)), request.param)
    return scores, targets


@pytest.fixture
def single_label():
    rng = np.random.default_rng(5)
    labels = rng.integers(7, size=150)
    targets = np.eye(7)[labels]
    return rng.random((150, 7)) + 0.5 * targets, targets, labels


def test_average_precision_is_the_mean_precision_at_the_scores_of_the_clips(multi_label):
    scores, targets = multi_label

    def by_definition(scores, truth):
        return np.mean([truth[scores >= threshold].mean() for threshold in scores[truth > 0]])

    expected = [by_definition(s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(scores, targets), expected, rtol=1e-12)


def test_area_under_curve_is_the_share_of_pairs_in_order_where_a_tie_is_half(multi_label):
    scores, targets = multi_label

    def by_definition(scores, truth):
        difference = scores[truth > 0][:, None] - scores[truth == 0]
        return (difference > 0).mean() + (difference == 0).mean() / 2

    expected = [by_definition(s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    np.testing.assert_allclose(metrics.area_under_curve(scores, targets), expected, rtol=1e-12)


def test_a_class_of_every_clip_has_a_precision_of_1_and_no_area():
    scores, targets = np.array([[0.2, 0.1], [0.4, 0.3]]), np.array([[1, 0], [1, 1]])
    assert metrics.average_precision(scores, targets).tolist() == [1, 1]
    assert np.isnan(metrics.area_under_curve(scores, targets)).tolist() == [True, False]


def test_scores_that_are_not_finite_give_nan_and_no_error():
    scores, targets = np.array([[np.nan, 0.1], [0.4, 0.3]]), np.eye(2)
    for score in (metrics.average_precision, metrics.area_under_curve):
        assert np.isnan(score(scores, targets)).tolist() == [True, False]


@pytest.mark.parametrize('k', [1, 2, 5])
def test_hits_are_those_of_scikit_learn_where_nothing_ties(single_label, k):
    scores, targets, labels = single_label
    theirs = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7))
    assert metrics.hits(scores, targets, k).mean() == pytest.approx(theirs)


def test_a_tie_is_no_hit():
    targets = np.eye(3)[[0, 1]]
    assert metrics.hits(np.zeros((2, 3)), targets, 1).tolist() == [0, 0]
    assert metrics.hits(np.zeros((2, 3)), targets, 3).tolist() == [1, 1]
    assert metrics.single_label_scores(np.zeros((2, 3)), targets)['top1'] == 0


def test_recall_is_that_of_scikit_learn(single_label):
    scores, targets, labels = single_label
    theirs = sklearn.metrics.recall_score(labels, scores.argmax(axis=1), average=None)
    np.testing.assert_allclose(metrics.recall(scores, targets), theirs)


def test_confusion_counts_every_class_also_one_without_clips(single_label):
    scores, _, labels = single_label
    scores = np.pad(scores, ((0, 0), (0, 1)))  # an eighth class that no clip has
    expected = np.zeros((8, 8), int)
    for label, guess in zip(labels, scores.argmax(axis=1), strict=True):
        expected[label, guess] += 1
    np.testing.assert_array_equal(metrics.confusion(scores, labels), expected)


def test_a_class_without_clips_has_no_score():
    targets = np.eye(3)[[0, 1, 0, 1]]
    scores = np.eye(3)[[0, 1, 1, 1]]
    for score in (metrics.average_precision, metrics.area_under_curve, metrics.recall):
        assert np.isnan(score(scores, targets)).tolist() == [False, False, True]
    assert metrics.single_label_scores(scores, targets)['mean_recall'] == pytest.approx(0.75)


@pytest.mark.parametrize('distance', [0.5, 1.0, 2.5])
def test_d_prime_is_the_distance_of_two_normal_distributions(distance):
    area = scipy.stats.norm.cdf(distance / np.sqrt(2))
    assert metrics.d_prime(area) == pytest.approx(distance)


def test_a_bootstrap_interval_is_that_of_the_normal_approximation(single_label):
    scores, targets, _ = single_label
    interval = metrics.bootstrap(metrics.single_label_scores, scores, targets, resamples=2_000)['top1']
    p = metrics.hits(scores, targets, 1).mean()
    half = 1.96 * np.sqrt(p * (1 - p) / len(scores))
    assert interval.value == p
    assert interval.low == pytest.approx(p - half, abs=0.02)
    assert interval.high == pytest.approx(p + half, abs=0.02)


def test_answers_choose_their_scores(single_label):
    scores, targets, labels = single_label
    single = Answers(scores, targets, multi_label=False)
    assert set(single.scores()) == {'top1', 'top5', 'mean_recall'}
    np.testing.assert_array_equal(single.labels, labels)
    several = Answers(scores, targets, multi_label=True)
    assert set(several.scores()) == {'map', 'auc', 'd_prime'} == set(several.intervals())
    np.testing.assert_array_equal(several.by_class(), metrics.average_precision(scores, targets))
