"""How a pretrained network fills in the hidden part of a clip."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ARRAYS, ClipSpec
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.windows import Window, read_window
from diffmavil_jax.evaluation import showcase
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective
from diffmavil_jax.objectives.reconstruction import denormalize_patches
from diffmavil_jax.objectives.sampling import make_steps, sample_masked
from diffmavil_jax.plan.buckets import visible_tokens
from diffmavil_jax.report.content import Stages
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import PARTS

_STEPS_FROM_NOISE = 25  # of a network that predicts noise
_SHORTEST_S = 0.1  # of a clip


@dataclasses.dataclass(frozen=True)
class Options:
    """What is hidden of a clip, and how it is sampled.

    Attributes:
        mask_ratio: the hidden share of both modalities, or of the one that is not dropped. None takes the
            ratio of the run's evaluation or, with `drop`, hides nothing else.
        drop: `audio` or `video`, which is hidden wholly; or empty.
        steps: how often the sampler calls the network. None takes 1, which gives the estimate of x_0 that
            errors and reports are about; or 25 if the network predicts noise, from which one step gives no
            such estimate.
        sampler: see `make_steps`.
        eta: see `make_steps`.
        seed: of masks and noise.
    """

    mask_ratio: float | None = None
    drop: str = ''
    steps: int | None = None
    sampler: str = 'ddim'
    eta: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Result:
    """A clip as target, hidden in part, and filled in.

    Attributes:
        stages: by modality; the target of a modality that the clip lacks is NaN.
        samples: of the clip's sound; what the spectrogram has after them is padding.
    """

    stages: Mapping[str, Stages]
    samples: int


class Reconstructor:
    """A pretrained network that fills in clips, one at a time."""

    def __init__(self, run: str | os.PathLike[str], options: Options) -> None:
        """Loads a run.

        Raises:
            ConfigError: the run can't be loaded or does not predict patches, or an option is wrong.
        """
        network = open_network(run)
        if network.config.objective != 'pretraining':
            raise ConfigError(
                f'{os.fspath(run)} has objective={network.config.objective}: must be a run of pretraining, '
                'whose network predicts patches.'
            )
        self.config = config = dataclasses.replace(network.config, seed=options.seed)
        self.drop = options.drop
        visible = visible_counts(config, options.mask_ratio, options.drop)
        if options.drop and config.loss.normalize_targets:
            raise ConfigError(
                f'drop = {options.drop!r}: must be empty for this network: it predicts normalised patches, '
                'whose mean and scale are those of the target.'
            )
        count = options.steps
        if count is None:
            count = _STEPS_FROM_NOISE if config.diffusion.target == 'eps' else 1
        steps = make_steps(config, count, options.sampler, options.eta)
        self._params = network.params
        lacking = [part for part in PARTS if part not in self._params]
        if lacking:
            raise ConfigError(f'{os.fspath(run)} has no {", ".join(lacking)}: must be a run of pretraining.')
        objective = PretrainingObjective(config)

        def apply(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
            patches = to_patches(batch, config)
            positions = jnp.zeros(1, jnp.int32)  # each file gets the masks and noise that it would get alone
            views, samples = sample_masked(objective, params, patches, positions, visible, steps)
            if config.loss.normalize_targets:
                samples = {
                    m: denormalize_patches(x, take_tokens(patches[m], views[m].decoded))
                    for m, x in samples.items()
                }
            return {'views': views, 'prediction': samples}

        self._apply = jax.jit(apply)

    @property
    def clip(self) -> ClipSpec:
        """The sizes of the clips that the network takes."""
        return ClipSpec.of(self.config.data)

    def __call__(self, window: Window) -> Result:
        """Fills in a clip, which may lack the modality that is dropped."""
        clip = self.clip
        there = {'audio': window.waveform, 'video': window.frames}
        samples = clip.num_samples if window.waveform is None else window.samples
        batch = {ARRAYS[m]: (clip.blank(ARRAYS[m]) if x is None else x)[None] for m, x in there.items()}
        batch['samples'] = np.array([samples], np.int32)
        result = jax.device_get(self._apply(self._params, batch))
        stages = {m: showcase.stages(self.config, m, result, 0) for m in MODALITIES}
        for modality, array in there.items():
            if array is None:
                unknown = np.full_like(stages[modality].target, np.nan)
                stages[modality] = dataclasses.replace(stages[modality], target=unknown)
        return Result(stages, samples)

    def read(self, pool: DecodePool, path: str, start_s: float) -> Window:
        """The clip of a file that begins at `start_s`; shorter than others at the end of the file.

        Raises:
            MediaError: the file can't be read, or lacks a modality that is not dropped.
        """
        info, clip = pool.probe(path), self.clip
        has = {'audio': info.has_audio, 'video': info.has_video}
        length = info.lasts_s([m for m in MODALITIES if m != self.drop])
        left = length - start_s
        if left < _SHORTEST_S:
            raise media.MediaError(f'too short: {length:.2f} s, to begin at {start_s:g} s')
        seconds = clip.seconds if left > (1 - media.PADDED_FRACTION) * clip.seconds else left

        def decode(modalities: Sequence[str]) -> Any:
            return pool.call(read_window, path, start_s, seconds, clip, modalities)

        try:
            found = decode([m for m in MODALITIES if has[m]])
        except media.MediaError:
            if not has.get(self.drop):
                raise
            # The modality that is dropped need not be usable: sound may be silent.
            found = decode([m for m in MODALITIES if m != self.drop])
        waveform, frames = found
        samples = min(clip.num_samples, round(seconds * clip.sample_rate))
        return Window(path, start_s, start_s + seconds, waveform, samples, frames)


def visible_counts(config: Config, mask_ratio: float | None, drop: str) -> dict[str, int]:
    """How many tokens of each modality stay visible; see `Options`.

    Raises:
        ConfigError: nothing would be hidden, or nothing seen.
    """
    if drop and drop not in MODALITIES:
        raise ConfigError(f'drop = {drop!r}: must be {" or ".join(MODALITIES)}, or empty.')
    if mask_ratio is None:
        mask_ratio = 0.0 if drop else config.evaluation.mask_ratio
    elif not (0 <= mask_ratio < 1 if drop else 0 < mask_ratio < 1):
        allowed = 'from 0 to below 1 with drop' if drop else 'between 0 and 1, both excluded'
        raise ConfigError(
            f'mask_ratio = {mask_ratio:g}: must be {allowed}: something must be seen, and something hidden; '
            'drop=audio or drop=video hides one modality wholly.'
        )
    if drop and not config.model.class_token:
        raise ConfigError(
            f'drop = {drop!r}: must be empty: the encoders of this network have no class token.'
        )
    tokens = {'audio': config.audio.num_tokens, 'video': config.video_tokens}
    return {
        m: 0 if m == drop else n if mask_ratio == 0 else visible_tokens(n, mask_ratio, 1)
        for m, n in tokens.items()
    }
