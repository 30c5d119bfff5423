"""Features of sounds of any length in arrays: of a whole sound, and at regular times."""

from __future__ import annotations

import math

import jax
import numpy as np
from jaxtyping import Float, Int16

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.inference.embed import Model

_MAX_HOP_S = 0.05  # HEAR scores onsets with a tolerance of 50 ms
_LEAST_REST = 0.1  # of a clip: a shorter rest is left out, as in `Model.embed`
_BATCH = 32


class SoundFeatures:
    """Features of sounds by a pretrained network.

    Attributes:
        sample_rate: of the sounds, in Hz.
        width: of the features.
        hop_s: seconds between the times of `timestamps`.
    """

    def __init__(self, model: Model) -> None:
        """Nothing is computed.

        Args:
            model: the network.

        Raises:
            ConfigError: it has no encoder of sound.
        """
        if 'audio' not in model.modalities:
            raise ConfigError('the network has no encoder of sound, and so no features of sounds.')
        audio, clip = model.config.audio, model.clip
        self._model, self._grid = model, audio.grid
        self.sample_rate: int = clip.sample_rate
        self.width: int = model.config.model.vit.width
        # Frames are 10 ms apart.
        self._patch_s = audio.patch / 100
        self._offsets = _divisor_of_at_least(audio.patch, math.ceil(self._patch_s / _MAX_HOP_S))
        self.hop_s = self._patch_s / self._offsets
        # Patches of a clip that are wholly of sound: a spectrogram may be longer than its clip.
        self._whole = min(audio.grid[0], int(round(clip.seconds * 100) // audio.patch))
        self._clip_samples = clip.num_samples

    def scenes(self, sounds: np.ndarray) -> Float[np.ndarray, 'n d']:
        """One feature for each sound: the mean over its consecutive clips, weighted by their lengths.

        Args:
            sounds: floats [n samples] between -1 and 1, at `sample_rate`.

        Raises:
            DataError: they have no samples, or are of another kind.
        """
        waveforms = _as_int16(sounds)
        length = waveforms.shape[1]
        begins = [
            begin
            for begin in range(0, length, self._clip_samples)
            if begin == 0 or length - begin >= _LEAST_REST * self._clip_samples
        ]
        weights = np.array([min(self._clip_samples, length - begin) for begin in begins], np.float32)
        clips = np.stack([self._clip(waveforms, begin) for begin in begins], axis=1)
        samples = np.broadcast_to(weights.astype(np.int32), clips.shape[:2])
        features = self._features(clips.reshape(-1, self._clip_samples), samples.reshape(-1), 'mean')
        return np.average(features.reshape(*clips.shape[:2], -1), axis=1, weights=weights)

    def timestamps(self, sounds: np.ndarray) -> tuple[Float[np.ndarray, 'n t d'], Float[np.ndarray, ' t']]:
        """Features every `hop_s` from the beginning of the sounds to their end.

        A token of sound spans more than HEAR's tolerance, so the network hears each sound several times,
        each time a hop later, and the times of its patches take turns. A feature is the mean of the
        tokens whose patches have their centre at its time; silence stands around the sound.

        Args:
            sounds: floats [n samples] between -1 and 1, at `sample_rate`.

        Returns:
            The features, and their times in seconds.

        Raises:
            DataError: they have no samples, or are of another kind.
        """
        waveforms = _as_int16(sounds)
        count, length = waveforms.shape
        times = int(length / self.sample_rate / self.hop_s) + 1
        rounds = math.ceil(times / self._offsets / self._whole)  # clips of one pass
        result = np.empty((count, rounds * self._whole, self._offsets, self.width), np.float32)
        for offset in range(self._offsets):
            for number in range(rounds):
                # The first patch has its centre at the time of its first feature.
                begin_s = offset * self.hop_s + (number * self._whole - 0.5) * self._patch_s
                clips = self._clip(waveforms, round(begin_s * self.sample_rate))
                samples = np.full(count, self._clip_samples, np.int32)
                tokens = self._features(clips, samples, 'tokens').reshape(count, *self._grid, self.width)
                at = slice(number * self._whole, (number + 1) * self._whole)
                result[:, at, offset] = tokens[:, : self._whole].mean(axis=2)
        return result.reshape(count, -1, self.width)[:, :times], np.arange(times) * self.hop_s

    def _clip(self, waveforms: Int16[np.ndarray, 'n samples'], begin: int) -> Int16[np.ndarray, 'n clip']:
        """The clip that begins at a sample, which may be before the first; silence beyond the sound."""
        clip = np.zeros((len(waveforms), self._clip_samples), np.int16)
        piece = waveforms[:, max(begin, 0) : max(begin + self._clip_samples, 0)]
        first = max(-begin, 0)
        clip[:, first : first + piece.shape[1]] = piece
        return clip

    def _features(
        self, waveforms: Int16[np.ndarray, 'n clip'], samples: np.ndarray, pool: str
    ) -> Float[np.ndarray, 'n ...']:
        size = min(_BATCH, len(waveforms))  # the last batch is filled up, so that one size is compiled
        parts = []
        for begin in range(0, len(waveforms), size):
            rows = np.minimum(np.arange(begin, begin + size), len(waveforms) - 1)
            batch = {'waveform': waveforms[rows], 'samples': samples[rows]}
            parts.append(jax.device_get(self._model.features(batch, pool)['audio']))
        return np.concatenate(parts)[: len(waveforms)]


def _as_int16(sounds: np.ndarray) -> np.ndarray:
    if sounds.ndim != 2 or not sounds.size or not np.issubdtype(sounds.dtype, np.floating):
        raise DataError(
            f'sounds: must be numbers of floating point [n, samples], with at least one sample; there is '
            f'{sounds.dtype} {list(sounds.shape)}.'
        )
    if not np.isfinite(sounds).all():
        raise DataError('sounds: must be finite; there are NaN or infinite samples.')
    return np.round(np.clip(sounds, -1, 1) * 32_767).astype(np.int16)


def _divisor_of_at_least(number: int, least: int) -> int:
    """The smallest divisor that is not below `least`."""
    return next(divisor for divisor in range(least, number + 1) if number % divisor == 0)
