import numpy as np
import pytest

from diffmavil_jax.objectives.reconstruction import denormalize_patches, normalize_patches, squared_error


@pytest.fixture(scope='module')
def patches():
    return (3 + 2 * np.random.default_rng(0).normal(size=(2, 4, 12))).astype(np.float32)


def test_each_patch_is_normalised_alone(patches):
    normalized = np.asarray(normalize_patches(patches))
    for clip, expected_clip in zip(normalized, patches, strict=True):
        for ours, patch in zip(clip, expected_clip, strict=True):
            variance = ((patch - patch.mean()) ** 2).sum() / (len(patch) - 1)
            np.testing.assert_allclose(ours, (patch - patch.mean()) / np.sqrt(variance + 1e-6), atol=1e-5)


def test_denormalize_is_the_inverse(patches):
    np.testing.assert_allclose(denormalize_patches(normalize_patches(patches), patches), patches, atol=1e-5)


def test_a_constant_patch_becomes_zero():
    np.testing.assert_array_equal(normalize_patches(np.full((1, 2, 8), 7, np.float32)), 0)


def test_squared_error_is_a_mean_for_each_clip(patches):
    prediction = np.random.default_rng(1).normal(size=patches.shape).astype(np.float32)
    errors = squared_error(prediction, patches)
    assert errors.shape == (2,)
    for ours, one, other in zip(errors, prediction, patches, strict=True):
        expected = sum((a - b) ** 2 for a, b in zip(one.ravel(), other.ravel(), strict=True)) / one.size
        assert ours == pytest.approx(expected, rel=1e-5)
