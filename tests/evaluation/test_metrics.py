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


def test_predictions_of_nan_are_all_wrong():
    nothing, targets = np.full((8, 10), np.nan), np.eye(10)[:8]
    assert set(metrics.single_label_scores(nothing, targets).values()) == {0}
    assert metrics.hits(np.full((2, 1), np.nan), np.ones((2, 1)), 1).tolist() == [0, 0]
    assert (metrics.area_under_curve(nothing, targets)[:8] == 0).all()
    assert metrics.average_precision(nothing, targets)[:8] == pytest.approx(np.full(8, 1 / 8))
    assert metrics.confusion(nothing, np.arange(8)).sum() == 0


def test_one_prediction_of_nan_counts_against_its_class_and_its_clip():
    targets, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])
    scores = targets.copy()
    scores[0, 0] = scores[1, 2] = np.nan
    assert metrics.hits(scores, targets, 1).tolist() == [0, 0, 1, 1]
    assert metrics.area_under_curve(scores, targets).tolist() == pytest.approx([0.5, 1, 2 / 3])
    assert metrics.average_precision(scores, targets).tolist() == pytest.approx([0.75, 1, 0.5])
    np.testing.assert_array_equal(metrics.confusion(scores, labels), np.diag([1, 0, 1]))


def test_infinite_scores_have_an_order():
    scores, targets = (
        np.array([[-np.inf, 0.0], [1.0, np.inf], [0.0, 2.0]]),
        np.array([[0, 0], [1, 1], [0, 1]]),
    )
    assert metrics.area_under_curve(scores, targets).tolist() == [1, 1]
    assert metrics.average_precision(scores, targets).tolist() == [1, 1]


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


def test_the_interval_of_an_accuracy_is_that_of_its_log_odds(single_label):
    scores, targets, _ = single_label
    interval = metrics.jackknife(metrics.single_label_scores, scores, targets, groups=len(scores))['top1']
    p, n = metrics.hits(scores, targets, 1).mean(), len(scores)
    half = scipy.stats.t.ppf(0.975, n - 1) / np.sqrt((n - 1) * p * (1 - p))
    expected = scipy.special.expit(scipy.special.logit(p) + np.array([-half, half]))
    assert interval.value == p
    assert [interval.low, interval.high] == pytest.approx(expected.tolist())


def test_groups_of_clips_give_about_the_interval_of_single_clips(single_label):
    scores, targets, _ = single_label
    single, grouped = (
        metrics.jackknife(metrics.single_label_scores, scores, targets, groups=groups)['top1']
        for groups in (150, 40)  # not all groups of 150 clips in 40 are equally large
    )
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.25)


def test_a_score_without_spread_is_a_point_and_shares_stay_shares():
    targets = np.eye(2)[[0, 1] * 10]
    right = metrics.jackknife(metrics.single_label_scores, targets, targets)['top1']
    assert (right.low, right.value, right.high) == (1, 1, 1)
    scores = targets.copy()
    scores[0] = scores[0, ::-1]
    nearly = metrics.jackknife(metrics.single_label_scores, scores, targets)['top1']
    assert 0.5 < nearly.low < nearly.value == 0.95 < nearly.high < 1


def test_the_interval_of_map_covers_what_other_clips_would_give():
    rng = np.random.default_rng(1)
    ranks = np.arange(1, 101)[:, None]

    def mean_precision(scores, targets):  # as `average_precision` where nothing ties, for all classes at once
        found = np.take_along_axis(targets, np.argsort(-scores, axis=0), axis=0)
        precision = found.cumsum(axis=0) / ranks[: len(found)]
        clips = found.sum(axis=0)
        known = clips > 0
        return {'map': ((precision * found).sum(axis=0)[known] / clips[known]).mean()}

    def test_set():
        targets = (rng.random((100, 40)) < 0.04).astype(np.float64)
        return targets + rng.normal(size=targets.shape), targets

    scores, targets = test_set()
    assert mean_precision(scores, targets)['map'] == pytest.approx(
        metrics.multi_label_scores(scores, targets)['map']
    )
    truth = np.mean([mean_precision(*test_set())['map'] for _ in range(1_000)])
    intervals = [metrics.jackknife(mean_precision, *test_set(), groups=20)['map'] for _ in range(150)]
    # A bootstrap's lies above the truth in 14 %: a class's clips that are drawn twice rank each other higher.
    assert np.mean([interval.low > truth for interval in intervals]) <= 0.06
    assert np.mean([interval.high < truth for interval in intervals]) <= 0.06
    widths = [interval.high - interval.low for interval in intervals]
    values = [interval.value for interval in intervals]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.35)


def test_answers_choose_their_scores(single_label):
    scores, targets, labels = single_label
    single = Answers(scores, targets, multi_label=False)
    assert set(single.scores()) == {'top1', 'top5', 'mean_recall'}
    np.testing.assert_array_equal(single.labels, labels)
    several = Answers(scores, targets, multi_label=True)
    assert set(several.scores()) == {'map', 'auc', 'd_prime'} == set(several.intervals())
    np.testing.assert_array_equal(several.by_class(), metrics.average_precision(scores, targets))
