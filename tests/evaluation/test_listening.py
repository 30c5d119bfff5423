"""Sound made from a log-mel spectrogram has that spectrogram, at the level of the original sound."""

import pathlib

import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.evaluation.listening import to_waveform
from diffmavil_jax.models.frontend import log_mel

pytestmark = pytest.mark.slow  # librosa compiles its loops for 20 s

DATA = pathlib.Path(__file__).parents[1] / 'data'
RATE = 16_000
SOUNDS = {
    'dog': 'esc10/audio/2-118072-A-0.flac',
    'sneeze': 'esc10/audio/4-156843-A-21.flac',
    'digit': 'fsdd/recordings/1_george_4.wav',
    'roar': 'sounds/t-rex-roar.mp3',
    'speech': 'media/grid-brbk7n_0000.mp4',
}


def read(name):
    seconds = min(1.0, media.probe(DATA / name).duration_s)
    spec = ClipSpec(RATE, seconds, frames=1, frame_size=8)
    return media.decode(DATA / name, 0.0, spec, ['audio'])[0]


def features(waveform, bins):
    return np.asarray(log_mel(waveform[None], sample_rate=RATE, num_mel_bins=bins))[0]


@pytest.mark.parametrize('bins', [64, 128])
@pytest.mark.parametrize('name', SOUNDS.values(), ids=SOUNDS.keys())
def test_real_sounds(name, bins):
    sound = read(name)
    wanted = features(sound, bins)
    made = to_waveform(wanted, RATE, len(sound))
    assert made.dtype == np.int16 and len(made) == 160 * (len(wanted) - 1) + 400
    again = features(made, bins)
    assert np.corrcoef(again.ravel(), wanted.ravel())[0, 1] > 0.95
    assert np.abs(made).max() < 32_767
    if np.abs(made).max() < 32_000:  # not scaled down
        ratio = made.std() / sound[: len(made)].std()
        assert ratio == pytest.approx(1, abs=0.15)


def test_sound_that_is_too_loud_is_scaled_down():
    sound = read(SOUNDS['dog'])
    made = to_waveform(features(sound, 64) + 2.0, RATE, len(sound))
    assert np.abs(made).max() == round(0.99 * 32_767)


def test_padding_is_not_heard():
    wanted = features(read(SOUNDS['digit'])[:4_000], 64)
    padded = np.concatenate([wanted, np.zeros((30, 64), np.float32)])  # a log-mel of 0 is loud
    np.testing.assert_array_equal(to_waveform(padded, RATE, 4_000), to_waveform(wanted, RATE, 4_000))


def test_silence_stays_silent():
    assert not to_waveform(features(np.zeros(4_000, np.int16), 128), RATE, 4_000).any()


def test_the_seed_is_that_of_the_phases():
    wanted = features(read(SOUNDS['digit'])[:4_000], 64)
    first, same, other = (to_waveform(wanted, RATE, 4_000, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
