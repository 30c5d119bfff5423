"""Energies by frequency band, against loops over every coefficient."""

import dataclasses
import math

import numpy as np
import pytest

from diffmavil_jax.evaluation import bands


def patches(n, p, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, p)).astype(dtype)


def dct_matrix(size):
    """Orthonormal DCT-II from its definition."""
    matrix = np.empty((size, size))
    for u, x in np.ndindex(size, size):
        norm = math.sqrt((1 if u == 0 else 2) / size)
        matrix[u, x] = norm * math.cos(math.pi * (2 * x + 1) * u / (2 * size))
    return matrix


def loop_energies(patch_vectors, frames, size, channels):
    """Low and high energy, one picture and one coefficient at a time."""
    matrix, low, high = dct_matrix(size), 0.0, 0.0
    for vector in patch_vectors.reshape(-1, frames * size * size * channels):
        for t, c in np.ndindex(frames, channels):
            picture = [
                [vector[((t * size + y) * size + x) * channels + c] for x in range(size)] for y in range(size)
            ]
            coefficients = matrix @ np.array(picture) @ matrix.T
            for u, v in np.ndindex(size, size):
                if math.sqrt(u * u + v * v) / size < 0.25:
                    low += coefficients[u, v] ** 2
                else:
                    high += coefficients[u, v] ** 2
    return low, high


def wave(size, u, v):
    """One DCT basis function as a picture."""
    x = (2 * np.arange(size) + 1) * np.pi / (2 * size)
    return np.cos(u * x)[:, None] * np.cos(v * x)[None, :]


@pytest.mark.parametrize('size', [8, 16])
def test_audio_matches_a_loop(size):
    target, prediction = patches(5, size * size, 0), patches(5, size * size, 1)
    result = bands.audio_band_energies(target, prediction, size)
    np.testing.assert_allclose(result.error, loop_energies(prediction - target, 1, size, 1), rtol=1e-5)
    np.testing.assert_allclose(result.target, loop_energies(target, 1, size, 1), rtol=1e-5)


def test_video_matches_a_loop():
    target, prediction = patches(3, 2 * 8 * 8 * 3, 2), patches(3, 2 * 8 * 8 * 3, 3)
    result = bands.video_band_energies(target, prediction, 2, 8)
    np.testing.assert_allclose(result.error, loop_energies(prediction - target, 2, 8, 3), rtol=1e-5)
    np.testing.assert_allclose(result.target, loop_energies(target, 2, 8, 3), rtol=1e-5)


def test_bands_add_up_to_the_error():
    target, prediction = patches(20, 1536, 4), patches(20, 1536, 5)
    result = bands.video_band_energies(target, prediction, 2, 16)
    squared = np.square(target.astype(np.float64) - prediction)
    assert result.error.sum() == pytest.approx(squared.sum(), rel=1e-6)
    assert result.error[0] == pytest.approx(squared.sum() * 15 / 256, rel=0.2)  # white: by coefficients


@pytest.mark.parametrize(
    'u, v, band', [(0, 0, 0), (3, 2, 0), (0, 3, 0), (3, 3, 1), (4, 0, 1), (0, 4, 1), (15, 15, 1), (0, 15, 1)]
)
def test_a_wave_falls_in_its_band(u, v, band):
    picture = wave(16, u, v)
    audio = bands.audio_band_energies(picture.reshape(1, 256), np.zeros((1, 256)), 16)
    assert audio.error[band] == pytest.approx(np.sum(picture**2)) and audio.error[1 - band] < 1e-20
    tubelet = np.zeros((2, 16, 16, 3))
    tubelet[1, :, :, 2] = picture
    video = bands.video_band_energies(tubelet.reshape(1, -1), np.zeros((1, 1536)), 2, 16)
    np.testing.assert_allclose(video.error, audio.error, atol=1e-20)


def test_changes_over_time_or_channels_alone_are_low():
    tubelets = np.random.default_rng(6).standard_normal((4, 2, 1, 1, 3)) * np.ones((1, 1, 8, 8, 1))
    result = bands.video_band_energies(tubelets.reshape(4, -1), np.zeros((4, 384)), 2, 8)
    assert result.error[0] > 1 and result.error[1] < 1e-20


def test_the_low_band_is_a_quarter_disc():
    low = bands.low_band(16, 16)
    assert low.sum() == 15 and low[0, 0] and low[3, 2] and not low[3, 3] and not low[4, 0]
    np.testing.assert_array_equal(low, low.T)
    assert bands.low_band(8, 8).sum() == 4


def test_the_mean_predictor_has_a_relative_error_of_one():
    pixels = patches(30 * 128, 3, 7) * np.array([1, 2, 3]) + np.array([-50, 7, 400])  # channels differ
    target = pixels.reshape(30, 2 * 8 * 8 * 3)
    mean = pixels.mean(axis=0)
    prediction = np.broadcast_to(mean, (30, 128, 3)).reshape(30, -1)
    result = bands.video_band_energies(target, prediction, 2, 8).relative_error()
    assert result == pytest.approx({'low': 1, 'high': 1}, rel=1e-9)


def test_an_offset_of_the_data_changes_nothing():
    target, prediction = patches(30, 256, 8, np.float64), patches(30, 256, 9, np.float64)
    here = bands.audio_band_energies(target, prediction, 16).relative_error()
    there = bands.audio_band_energies(target - 8, prediction - 8, 16).relative_error()
    assert here == pytest.approx(there, rel=1e-9)
    # Independent noise of the same power: twice the energy.
    assert here == pytest.approx({'low': 2, 'high': 2}, rel=0.3)


def test_blurring_loses_the_high_band_only():
    target = patches(50, 256, 10)
    dct = dct_matrix(16)
    blurred = dct.T @ ((dct @ target.reshape(50, 16, 16) @ dct.T) * bands.low_band(16, 16)) @ dct
    result = bands.audio_band_energies(target, blurred.reshape(50, 256), 16).relative_error()
    assert result['low'] == pytest.approx(0, abs=1e-9) and result['high'] == pytest.approx(1, rel=1e-6)


def test_batches_add_up():
    target, prediction = patches(12, 384, 11) + 5, patches(12, 384, 12) + 5
    whole = bands.video_band_energies(target, prediction, 2, 8)
    parts = [bands.video_band_energies(target[s], prediction[s], 2, 8) for s in (slice(0, 3), slice(3, 12))]
    total = parts[0] + parts[1]
    for field in dataclasses.fields(whole):
        np.testing.assert_allclose(getattr(total, field.name), getattr(whole, field.name), rtol=1e-6)
    assert total.relative_error() == pytest.approx(whole.relative_error(), rel=1e-5)
    means = [p.relative_error()['low'] for p in parts]
    assert total.relative_error()['low'] != pytest.approx(np.mean(means), rel=1e-3)  # a ratio of sums


def test_leading_axes_and_order_do_not_matter():
    target, prediction = patches(12, 256, 13), patches(12, 256, 14)
    expected = bands.audio_band_energies(target, prediction, 16)
    order = np.random.default_rng(0).permutation(12)
    other = bands.audio_band_energies(
        target[order].reshape(3, 4, 256), prediction[order].reshape(3, 4, 256), 16
    )
    np.testing.assert_allclose(other.error, expected.error, rtol=1e-6)
    np.testing.assert_allclose(other.target, expected.target, rtol=1e-6)


def test_targets_without_energy_have_no_relative_error():
    target = np.full((6, 256), -15.94, np.float32)
    result = bands.audio_band_energies(target, target + 1, 16)
    assert all(math.isnan(value) for value in result.relative_error().values())
    assert result.error[0] == pytest.approx(target.size, rel=1e-5)


def test_nan_stays_visible():
    target, prediction = patches(4, 256, 15), patches(4, 256, 16)
    prediction[2, 7] = np.nan
    result = bands.audio_band_energies(target, prediction, 16)
    assert np.isnan(result.error).all()
    assert all(math.isnan(value) for value in result.relative_error().values())


def test_shapes_that_do_not_fit_raise(unchecked):
    with pytest.raises(ValueError, match='must be alike'):
        bands.audio_band_energies(patches(4, 256, 0), patches(3, 256, 0), 16)
    with pytest.raises(ValueError, match='must be alike'):
        bands.audio_band_energies(patches(4, 255, 0), patches(4, 255, 0), 16)
