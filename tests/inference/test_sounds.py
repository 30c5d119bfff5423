"""Features of sounds of any length: of a whole, and at regular times."""

import numpy as np
import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.inference.sounds import SoundFeatures


@pytest.fixture(scope='module')
def sounds(model):
    return SoundFeatures(model)


def noise(seconds, count=2):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, round(16_000 * seconds))).astype(np.float32)


def to_int16(sound):
    return np.round(sound * 32_767).astype(np.int16)


def test_a_sound_of_one_clip_has_the_feature_that_embedding_gives(sounds, model):
    sound = noise(1.0)
    expected = model.embed({'waveform': to_int16(sound)}, 'audio').audio
    np.testing.assert_allclose(sounds.scenes(sound), expected, atol=1e-5)


def test_a_longer_sound_has_the_mean_weighted_by_length_and_a_short_rest_is_left_out(sounds):
    sound = noise(2.5)
    first, second = (sounds.scenes(sound[:, i * 16_000 : (i + 1) * 16_000]) for i in range(2))
    rest = sounds.scenes(sound[:, 32_000:])
    np.testing.assert_allclose(sounds.scenes(sound), (2 * first + 2 * second + rest) / 5, atol=1e-5)
    np.testing.assert_allclose(sounds.scenes(sound[:, :33_000]), (first + second) / 2, atol=1e-5)


@pytest.mark.parametrize('seconds', [0.3, 1.07, 2.74])
def test_times_are_regular_from_the_beginning_to_the_end(sounds, seconds):
    features, times = sounds.timestamps(noise(seconds))
    assert features.shape == (2, len(times), sounds.width) and features.dtype == np.float32
    assert sounds.hop_s == 0.04  # a quarter of a patch
    np.testing.assert_allclose(times, 0.04 * np.arange(len(times)))
    assert seconds - 0.04 < times[-1] <= seconds


def test_a_feature_is_of_the_patch_around_its_time(sounds, model):
    sound = noise(2.5)
    features, times = sounds.timestamps(sound)
    # A clip of 1 s has 6 whole patches of 0.16 s: one feature is in the first clip, one in the second.
    for index, patch in ((10, 2), (26, 0)):
        begin = times[index] - (patch + 0.5) * 0.16
        clip = sound[:, round(begin * 16_000) :][:, :16_000]
        tokens = model.embed({'waveform': to_int16(clip)}, 'audio', pool='tokens').audio
        of_time = tokens.reshape(2, *model.config.audio.grid, -1).mean(axis=2)[:, patch]
        np.testing.assert_allclose(features[:, index], of_time, atol=1e-5)


def test_what_is_no_sound_is_an_error(sounds):
    for wrong in (np.zeros(16_000), np.zeros((1, 0), np.float32), np.zeros((1, 100), np.int16)):
        with pytest.raises(DataError, match='sounds: must be numbers of floating point'):
            sounds.scenes(wrong)
    with pytest.raises(DataError, match='must be finite'):
        sounds.timestamps(np.full((1, 100), np.nan))
