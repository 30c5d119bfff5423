import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from diffmavil_jax.config.clips import FRONT_ENDS, AudioConfig, FrontEnd, VideoConfig
from diffmavil_jax.models.frontend import (
    log_mel,
    mel_filters,
    pad_after,
    pixels,
    spectrogram,
    spectrogram_range,
)

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'data' / 'golden' / 'kaldi_fbank.npz')
RECORDINGS = ('1-17367-A-10', '3-144028-A-0', '4-125929-A-40')
FLOOR = np.log(np.finfo(np.float32).eps)  # -15.94


def ours(wave):
    return np.asarray(log_mel(wave[None], sample_rate=16_000, num_mel_bins=128))[0]


def kaldi_in_float64(wave, bins=128, rate=16_000):
    """Kaldi's fbank, frame by frame and filter by filter."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    sound = wave / 32_768
    sound = sound - sound.mean()
    edges = np.linspace(mel(20), mel(rate / 2), bins + 2)
    rows = []
    for start in range(0, len(sound) - 400 + 1, 160):
        frame = sound[start : start + 400]
        frame = frame - frame.mean()
        emphasised = frame.copy()
        emphasised[1:] -= 0.97 * frame[:-1]
        emphasised[0] -= 0.97 * frame[0]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
        power = np.abs(np.fft.fft(emphasised * window, 512)[:256]) ** 2
        at = mel(np.arange(256) * rate / 512)
        energies = [
            power @ np.maximum(0, np.minimum((at - low) / (mid - low), (high - at) / (high - mid)))
            for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        rows.append(np.log(np.maximum(energies, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.mark.parametrize('name', [*RECORDINGS, 'silence'])
def test_log_mel_matches_kaldi(name):
    golden = GOLDEN[f'fbank_{name}']
    features = ours(GOLDEN[f'wave_{name}'])
    assert features.shape == golden.shape
    np.testing.assert_allclose(features, golden, rtol=0, atol=2e-3)


def test_log_mel_of_a_chirp_matches_kaldi_as_far_as_float32_goes():
    # The golden file was computed in float32 too. Next to a strong tone, bins below about -12 are mostly
    # rounding errors: there the file differs by 7.3e-3 from an exact computation in float64. So bins above
    # that level are compared with the file, and bins below it with the exact values.
    golden, wave = GOLDEN['fbank_chirp'], GOLDEN['wave_chirp']
    exact, features = kaldi_in_float64(wave), ours(wave)
    above = golden > -12
    assert 0.1 < above.mean() < 0.9
    np.testing.assert_allclose(exact[above], golden[above], rtol=0, atol=2e-3)
    np.testing.assert_allclose(features[above], golden[above], rtol=0, atol=2e-3)
    np.testing.assert_allclose(features[~above], exact[~above], rtol=0, atol=1.5e-2)


def test_the_filters_are_applied_in_full_float32_on_every_device():
    lowered = jax.jit(lambda wave: log_mel(wave, sample_rate=16_000, num_mel_bins=16)).lower(
        jax.ShapeDtypeStruct((1, 1_600), np.int16)
    )
    products = [line for line in lowered.as_text().splitlines() if 'dot_general' in line]
    assert len(products) == 1 and 'precision = [HIGHEST, HIGHEST]' in products[0]


def test_ten_seconds_are_998_frames():
    assert ours(np.zeros(160_000, np.int16)).shape == (998, 128)


@pytest.mark.parametrize(('samples', 'frames'), [(400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_only_whole_windows_are_frames(samples, frames):
    assert ours(np.ones(samples, np.int16)).shape[0] == frames


def test_one_of_128_filters_is_empty_and_its_column_constant():
    empty = np.flatnonzero(mel_filters(128, 512, 16_000).sum(axis=0) == 0)
    assert len(empty) == 1
    noise = np.random.default_rng(0).integers(-30_000, 30_000, 16_000).astype(np.int16)
    features = ours(noise)
    np.testing.assert_allclose(features[:, empty[0]], -15.94, atol=5e-3)
    assert (np.delete(features, empty, axis=1) > FLOOR + 1).all()


def test_loudness_moves_all_bins_alike_and_an_offset_none():
    wave = np.random.default_rng(0).integers(-4_000, 4_000, 8_000).astype(np.int16)
    heard = [i for i in range(128) if mel_filters(128, 512, 16_000)[:, i].any()]
    np.testing.assert_allclose((ours(2 * wave) - ours(wave))[:, heard], np.log(4), atol=1e-3)
    np.testing.assert_allclose(ours(wave + np.int16(5_000)), ours(wave), atol=2e-3)


def config_with(monkeypatch, front_end, num_frames):
    monkeypatch.setattr('diffmavil_jax.config.clips.FRONT_ENDS', {**FRONT_ENDS, 'test': front_end})
    return AudioConfig(front_end='test', num_frames=num_frames)


@pytest.mark.parametrize(
    ('pad', 'padding'), [('before_normalization', (0 + 4.0) / (2.0 * 3.0)), ('after_normalization', 0.0)]
)
def test_a_short_clip_is_padded_on_the_stated_side_of_the_normalisation(monkeypatch, pad, padding):
    config = config_with(monkeypatch, FrontEnd(mean=-4.0, std=3.0, divisor=2.0, pad=pad), num_frames=112)
    wave = GOLDEN['wave_chirp']
    features = np.asarray(spectrogram(wave[None], config, 16_000))[0]
    assert features.shape == (112, 128)
    np.testing.assert_allclose(features[:98], (ours(wave) + 4.0) / 6.0, atol=1e-5)
    np.testing.assert_allclose(features[98:], padding, atol=1e-6)


@pytest.mark.parametrize('pad', ['before_normalization', 'after_normalization'])
@pytest.mark.parametrize('samples', [16_000, 8_123, 400, 399])
def test_what_the_sound_does_not_fill_is_padded_as_if_it_were_not_there(monkeypatch, pad, samples):
    config = config_with(monkeypatch, FrontEnd(mean=-4.0, std=3.0, divisor=2.0, pad=pad), num_frames=112)
    waves = np.stack([GOLDEN['wave_chirp'][:16_000]] * 2)
    waves[0, samples:] = 0
    whole = spectrogram(waves, config, 16_000)
    padded = pad_after(whole, np.array([samples, 16_000]), config, 16_000)
    if samples >= 400:
        alone = spectrogram(waves[:1, :samples], config, 16_000)
    else:
        alone = np.full((1, 112, 128), 4.0 / 6.0 if pad == 'before_normalization' else 0.0)
    # 2e-3, because rounding errors are large near the floor of the logarithm.
    np.testing.assert_allclose(np.asarray(padded[:1]), alone, atol=2e-3)
    np.testing.assert_array_equal(padded[1], whole[1])


def test_a_long_clip_is_cut(monkeypatch):
    config = config_with(monkeypatch, FrontEnd(mean=-4.0, std=3.0, divisor=1.0), num_frames=64)
    wave = GOLDEN['wave_chirp']
    np.testing.assert_allclose(
        np.asarray(spectrogram(wave[None], config, 16_000))[0], (ours(wave)[:64] + 4.0) / 3.0, atol=1e-5
    )


@pytest.mark.parametrize(
    ('name', 'mean', 'std', 'divisor'),
    [
        ('audiomae', -4.2677393, 4.5689974, 2),
        ('audiomae_esc50', -6.6268077, 5.358466, 2),
        ('audiomae_speech_commands', -6.845978, 5.5654526, 2),
        ('cavmae', -5.081, 4.4849, 1),
    ],
)
def test_published_presets(name, mean, std, divisor):
    front_end = FRONT_ENDS[name]
    assert dataclasses.astuple(front_end) == (mean, std, divisor, 'before_normalization')
    config = AudioConfig(front_end=name, num_frames=96)
    wave = GOLDEN['wave_chirp']
    expected = (ours(wave)[:96] - mean) / (divisor * std)
    np.testing.assert_allclose(np.asarray(spectrogram(wave[None], config, 16_000))[0], expected, atol=1e-5)


@pytest.mark.parametrize('bins', [64, 128])
def test_no_sound_leaves_the_range(bins):
    config = AudioConfig(num_mel_bins=bins, num_frames=16)
    low, high = spectrogram_range(config, 16_000)
    rng = np.random.default_rng(0)
    tone = np.where(np.sin(2 * np.pi * 7_000 / 16_000 * np.arange(4_000)) > 0, 32_767, -32_768)
    loud = np.stack([tone, rng.choice([-32_768, 32_767], 4_000), np.full(4_000, 32_767)])
    values = np.asarray(spectrogram(loud.astype(np.int16), config, 16_000))
    assert low - 1e-5 < values.min() and values.max() < high
    assert values.min() == pytest.approx(low, abs=1e-5)  # silence
    assert values.max() > high - 2.0  # the bounds are loose: two means may double an amplitude


def test_pixels_are_normalised_per_channel():
    frames = np.zeros((1, 1, 2, 1, 3), np.uint8)
    frames[0, 0, 1, 0] = [255, 51, 0]
    normalised = np.asarray(pixels(frames, VideoConfig()))[0, 0, :, 0]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalised[0], -mean / std, atol=1e-6)
    np.testing.assert_allclose(normalised[1], (np.array([1.0, 0.2, 0.0]) - mean) / std, atol=1e-6)
    assert normalised.dtype == np.float32
