"""WAV files, read back."""

import io

import numpy as np
import scipy.io.wavfile

from diffmavil_jax.report.sound import to_wav


def test_wav_is_read_back():
    waveform = np.array([0, 1, -1, 32_767, -32_768], np.int16)
    rate, read = scipy.io.wavfile.read(io.BytesIO(to_wav(waveform, 16_000)))
    assert rate == 16_000
    np.testing.assert_array_equal(read, waveform)
