"""The classification objective: augment a clip, classify it, compare with its labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.classifier import Classifier
from diffmavil_jax.models.frontend import pixels, spectrogram
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from diffmavil_jax.objectives import augmentation
from diffmavil_jax.objectives.masking import random_masks
from diffmavil_jax.objectives.pretraining import TokenCounts
from diffmavil_jax.objectives.randomness import clip_keys
from diffmavil_jax.parallel.metrics import Metrics
from diffmavil_jax.plan.buckets import kept_lines

LOSSES = {'softmax': optax.losses.softmax_cross_entropy, 'sigmoid': optax.losses.sigmoid_binary_cross_entropy}


class ClassificationObjective:
    """The loss of a classifier on clips with `target` [b c]: the weight of each class, 1 or a fraction."""

    def __init__(
        self, config: Config, num_classes: int, *, multi_label: bool, time_steps: Mapping[str, float]
    ) -> None:
        """Makes the model.

        Args:
            config: the run.
            num_classes: c.
            multi_label: whether a clip may have several classes, which decides the loss `auto`.
            time_steps: distance of neighbours in time, by modality; see `Encoder`.
        """
        self.config = config
        self.model = Classifier(config, num_classes, dict(time_steps))
        automatic = 'sigmoid' if multi_label else 'softmax'
        self.loss_name = automatic if config.finetune.loss == 'auto' else config.finetune.loss

    def init(self, key: jax.Array, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]) -> Any:
        """The model's variables, with logical axis names on every parameter."""
        del counts
        return self.model.init(key, self._patches(batch))

    def logits(self, params: Any, batch: Mapping[str, jax.Array]) -> Float[Array, 'b c']:
        """Logits of whole clips, without augmentation."""
        return self.model.apply({'params': params}, self._patches(batch))

    def probabilities(self, params: Any, batch: Mapping[str, jax.Array]) -> Float[Array, 'b c']:
        """Probabilities of the classes: softmax (they sum to 1) or sigmoid (each on its own), by the loss."""
        logits = self.logits(params, batch)
        return jax.nn.softmax(logits) if self.loss_name == 'softmax' else jax.nn.sigmoid(logits)

    def features(self, params: Any, batch: Mapping[str, jax.Array]) -> Float[Array, 'b d']:
        """The pooled features before the norm and the linear layer, of whole clips without augmentation."""
        patches = self._patches(batch)
        _, sown = self.model.apply({'params': params}, patches, mutable='intermediates')
        return sown['intermediates']['pooled'][0].astype(jnp.float32)

    def loss(
        self, params: Any, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]
    ) -> tuple[Float[Array, ''], Metrics]:
        """The mean loss of an augmented batch, and its metrics.

        Args:
            params: of the model.
            batch: `waveform` int16 [b samples], `frames` uint8 [b t y x 3], those of the modality;
                `target` [b c]; `position` int32 [b], which determines everything random.
            counts: visible tokens of each modality.
        """
        batch, positions = dict(batch), batch['position']
        target = batch['target']
        finetune = self.config.finetune
        if finetune.mixup_rate:
            keys = self._keys('mixup', positions)
            weights = augmentation.mixing_weights(keys, finetune.mixup_rate, finetune.mixup_alpha)
            target = augmentation.mix(target, weights)
        else:
            weights = None
        patches = self._patches(self._augmented(batch, positions, weights), positions)
        logits = self.model.apply(
            {'params': params}, patches, self._visible(positions, counts), self._drop_path_scale(positions)
        )
        smoothed = optax.losses.smooth_labels(target, finetune.label_smoothing)
        losses = LOSSES[self.loss_name](logits, smoothed)
        per_clip = losses if self.loss_name == 'softmax' else losses.mean(axis=-1)
        hits = jnp.take_along_axis(target, logits.argmax(axis=-1)[:, None], axis=-1)[:, 0]
        count = jnp.float32(len(per_clip))
        return per_clip.mean(), {'loss': (per_clip.sum(), count), 'accuracy': (hits.sum(), count)}

    def _keys(self, stream: str, positions: jax.Array) -> jax.Array:
        return clip_keys(self.config.seed, f'finetune {stream}', positions)

    def _augmented(
        self, batch: dict[str, jax.Array], positions: jax.Array, weights: jax.Array | None
    ) -> dict[str, jax.Array]:
        if 'waveform' in batch:
            keys = functools.partial(self._keys, positions=positions)
            waveform = augmentation.augment_sound(batch['waveform'], self.config.augmentation, keys)
            if weights is not None:
                waveform = augmentation.mix_waveforms(waveform, weights)
            batch['waveform'] = waveform
        if 'frames' in batch and weights is not None:
            batch['frames'] = augmentation.mix(batch['frames'], weights)
        return batch

    def _patches(
        self, batch: Mapping[str, jax.Array], positions: jax.Array | None = None
    ) -> dict[str, Float[Array, 'b n p']]:
        """Patches of the modalities that are classified; given positions, stripes are blanked first."""
        config, patches = self.config, {}
        if 'audio' in config.finetune.modalities:
            audio = spectrogram(batch['waveform'], config.audio, config.data.sample_rate)
            fill = config.audio.normalization.of_zero if config.finetune.spec_augment_fill == 'zero' else 0.0
            stripes = (config.finetune.spec_augment_time, config.finetune.spec_augment_frequency)
            for axis, widest in enumerate(stripes, 1):
                if positions is not None and widest:
                    keys = self._keys(f'stripe {axis}', positions)
                    audio = augmentation.blank_stripe(audio, keys, widest, axis, fill)
            patches['audio'] = patchify_audio(audio, config.audio.patch)
        if 'video' in config.finetune.modalities:
            video = pixels(batch['frames'], config.video)
            patches['video'] = patchify_video(video, config.video.patch_frames, config.video.patch)
        return patches

    def _visible(self, positions: jax.Array, counts: Mapping[str, TokenCounts]) -> dict[str, jax.Array]:
        config, finetune, visible = self.config, self.config.finetune, {}
        if 'audio' in finetune.modalities and counts['audio'].visible < config.audio.num_tokens:
            keys, grid = self._keys('audio mask', positions), config.audio.grid
            visible['audio'] = augmentation.random_lines(keys, grid, kept_lines(config))
        if 'video' in finetune.modalities and counts['video'].visible < config.video_tokens:
            keys = self._keys('video mask', positions)
            visible['video'], _ = random_masks(keys, config.video_tokens, counts['video'].visible, 0)
        return visible

    def _drop_path_scale(self, positions: jax.Array) -> dict[str, jax.Array]:
        rate, model = self.config.finetune.drop_path, self.config.model
        if not rate or self.config.finetune.probe != 'none':
            return {}
        both = self.config.finetune.modality == 'both'
        depth = model.vit.depth
        total = depth + (model.fusion_layers if both else 0)
        stacks = dict.fromkeys(self.config.finetune.modalities, (depth, 0))
        if both:
            stacks['fusion'] = (model.fusion_layers, depth)
        return {
            name: augmentation.drop_path_scales(
                self._keys(f'{name} drop path', positions), layers, first, total, rate
            )
            for name, (layers, first) in stacks.items()
        }
