"""Ranks and recalls of retrieval, against a loop over all pairs."""

import numpy as np
import pytest

from diffmavil_jax.evaluation import retrieval


def features(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def loop_ranks(queries, targets):
    """The definition, one pair at a time."""
    result = []
    for i, q in enumerate(queries):
        scores = [q @ t / np.linalg.norm(q) / np.linalg.norm(t) for t in targets]
        result.append(1 + sum(scores[j] >= scores[i] for j in range(len(targets)) if j != i))
    return result


def test_ranks_match_a_loop():
    queries = features(40, 6, 0)
    # Lengths differ, so that cosine is not the inner product.
    targets = queries + features(40, 6, 1) * np.linspace(0.1, 30, 40)[:, None]
    ranks = retrieval.ranks(queries, targets)
    assert len(set(ranks)) > 5
    np.testing.assert_array_equal(ranks, loop_ranks(queries.astype(np.float64), targets.astype(np.float64)))


def test_retrieval_summarises_the_ranks():
    # On the unit circle, with targets turned by less or more than half a step.
    angles = np.arange(12) * 2 * np.pi / 12
    turn = np.where(np.arange(12) < 9, 0.1, 0.4)
    queries, targets = (np.stack([np.cos(a), np.sin(a)], axis=1) for a in (angles, angles + turn))
    rank = np.array(loop_ranks(queries, targets))
    result = retrieval.retrieval(queries, targets)
    assert result == {
        'recall_at_1': np.mean(rank == 1),
        'recall_at_5': np.mean(rank <= 5),
        'recall_at_10': np.mean(rank <= 10),
        'median_rank': np.median(rank),
        'num_candidates': 12,
    }
    assert 0 < result['recall_at_1'] < 1


def test_equal_features_are_found():
    x = features(64, 16, 2)
    result = retrieval.retrieval(x, 3 * x)
    assert result['recall_at_1'] == 1 and result['median_rank'] == 1


@pytest.mark.parametrize('noise', [0, 1e-10])
def test_constant_features_rank_last(noise):
    queries = np.ones((300, 7)) * np.pi + noise * features(300, 7, 3)
    targets = -np.ones((300, 7)) * np.arange(7) / 3 + noise * features(300, 7, 4)
    np.testing.assert_array_equal(retrieval.ranks(queries, targets), 300)
    assert retrieval.retrieval(queries, targets)['recall_at_10'] == 0


def test_a_duplicate_target_costs_one_rank():
    x = features(20, 8, 5)
    x[13] = x[4]
    np.testing.assert_array_equal(retrieval.ranks(x, x), np.where(np.isin(np.arange(20), [4, 13]), 2, 1))


def test_zero_rows_are_ties_with_everything():
    x = features(20, 8, 6)
    ranks = retrieval.ranks(np.where(np.arange(20)[:, None] == 3, 0, x), x)
    assert ranks[3] == 20 and np.all(np.delete(ranks, 3) == 1)


def test_ranks_do_not_depend_on_the_order_of_clips():
    queries, targets = features(50, 4, 7), features(50, 4, 8)
    order = np.random.default_rng(9).permutation(50)
    ranks = retrieval.ranks(queries, targets)
    np.testing.assert_array_equal(retrieval.ranks(queries[order], targets[order]), ranks[order])


def test_noise_is_at_chance():
    results = [retrieval.retrieval(features(256, 32, s), features(256, 32, s + 99)) for s in range(20)]
    expected = retrieval.chance(256)
    # 5,120 ranks: standard errors of 0.0009 and 0.0027, and of about 2 for the median.
    assert np.mean([r['recall_at_1'] for r in results]) == pytest.approx(expected['recall_at_1'], abs=0.0035)
    assert np.mean([r['recall_at_10'] for r in results]) == pytest.approx(expected['recall_at_10'], abs=0.011)
    assert np.mean([r['median_rank'] for r in results]) == pytest.approx(expected['median_rank'], abs=8)


def test_chance():
    assert retrieval.chance(256) == {
        'recall_at_1': 1 / 256,
        'recall_at_5': 5 / 256,
        'recall_at_10': 10 / 256,
        'median_rank': 128.5,
        'num_candidates': 256,
    }
    assert retrieval.chance(4)['recall_at_5'] == 1


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('side', [0, 1])
def test_features_that_are_not_finite_raise(bad, side):
    pair = [features(8, 3, 10), features(8, 3, 11)]
    pair[side][5, 1] = bad
    with pytest.raises(ValueError, match=r'1 of 8 rows are not finite, first row 5'):
        retrieval.retrieval(*pair)


def test_unpaired_features_raise(unchecked):
    with pytest.raises(ValueError, match='pair row by row'):
        retrieval.retrieval(features(8, 3, 0), features(7, 3, 0))


def test_the_nearest_are_the_best_in_order():
    queries, targets = features(5, 4, 12), features(9, 4, 13)
    scores = retrieval.cosine(queries, targets)
    top = retrieval.nearest(scores, 3)
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    for query, found in zip(queries, top, strict=True):
        assert list(found) == sorted(range(9), key=lambda j: -(query @ unit[j]))[:3]
    assert retrieval.nearest(scores, 20).shape == (5, 9)


def test_the_nearest_of_equal_targets_come_in_their_order():
    constant = np.ones((300, 7)) * np.pi + 1e-10 * features(300, 7, 14)  # equal but for rounding
    top = retrieval.nearest(retrieval.cosine(np.ones((300, 7)) * np.arange(7), constant), 4)
    np.testing.assert_array_equal(top, np.tile(np.arange(4), (300, 1)))
