"""The front ends: from int16 sound to a normalised log-mel spectrogram, from uint8 frames to pixels.

They run inside the train step, so that clips reach the device as integers. Log-mel is Kaldi's fbank as
torchaudio computes it, which the published front ends (AST, AudioMAE, CAV-MAE) use: its filters are
triangles in mel, and its windows lie within the signal. librosa's filters are triangles in Hz, and its
windows are centred.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from diffmavil_jax.config.clips import AudioConfig, VideoConfig

PREEMPHASIS = 0.97
_WINDOW_SECONDS = 0.025
_HOP_SECONDS = 0.010
_LOWEST_HZ = 20.0
LOG_FLOOR = float(np.finfo(np.float32).eps)


def framing(sample_rate: int) -> tuple[int, int, int]:
    """In samples: the window, the hop, and the Fourier transform (a power of two that holds a window)."""
    window = round(_WINDOW_SECONDS * sample_rate)
    return window, round(_HOP_SECONDS * sample_rate), 1 << (window - 1).bit_length()


def log_mel(
    waveform: Num[Array, 'b samples'], *, sample_rate: int, num_mel_bins: int
) -> Float[Array, 'b t f']:
    """Kaldi log-mel filter-bank energies of int16 sound, after removing each clip's mean.

    25 ms symmetric Hann windows every 10 ms, without padding at the edges: 10 s give 998
    frames. Natural logarithm of the power, floored at float32's epsilon.

    Args:
        waveform: int16 samples; 32,768 is full scale.
        sample_rate: Hz.
        num_mel_bins: filters from 20 Hz to the Nyquist frequency, equally wide in mel.
    """
    window, hop, fft_length = framing(sample_rate)
    sound = waveform.astype(jnp.float32) / 32_768.0
    sound = sound - sound.mean(axis=-1, keepdims=True)
    frames = _frames(sound, window, hop)
    frames = frames - frames.mean(axis=-1, keepdims=True)
    previous = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    frames = (frames - PREEMPHASIS * previous) * np.hanning(window).astype(np.float32)
    # CPU: padded here, because rfft's own padding takes as long as the transform.
    frames = jnp.pad(frames, ((0, 0), (0, 0), (0, fft_length - window)))
    spectrum = jnp.fft.rfft(frames)[..., :-1]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # TPUs and newer GPUs round the factors of a float32 product to fewer bits unless they are told not to.
    filters = mel_filters(num_mel_bins, fft_length, sample_rate)
    energies = jnp.matmul(power, filters, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(energies, LOG_FLOOR))


def spectrogram(
    waveform: Num[Array, 'b samples'], config: AudioConfig, sample_rate: int
) -> Float[Array, 'b t f']:
    """The encoder's input: log-mel cut or padded to `config.num_frames`, normalised by its front end."""
    features = log_mel(waveform, sample_rate=sample_rate, num_mel_bins=config.num_mel_bins)
    features = features[:, : config.num_frames]
    padding = ((0, 0), (0, config.num_frames - features.shape[1]), (0, 0))
    front_end = config.normalization
    if front_end.pad == 'before_normalization':
        features = jnp.pad(features, padding)
    features = (features - front_end.mean) / (front_end.divisor * front_end.std)
    if front_end.pad == 'after_normalization':
        features = jnp.pad(features, padding)
    return features


def pad_after(
    features: Float[Array, 'b t f'], samples: Int[Array, ' b'], config: AudioConfig, sample_rate: int
) -> Float[Array, 'b t f']:
    """Replaces what follows a clip's sound by the front end's padding.

    The result is that of `spectrogram` for the first `samples` of each clip alone.

    Args:
        features: of `spectrogram`.
        samples: the length of each sound.
        config: of the front end.
        sample_rate: Hz.
    """
    window, hop, _ = framing(sample_rate)
    frames = 1 + (samples - window) // hop
    front_end = config.normalization
    padding = front_end.of_zero if front_end.pad == 'before_normalization' else 0.0
    filled = jnp.arange(features.shape[1]) < frames[:, None]
    return jnp.where(filled[..., None], features, padding)


def pixels(frames: Num[Array, '*shape 3'], config: VideoConfig) -> Float[Array, '*shape 3']:
    """The encoder's input: pixels in [0, 1], normalised per channel."""
    return (frames.astype(jnp.float32) / 255.0 - jnp.array(config.mean)) / jnp.array(config.std)


def spectrogram_range(config: AudioConfig, sample_rate: int) -> tuple[float, float]:
    """The lowest and the highest value that `spectrogram` can give for sound."""
    window, _, fft_length = framing(sample_rate)
    filters = mel_filters(config.num_mel_bins, fft_length, sample_rate)
    # Subtracting the mean of the clip and that of the window may double an amplitude each.
    largest = 4 * (1 + PREEMPHASIS) * np.hanning(window).sum()
    bounds = np.log([LOG_FLOOR, largest**2 * filters.sum(axis=0).max()])
    front_end = config.normalization
    low, high = (bounds - front_end.mean) / (front_end.divisor * front_end.std)
    return float(low), float(high)


@functools.lru_cache(maxsize=8)
def mel_filters(num_mel_bins: int, fft_length: int, sample_rate: int) -> Float[np.ndarray, 'bins f']:
    """Kaldi's triangular filters over the FFT bins below the Nyquist frequency.

    With 128 filters at 16 kHz one of them falls between two FFT bins and is empty, as in Kaldi.
    """
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(sample_rate / 2), num_mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = _mel(np.arange(fft_length // 2) * sample_rate / fft_length)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log1p(hz / 700.0)


def _frames(sound: Float[Array, 'b samples'], window: int, hop: int) -> Float[Array, 'b t window']:
    """The windows of each sound.

    CPU: put together from slices of one hop each, because a gather of single samples takes longer.
    """
    count = max(0, 1 + (sound.shape[-1] - window) // hop)
    hops = -(-window // hop)
    sound = jnp.pad(sound, ((0, 0), (0, hops * hop - window)))
    slices = [sound[:, k * hop : (k + count) * hop].reshape(len(sound), count, hop) for k in range(hops)]
    return jnp.concatenate(slices, axis=-1)[..., :window]
