"""Probes and nearest neighbours against scikit-learn."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from diffmavil_jax.evaluation import probes


def regression(n, m, d, k, noise, seed=0):
    """Features of unequal scales and means, and noisy linear targets of them."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n + m, d))
    targets = latent @ rng.standard_normal((d, k)) / np.sqrt(d) + noise * rng.standard_normal((n + m, k)) + 5
    features = (latent * np.exp(rng.uniform(-4, 4, d)) + rng.uniform(-9, 9, d)).astype(np.float32)
    return features[:n], targets[:n], features[n:], targets[n:]


def clusters(n, m, d, classes, distance, seed=0):
    """Labelled points: class centres `distance` standard deviations from the origin."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n + m)
    centres = rng.standard_normal((classes, d))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    features = centres[labels] + rng.standard_normal((n + m, d))
    return features[:n], labels[:n], features[n:], labels[n:]


def reference_predictions(train_x, train_y, eval_x):
    """The same estimator from scikit-learn."""
    scaler = StandardScaler().fit(train_x.astype(np.float64))
    model = RidgeCV(alphas=len(train_x) * probes.LAMBDAS).fit(scaler.transform(train_x), train_y)
    return model.predict(scaler.transform(eval_x)), model.alpha_


@pytest.mark.parametrize('noise', [0.01, 1.0, 30.0])
@pytest.mark.parametrize('n, d', [(60, 8), (30, 30), (20, 90)])
def test_ridge_is_ridge_cv(n, d, noise):
    train_x, train_y, eval_x, _ = regression(n, 12, d, 3, noise)
    expected, _ = reference_predictions(train_x, train_y, eval_x)
    np.testing.assert_allclose(probes.RidgeProbe(train_x).predict(train_y, eval_x), expected, atol=1e-5)


def test_the_strength_follows_the_noise():
    chosen = [reference_predictions(*regression(60, 12, 30, 3, noise)[:3])[1] for noise in (0.01, 1.0, 30.0)]
    assert chosen[0] < chosen[1] < chosen[2]  # so that the comparison above covers the whole grid


@pytest.mark.parametrize('n, d', [(14, 3), (10, 25)])
def test_the_strength_has_the_least_leave_one_out_error(n, d):
    train_x, train_y, eval_x, _ = regression(n, 5, d, 2, 0.5, seed=1)
    x = StandardScaler().fit(train_x).transform(train_x.astype(np.float64))
    errors = []
    for strength in n * probes.LAMBDAS:
        held_out = []
        for i in range(n):
            rest = np.arange(n) != i
            model = Ridge(alpha=strength, solver='svd').fit(x[rest], train_y[rest])
            held_out.append(np.mean((model.predict(x[i : i + 1]) - train_y[i]) ** 2))
        errors.append(np.mean(held_out))
    best = Ridge(alpha=n * probes.LAMBDAS[np.argmin(errors)], solver='svd').fit(x, train_y)
    expected = best.predict(StandardScaler().fit(train_x).transform(eval_x.astype(np.float64)))
    np.testing.assert_allclose(probes.RidgeProbe(train_x).predict(train_y, eval_x), expected, atol=1e-5)


@pytest.mark.parametrize('n, d', [(100, 5), (40, 200)])
def test_linear_probe_is_a_discriminant_analysis_of_leave_one_out_predictions(n, d):
    train_x, train_y, eval_x, eval_y = clusters(n, 300, d, 4, 2.0)
    scores, strength = reference_predictions(train_x, np.eye(4)[train_y], eval_x)
    x = StandardScaler().fit(train_x).transform(train_x.astype(np.float64))
    others = []
    for i in range(n):
        rest = np.arange(n) != i
        model = Ridge(alpha=strength, solver='svd').fit(x[rest], np.eye(4)[train_y[rest]])
        others.append(model.predict(x[i : i + 1])[0])
    # The four columns add up to one. The reference needs independent ones, so the last is left out.
    reference = LinearDiscriminantAnalysis().fit(np.stack(others)[:, :3], train_y)
    accuracy = probes.linear_probe(train_x, train_y, eval_x, eval_y)
    # A clip on the border of two classes may fall either way.
    assert accuracy == pytest.approx(np.mean(reference.predict(scores[:, :3]) == eval_y), abs=1.5 / 300)
    assert 0.3 < accuracy < 0.95


def test_linear_probe_does_not_mask_a_class_between_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=1_200)
    line = (labels - 1.0)[:, None] * [4.0, 4.0] + rng.standard_normal((1_200, 2))
    accuracy = probes.linear_probe(line[:600], labels[:600], line[600:], labels[600:])
    one_hot, _ = reference_predictions(line[:600], np.eye(3)[labels[:600]], line[600:])
    assert np.mean(one_hot.argmax(1) == labels[600:]) < 0.75
    assert accuracy > 0.98


@pytest.mark.parametrize('probe', [probes.linear_probe, probes.knn])
class TestClassifiers:
    def test_separable_classes_are_all_found(self, probe):
        assert probe(*clusters(200, 100, 16, 5, 30.0)) == 1

    def test_more_features_than_clips(self, probe):
        assert probe(*clusters(40, 100, 300, 3, 60.0)) == 1

    def test_noise_is_at_chance(self, probe):
        # 2,000 guesses: a standard error of 0.01.
        assert probe(*clusters(300, 2000, 10, 4, 0.0)) == pytest.approx(0.25, abs=0.04)

    def test_labels_are_names_not_indices(self, probe):
        train_x, train_y, eval_x, eval_y = clusters(100, 100, 8, 3, 3.0)
        names = np.array([40, -7, 12])
        expected = probe(train_x, train_y, eval_x, eval_y)
        assert probe(train_x, names[train_y], eval_x, names[eval_y]) == expected < 1

    def test_one_class(self, probe):
        train_x, _, eval_x, _ = clusters(30, 10, 4, 2, 1.0)
        eval_y = np.array([3] * 7 + [1] * 3)
        assert probe(train_x, np.full(30, 3), eval_x, eval_y) == 0.7

    def test_a_class_without_train_clips_is_missed(self, probe):
        train_x, train_y, eval_x, eval_y = clusters(200, 100, 16, 5, 30.0)
        keep = train_y != 4
        assert probe(train_x[keep], train_y[keep], eval_x, eval_y) == np.mean(eval_y != 4)

    def test_constant_features_give_one_class(self, probe):
        train_y = np.array([0] * 10 + [1] * 20)
        constant = np.full((40, 5), -15.94, np.float32)
        eval_y = np.array([0] * 4 + [1] * 6)
        # knn: all are equally near, so the first 20 vote: 10 against 10, and the lower class wins.
        expected = 0.6 if probe is probes.linear_probe else 0.4
        assert probe(constant[:30], train_y, constant[30:], eval_y) == expected

    def test_order_does_not_matter(self, probe):
        train_x, train_y, eval_x, eval_y = clusters(100, 80, 8, 3, 2.0)
        rng = np.random.default_rng(1)
        i, j = rng.permutation(100), rng.permutation(80)
        expected = probe(train_x, train_y, eval_x, eval_y)
        assert probe(train_x[i], train_y[i], eval_x[j], eval_y[j]) == expected < 1

    def test_features_that_are_not_finite_raise(self, probe):
        for side in (0, 2):
            data = clusters(30, 20, 4, 2, 1.0)
            data[side][3, 2] = np.nan
            with pytest.raises(ValueError, match='not finite'):
                probe(*data)

    def test_unpaired_labels_raise(self, probe, unchecked):
        train_x, train_y, eval_x, eval_y = clusters(30, 20, 4, 2, 1.0)
        with pytest.raises(ValueError, match='20 held-out features for 19 held-out targets'):
            probe(train_x, train_y, eval_x, eval_y[:-1])


def test_prediction_of_a_clip_ignores_the_other_held_out_clips():
    train_x, train_y, eval_x, _ = regression(40, 12, 10, 2, 1.0)
    probe = probes.RidgeProbe(train_x)
    alone = [probe.predict(train_y, eval_x[i : i + 1])[0] for i in range(12)]
    np.testing.assert_allclose(probe.predict(train_y, eval_x), alone, atol=1e-12)


def test_scale_and_offset_of_features_do_not_matter():
    train_x, train_y, eval_x, eval_y = clusters(100, 80, 6, 3, 2.0)
    scale, offset = np.array([1e-4, 1e4, 1, 1, 3, 5]), np.array([0, 0, 100, -7, 0, 1])
    expected = probes.linear_probe(train_x, train_y, eval_x, eval_y)
    assert probes.linear_probe(train_x * scale + offset, train_y, eval_x * scale + offset, eval_y) == expected


def test_a_feature_that_is_constant_but_for_rounding_is_ignored():
    train_x, train_y, eval_x, eval_y = regression(50, 200, 4, 2, 0.3)
    expected = probes.ridge_r2(train_x, train_y, eval_x, eval_y)

    def with_constant(x, seed):
        rounding = np.random.default_rng(seed).choice([0, 1e-6], size=(len(x), 40))
        return np.concatenate([x, -15.94 + rounding], axis=1)

    actual = probes.ridge_r2(with_constant(train_x, 0), train_y, with_constant(eval_x, 1), eval_y)
    assert actual == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize('n, d', [(80, 6), (40, 100)])
def test_r2_is_that_of_scikit_learn(n, d):
    train_x, train_y, eval_x, eval_y = regression(n, 50, d, 3, 0.5)
    units = np.array([1e-3, 1.0, 1e5])  # a target's unit must not matter
    scaled = StandardScaler().fit_transform(train_y)
    predicted = reference_predictions(train_x, scaled, eval_x)[0] * train_y.std(0) + train_y.mean(0)
    actual = probes.ridge_r2(train_x, train_y * units, eval_x, eval_y * units)
    assert actual == pytest.approx(r2_score(eval_y, predicted), abs=1e-6)


def test_r2_of_a_linear_target_is_one_and_of_noise_is_none():
    assert probes.ridge_r2(*regression(200, 100, 5, 3, 0.0)) == pytest.approx(1, abs=1e-4)
    assert probes.ridge_r2(*regression(400, 1000, 5, 3, 1000.0)) == pytest.approx(0, abs=0.05)


def test_r2_leaves_out_targets_that_do_not_vary():
    train_x, train_y, eval_x, eval_y = regression(100, 50, 5, 2, 0.5)
    one = probes.ridge_r2(train_x, train_y[:, :1], eval_x, eval_y[:, :1])
    eval_y[:, 1] = 0.1
    train_y[:, 1] = 0.1
    assert probes.ridge_r2(train_x, train_y, eval_x, eval_y) == pytest.approx(one, abs=1e-6)
    assert np.isnan(probes.ridge_r2(train_x, train_y[:, 1:], eval_x, eval_y[:, 1:]))


def test_r2_of_targets_that_are_not_finite_raises():
    for side in (1, 3):
        data = regression(20, 10, 3, 2, 0.1)
        data[side][4, 0] = np.nan
        with pytest.raises(ValueError, match=r'targets: 1 of .* rows are not finite'):
            probes.ridge_r2(*data)


@pytest.mark.parametrize('neighbours', [1, 5, 20])
def test_knn_is_that_of_scikit_learn(neighbours):
    train_x, train_y, eval_x, eval_y = clusters(150, 200, 6, 4, 1.5)
    reference = KNeighborsClassifier(
        neighbours, metric='cosine', algorithm='brute', weights=lambda distance: np.exp(-distance / 0.07)
    ).fit(train_x, train_y)
    accuracy = probes.knn(train_x, train_y, eval_x, eval_y, neighbours)
    assert accuracy == np.mean(reference.predict(eval_x) == eval_y)
    assert 0.3 < accuracy < 0.9


def test_knn_takes_equally_near_clips_in_order():
    train_x = np.tile([[1.0, 2.0, 3.0]], (9, 1)) * np.arange(1, 10)[:, None]
    train_y = np.array([5, 2, 2, 5, 5, 5, 5, 5, 5])
    # Of two, one to one: the lower class. Of fifty: as many as there are.
    for neighbours, winner in ((1, 5), (2, 2), (3, 2), (50, 5)):
        assert probes.knn(train_x, train_y, train_x[:1], np.array([winner]), neighbours) == 1


def test_decode_factors_is_one_probe_a_factor():
    train_x, train_y, eval_x, eval_y = regression(80, 60, 7, 3, 0.5)

    def factors(y):
        shape = np.digitize(y[:, 0], [4.5, 5.5])
        return {'impacts': (y > 5.2).astype(np.float32), 'shape': shape, 'pitch': y[:, 1], 'hue': y[:, 1:]}

    train, held_out = factors(train_y), factors(eval_y)
    results = probes.decode_factors(train_x, train, eval_x, held_out)
    assert list(results) == ['impacts', 'shape', 'pitch', 'hue']
    assert results['shape'] == probes.linear_probe(train_x, train['shape'], eval_x, held_out['shape'])
    for name in ('impacts', 'hue'):
        assert results[name] == probes.ridge_r2(train_x, train[name], eval_x, held_out[name])
    assert results['pitch'] == probes.ridge_r2(train_x, train_y[:, 1:2], eval_x, eval_y[:, 1:2])
    assert all(0.2 < value < 1 for value in results.values())


def test_decode_factors_refuses_what_it_would_misread():
    x = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(ValueError, match=r"'hue'.*'size'"):
        probes.decode_factors(x, {'hue': x}, x, {'size': x})
    bins = np.ones((10, 2), np.int32)
    with pytest.raises(ValueError, match="'impacts': integers are classes"):
        probes.decode_factors(x, {'impacts': bins}, x, {'impacts': bins})
