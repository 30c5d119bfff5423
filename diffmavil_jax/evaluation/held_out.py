"""Features and reconstructions of held-out clips by a pretrained network, gathered in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import Clip, ClipSource
from diffmavil_jax.data.pipeline import stack
from diffmavil_jax.evaluation.bands import BandEnergies, audio_band_energies, video_band_energies
from diffmavil_jax.models.frontend import spectrogram
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.objectives.reconstruction import denormalize_patches
from diffmavil_jax.parallel import hosts

Batch = dict[str, np.ndarray]
FEATURES = ('audio', 'video', 'fused')


def spread(length: int, count: int) -> list[int]:
    """Up to `count` indices spread evenly over a source of `length` clips."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def batches(
    source: ClipSource, indices: Sequence[int], batch_size: int, threads: int
) -> Iterator[tuple[Batch, list[Clip]]]:
    """Batches of one size, and the clips that each has.

    The last batch is filled up by repeating its last clip. The next batch is read while one is in use.
    """
    with ThreadPoolExecutor(threads) as pool:

        def read(first: int) -> Iterator[Clip]:
            return pool.map(source.__getitem__, indices[first : first + batch_size])

        coming = read(0)
        for first in range(0, len(indices), batch_size):
            clips, coming = list(coming), read(first + batch_size)
            padded = clips + clips[-1:] * (batch_size - len(clips))
            batch = stack(padded)
            batch['position'] = np.arange(first, first + batch_size, dtype=np.int32)
            yield batch, clips


class Network:
    """The compiled functions that evaluation runs, for any parameters of one config."""

    def __init__(
        self, config: Config, objective: PretrainingObjective, counts: Mapping[str, TokenCounts]
    ) -> None:
        """Makes the functions, which compile when they are first called.

        Args:
            config: the run.
            objective: its network and masks.
            counts: visible and decoded tokens of each modality, at the evaluation's mask ratio.
        """
        self.config = config
        self._objective = objective
        self.predicts_patches = objective.predicts_patches
        self._counts = counts
        # A diffusion model starts from pure noise, which tells it no more than a mask token: so all
        # models are comparable. There a predicted eps implies no x_0, so a model that predicts eps
        # starts with a little signal.
        last = config.diffusion.timesteps - 1
        self.timestep = last // 4 if config.diffusion.target == 'eps' else last
        self._spectrogram = jax.jit(lambda w: spectrogram(w, config.audio, config.data.sample_rate))
        self.features: Callable[[Any, Batch], dict[str, jax.Array]] = jax.jit(self._features)
        self.reconstruct: Callable[[Any, Batch], dict[str, dict[str, Any]]] = jax.jit(self._reconstruct)

    def spectrogram(self, waveform: np.ndarray) -> jax.Array:
        """The normalised log-mel [b t f] of int16 sound [b samples]."""
        return self._spectrogram(waveform)

    def raw(self, batch: Batch) -> dict[str, Any]:
        """The inputs of a network: `audio`, the normalised log-mel [b t f], and `video`, the pixels."""
        return {'audio': self._spectrogram(batch['waveform']), 'video': batch['frames']}

    def _features(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        patches = to_patches(batch, self.config)
        # An import may have both encoders and no fusion; it has no fused features then.
        parts = [patches] if 'fusion' in params else [{m: x} for m, x in patches.items()]
        features: dict[str, jax.Array] = {}
        for part in parts:
            features |= self._objective.model.apply({'params': params}, part, method='features')
        return features

    def _reconstruct(self, params: Any, batch: Batch) -> dict[str, dict[str, Any]]:
        patches = to_patches(batch, self.config)
        positions = jnp.asarray(batch['position'])
        views = self._objective.views(
            patches, positions, self._counts, timestep=self.timestep, view='evaluation'
        )
        outputs = self._objective.model.apply({'params': params}, views)
        target = {m: take_tokens(patches[m], views[m].decoded) for m in MODALITIES}
        prediction = {m: self._objective.predicted_x0(outputs.predictions[m], views[m]) for m in MODALITIES}
        if self.config.loss.normalize_targets:
            # The target gives each patch its mean and scale back, as in the pictures of MAE.
            prediction = {m: denormalize_patches(prediction[m], target[m]) for m in MODALITIES}
        return {'views': views, 'target': target, 'prediction': prediction}


def extract(
    functions: Mapping[str, Callable[[Batch], Mapping[str, Any]]],
    source: ClipSource,
    indices: Sequence[int],
    *,
    batch_size: int,
    threads: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Calls each function with every clip, in batches. A clip is read once for all functions.

    Returns:
        For each function's name and each key of its result, an array with one row a clip.
    """
    rows: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in functions}
    for batch, clips in batches(source, indices, batch_size, threads):
        for name, function in functions.items():
            for key, array in hosts.fetch(function(batch)).items():
                rows[name].setdefault(key, []).append(array[: len(clips)])
    return {
        name: {key: np.concatenate(parts) for key, parts in kinds.items()} for name, kinds in rows.items()
    }


def band_energies(
    network: Network,
    params: Any,
    source: ClipSource,
    indices: Sequence[int],
    *,
    batch_size: int,
    threads: int,
) -> dict[str, BandEnergies]:
    """Energies of the error and of the target of masked patches, for audio and video."""
    config = network.config
    total: dict[str, BandEnergies] = {}
    for batch, clips in batches(source, indices, batch_size, threads):
        result = hosts.fetch(network.reconstruct(params, batch))
        target = {m: x[: len(clips)] for m, x in result['target'].items()}
        prediction = {m: x[: len(clips)] for m, x in result['prediction'].items()}
        energies = {
            'audio': audio_band_energies(target['audio'], prediction['audio'], config.audio.patch),
            'video': video_band_energies(
                target['video'], prediction['video'], config.video.patch_frames, config.video.patch
            ),
        }
        total = {m: total[m] + e if m in total else e for m, e in energies.items()}
    return total
