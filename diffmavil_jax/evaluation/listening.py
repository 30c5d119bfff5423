"""From a log-mel spectrogram back to sound (Griffin and Lim 1984, with librosa)."""

from __future__ import annotations

import librosa
import numpy as np
from jaxtyping import Float, Int16

from diffmavil_jax.models.frontend import LOG_FLOOR, PREEMPHASIS, framing, mel_filters

_PEAK = 0.99  # of full scale; louder sound is scaled down to it, softer sound keeps its level


def to_waveform(
    log_mel: Float[np.ndarray, 't f'], sample_rate: int, samples: int, seed: int = 0
) -> Int16[np.ndarray, ' samples']:
    """Sound whose `frontend.log_mel` is close to this one.

    The power spectrum is the non-negative least squares solution. Phases begin at random.

    Args:
        log_mel: natural logarithms, not normalised.
        sample_rate: in Hz.
        samples: how many samples the original had; frames beyond them are padding and left out.
        seed: random seed of the phases.

    Returns:
        Sound as long as the frames cover; the first and the last half window are silent.
    """
    window, hop, fft_length = framing(sample_rate)
    filters = mel_filters(log_mel.shape[1], fft_length, sample_rate).astype(np.float64)
    log_mel = log_mel[: 1 + (samples - window) // hop]
    energies = np.exp(np.asarray(log_mel, np.float64)).T
    energies[energies < 1.01 * LOG_FLOOR] = 0.0
    # Each frame has its own scale. With one for all, only loud frames are fitted, and it takes twenty
    # times as long.
    scale = np.maximum(energies.max(axis=0), LOG_FLOOR)
    power = librosa.util.nnls(filters.T, energies / scale) * scale
    power[filters.sum(axis=1) == 0] = 0.0
    magnitude = np.sqrt(np.pad(power, ((0, 1), (0, 0))))  # the front end leaves out the Nyquist frequency
    sound = librosa.griffinlim(
        magnitude,
        n_fft=fft_length,
        hop_length=hop,
        win_length=window,
        window=np.hanning(window),
        random_state=seed,
    )
    sound = librosa.effects.deemphasis(sound, coef=PREEMPHASIS)
    # The first frame of librosa is centred on sample 0; that of Kaldi begins there.
    sound = np.pad(sound, (window // 2, window - window // 2))
    return np.round(sound * (32_767 * _PEAK / max(_PEAK, np.abs(sound).max()))).astype(np.int16)
