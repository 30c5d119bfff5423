"""Any number of channels is mixed to mono."""

import fractions
import wave

import av
import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from tests.data.film import encode_sound, tone_from

SPEC = ClipSpec(16_000, 1.0, 2, 16)


@pytest.mark.parametrize('width', [1, 2, 4])
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 6, 8, 9, 16, 24])
def test_each_channel_is_heard(tmp_path, channels, width):
    times = np.arange(16_000) / 16_000
    for channel in {0, 2, 3, channels - 1} & set(range(channels)):
        sound = np.zeros((16_000, channels))
        sound[:, channel] = 0.9 * np.sin(2 * np.pi * 440 * times)
        packed = np.round(sound * (2 ** (8 * width - 1) - 1)).astype(f'<i{width}')
        with wave.open(str(tmp_path / 'a.wav'), 'wb') as file:
            file.setparams((channels, width, 16_000, 0, 'NONE', ''))
            file.writeframes(((packed.view(np.uint8) ^ 128) if width == 1 else packed).tobytes())
        waveform, _ = media.decode(tmp_path / 'a.wav', 0.0, SPEC, ['audio'])
        expected = 32_767 * sound.mean(1)
        assert np.abs(waveform - expected).max() < (40 if width > 1 else 400)


@pytest.mark.parametrize('layout', ['5.1', '7.1', '2.1'])
def test_planar_sound_of_a_known_layout_is_averaged_too(tmp_path, layout):
    with av.open(str(tmp_path / 'a.mka'), 'w') as target:
        stream = target.add_stream('flac', rate=16_000, layout=layout)
        count = stream.codec_context.layout.nb_channels
        packed = np.zeros((16_000, count), np.int16)
        packed[:, 3 if count > 3 else 2] = tone_from(0, 1.0, 16_000)
        frame = av.AudioFrame.from_ndarray(packed.reshape(1, -1), format='s16', layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, fractions.Fraction(1, 16_000)
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    waveform, _ = media.decode(tmp_path / 'a.mka', 0.0, SPEC, ['audio'])
    assert np.abs(waveform).max() == pytest.approx(12_000 / count, rel=0.02)


def test_stereo_is_as_before(tmp_path):
    with av.open(str(tmp_path / 'a.mka'), 'w') as target:
        stream = target.add_stream('flac', rate=16_000, layout='stereo')
        encode_sound(target, stream, tone_from(0, 1.0, 16_000), 16_000, 0.0, 'stereo')
    waveform, _ = media.decode(tmp_path / 'a.mka', 0.0, SPEC, ['audio'])
    np.testing.assert_allclose(waveform, tone_from(0, 1.0, 16_000), atol=1)
