"""Baselines without a network, against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from diffmavil_jax.evaluation import baselines, probes


def test_logmel_statistics():
    logmel = np.random.default_rng(0).standard_normal((3, 11, 4)).astype(np.float32)
    result = baselines.logmel_statistics(logmel)
    assert result.shape == (3, 8)
    for i, f in np.ndindex(3, 4):
        values = [float(logmel[i, t, f]) for t in range(11)]
        mean = sum(values) / 11
        assert result[i, f] == pytest.approx(mean, abs=1e-6)
        assert result[i, 4 + f] == pytest.approx((sum((v - mean) ** 2 for v in values) / 11) ** 0.5, abs=1e-6)


class TestPca:
    @staticmethod
    def clips(n, seed=0):
        """Frames with a falling spectrum, as pictures have, far from centred."""
        rng = np.random.default_rng(seed)
        basis = np.random.default_rng(99).standard_normal((60, 2 * 8 * 8 * 3)) / np.arange(1, 61)[:, None]
        values = 120 + 25 * rng.standard_normal((n, 60)) @ basis
        return np.clip(values, 0, 255).astype(np.uint8).reshape(n, 2, 8, 8, 3)

    def test_is_that_of_scikit_learn(self):
        train, held_out = self.clips(500), self.clips(40, seed=1)
        baseline = baselines.PcaBaseline.fit(train, max_components=10)
        exact = PCA(10, svd_solver='full').fit(train.reshape(500, -1))
        np.testing.assert_allclose(baseline.mean, exact.mean_, atol=1e-4)
        captured = baseline.transform(held_out).var(0)
        np.testing.assert_allclose(captured, exact.transform(held_out.reshape(40, -1)).var(0), rtol=0.02)
        cosines = np.abs(np.sum(baseline.components.T * exact.components_, axis=1))
        assert cosines.min() > 0.99

    @pytest.mark.parametrize('n', [12, 700])
    def test_few_dimensions_are_exact(self, n):
        train = np.random.default_rng(0).standard_normal((n, 4, 3)).astype(np.float32) * np.arange(1, 4) + 7
        baseline = baselines.PcaBaseline.fit(train)
        exact = PCA(min(n - 1, 12), svd_solver='full').fit(train.reshape(n, -1))
        np.testing.assert_allclose(
            np.abs(baseline.transform(train)), np.abs(exact.transform(train.reshape(n, -1))), atol=1e-3
        )

    def test_components_are_orthonormal_and_the_same_every_time(self):
        train = self.clips(90)
        baseline = baselines.PcaBaseline.fit(train, 20)
        np.testing.assert_allclose(baseline.components.T @ baseline.components, np.eye(20), atol=1e-5)
        np.testing.assert_array_equal(baseline.components, baselines.PcaBaseline.fit(train, 20).components)
        assert baseline.components.dtype == baseline.transform(train).dtype == np.float32

    def test_blocks_are_transformed_as_one(self):
        train = self.clips(600)
        baseline = baselines.PcaBaseline.fit(train, 5)
        centred = train.reshape(600, -1).astype(np.float64) - train.reshape(600, -1).mean(0)
        expected = centred @ baseline.components
        np.testing.assert_allclose(baseline.transform(train), expected, atol=1e-2, rtol=1e-4)

    def test_keeps_what_a_probe_needs(self):
        train, held_out = self.clips(300), self.clips(100, seed=1)
        baseline = baselines.PcaBaseline.fit(train)
        brightness = [x.mean((1, 2, 3, 4), dtype=np.float64)[:, None] for x in (train, held_out)]
        args = baseline.transform(train), brightness[0], baseline.transform(held_out), brightness[1]
        assert probes.ridge_r2(*args) > 0.99
        reference = LinearRegression().fit(args[0], args[1]).predict(args[2])
        assert probes.ridge_r2(*args) >= r2_score(args[3], reference) - 0.01

    def test_values_that_are_not_finite_raise(self):
        train = self.clips(30).astype(np.float32)
        train[3, 1, 2, 3, 0] = np.nan
        with pytest.raises(ValueError, match='not finite'):
            baselines.PcaBaseline.fit(train)
