"""The pretraining objective: masked patches are reconstructed, the modalities are contrasted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.pretraining import Outputs, PretrainingModel, View
from diffmavil_jax.objectives import diffusion
from diffmavil_jax.objectives.augmentation import augment_sound
from diffmavil_jax.objectives.contrastive import info_nce, sigmoid
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.masking import contrast_masks, random_masks
from diffmavil_jax.objectives.randomness import clip_keys
from diffmavil_jax.objectives.reconstruction import normalize_patches, squared_error
from diffmavil_jax.parallel.metrics import Metrics

_INTER_NAMES = {'info_nce': 'inter', 'sigmoid': 'sigmoid'}

# From views, clean patches and positions of the clips to the decoders' targets [b m p], by modality.
Targets = Callable[[dict[str, View], dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """Static sizes of one modality's mask."""

    visible: int
    decoded: int


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of the loss, or a metric beside it.

    Attributes:
        value: of each clip; 0 for clips without the modalities of the term.
        weight: in the loss; None for a metric that is not part of the loss.
        count: how many clips have the modalities of the term.
    """

    value: Float[Array, ' b']
    weight: float | None
    count: Float[Array, '']

    @classmethod
    def masked(cls, value: Float[Array, ' b'], weight: float | None, mask: Float[Array, ' b'] | None) -> Term:
        """A term over the clips where the mask is 1; without a mask, over all clips."""
        if mask is None:
            return cls(value, weight, jnp.float32(len(value)))
        return cls(value * mask, weight, mask.sum())

    @property
    def metric(self) -> tuple[jax.Array, jax.Array]:
        """The sum over the clips, and the count."""
        return self.value.sum(), self.count


class PretrainingObjective:
    """Draws masks, time steps and noise, runs the model and adds up the losses."""

    predicts_patches = True

    def __init__(self, config: Config, *, target_dim: int | None = None) -> None:
        self.config = config
        self.model = PretrainingModel(config, target_dim)
        self._alphas_cumprod = jnp.asarray(diffusion.alphas_cumprod(config.diffusion), jnp.float32)

    def init(self, key: jax.Array, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]) -> Any:
        """The model's variables, with logical axis names on every parameter."""
        views = self.views(to_patches(batch, self.config), batch['position'], counts)
        return self.model.init(key, views)

    def loss(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        counts: Mapping[str, TokenCounts],
    ) -> tuple[Float[Array, ''], Metrics]:
        """The loss of a batch, and its terms as metrics.

        Args:
            params: of the model.
            batch: see `to_patches`; with `position` int32 [b], the samples seen before each
                clip, which determine everything random; optionally `present` [b 2], 1 for the
                modalities that a clip has, since the others have no loss.
            counts: visible and decoded tokens for each modality.
        """
        return self._loss(params, batch, counts, self._patch_targets)

    def _loss(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        counts: Mapping[str, TokenCounts],
        targets_of: Targets,
    ) -> tuple[Float[Array, ''], Metrics]:
        positions = batch['position']
        patches = to_patches(self._augmented(batch), self.config)
        views = self.views(patches, positions, counts, power=self.config.masking.contrast_power)
        if self.config.loss.second_view:
            views = self._with_second_views(views, positions, counts)
        outputs = self.model.apply({'params': params}, views)
        terms = {
            **self._reconstruction_terms(outputs, targets_of(views, patches, positions), batch),
            **self._inter_modal_terms(outputs, batch),
        }
        if self.config.loss.second_view:
            terms['intra'] = self._intra_modal_term(outputs, batch)
        weighted = [term.weight * term.value for term in terms.values() if term.weight is not None]
        per_clip = jnp.stack(weighted).sum(axis=0)
        metrics = {'loss': (per_clip.sum(), jnp.float32(len(per_clip)))}
        return per_clip.mean(), metrics | {name: term.metric for name, term in terms.items()}

    def _augmented(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The batch with its sound as it is trained on."""

        def keys(stream: str) -> jax.Array:
            return clip_keys(self.config.seed, f'sound {stream}', batch['position'])

        return {**batch, 'waveform': augment_sound(batch['waveform'], self.config.augmentation, keys)}

    def views(
        self,
        patches: dict[str, Float[Array, 'b n p']],
        positions: Int[Array, ' b'],
        counts: Mapping[str, TokenCounts],
        *,
        timestep: int | None = None,
        view: str = 'first',
        power: float = 0.0,
    ) -> dict[str, View]:
        """Draws the masks of each modality, and diffuses the patches of the decoded tokens.

        Args:
            patches: clean patches.
            positions: of the clips, see `loss`.
            counts: see `loss`.
            timestep: of every clip; None draws one for each clip.
            view: name of the random streams; another name draws another view.
            power: of the contrast, see `contrast_masks`; 0 draws masks uniformly.
        """
        views = {}
        for modality in MODALITIES:
            clean, count = patches[modality], counts[modality]
            visible, decoded = self._masks(view, modality, positions, clean, count, power)
            views[modality] = View(clean, visible, decoded)
            if self.config.diffusion.enabled:
                steps = self._timesteps(positions, f'{view} {modality} timestep', timestep)
                noise = self._noise(positions, modality, (count.decoded, clean.shape[2]), view)
                noisy = diffusion.diffuse(take_tokens(clean, decoded), noise, self._alphas_cumprod[steps])
                views[modality] = dataclasses.replace(views[modality], noisy=noisy, timestep=steps)
        return views

    def clean_targets(self, patches: Float[Array, 'b n p'], view: View) -> Float[Array, 'b m p']:
        """Clean patches of the decoded tokens, in the units that the model predicts x_0 in."""
        clean = take_tokens(patches, view.decoded)
        return normalize_patches(clean) if self.config.loss.normalize_targets else clean

    def predicted_x0(self, prediction: Float[Array, 'b m p'], view: View) -> Float[Array, 'b m p']:
        """The model's estimate of the clean patches of the decoded tokens."""
        if view.noisy is None:
            return prediction
        alpha_bar = self._alphas_cumprod[view.timestep]
        return diffusion.predicted_x0(self.config.diffusion.target, prediction, view.noisy, alpha_bar)

    def _patch_targets(
        self, views: dict[str, View], patches: dict[str, jax.Array], positions: jax.Array
    ) -> dict[str, Float[Array, 'b m p']]:
        """The targets of the decoders: x_0, eps or v of the decoded tokens."""
        targets = {}
        for modality, view in views.items():
            target = self.clean_targets(patches[modality], view)
            if self.config.diffusion.target != 'x0':
                shape = (target.shape[1], target.shape[2])
                noise = self._noise(positions, modality, shape, 'first')
                alpha_bar = self._alphas_cumprod[view.timestep]
                target = diffusion.prediction_target(self.config.diffusion.target, target, noise, alpha_bar)
            targets[modality] = target
        return targets

    def _with_second_views(
        self, views: dict[str, View], positions: jax.Array, counts: Mapping[str, TokenCounts]
    ) -> dict[str, View]:
        """Adds the visible tokens of the second views.

        Whether the papers fuse and decode these views is not stated. Here they pass the encoders only.
        """
        result, power = {}, self.config.masking.contrast_power
        for modality, view in views.items():
            count = dataclasses.replace(counts[modality], decoded=0)
            second, _ = self._masks('second', modality, positions, view.patches, count, power)
            result[modality] = dataclasses.replace(view, second=second)
        return result

    def _masks(
        self,
        view: str,
        modality: str,
        positions: jax.Array,
        patches: jax.Array,
        count: TokenCounts,
        power: float,
    ) -> tuple[Int[Array, 'b k'], Int[Array, 'b m']]:
        keys = clip_keys(self.config.seed, f'{view} {modality} mask', positions)
        if power == 0:
            return random_masks(keys, patches.shape[1], count.visible, count.decoded)
        channels = 3 if modality == 'video' else 1
        return contrast_masks(keys, patches, power, count.visible, count.decoded, channels=channels)

    def _reconstruction_terms(
        self, outputs: Outputs, targets: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
    ) -> dict[str, Term]:
        weights = {'audio': self.config.loss.audio_weight, 'video': self.config.loss.video_weight}
        return {
            m: Term.masked(squared_error(outputs.predictions[m], targets[m]), weight, _loss_mask(batch, m))
            for m, weight in weights.items()
        }

    def _inter_modal_terms(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> dict[str, Term]:
        """Contrast of the modalities, and the share of sounds that find their own pictures."""
        config, mask = self.config.loss, _loss_mask(batch, *MODALITIES)

        def contrast(pooled: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            pair = pooled['audio'], pooled['video']
            if config.inter_kind == 'sigmoid':
                return sigmoid(*pair, config.inter_temperature, config.sigmoid_bias, mask)
            return info_nce(*pair, config.inter_temperature, mask)

        loss, correct = contrast(outputs.pooled)
        if config.inter_both_views:
            loss = (loss + contrast(outputs.second_pooled)[0]) / 2
        return {
            # A name for each loss: reports draw the chance of InfoNCE beside `inter`.
            _INTER_NAMES[config.inter_kind]: Term.masked(loss, config.inter_weight, mask),
            'inter_accuracy': Term.masked(correct.astype(jnp.float32), None, mask),
        }

    def _intra_modal_term(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> Term:
        """InfoNCE between two masked views of each modality, summed over the modalities."""
        losses = []
        for m in MODALITIES:
            mask = _loss_mask(batch, m)
            pair = (outputs.pooled[m], outputs.second_pooled[m])
            loss, _ = info_nce(*pair, self.config.loss.intra_temperature, mask)
            losses.append(loss if mask is None else loss * mask)
        return Term.masked(jnp.stack(losses).sum(axis=0), self.config.loss.intra_weight, None)

    def _timesteps(self, positions: jax.Array, stream: str, fixed: int | None) -> Int[Array, ' b']:
        if fixed is not None:
            return jnp.full(positions.shape, fixed, jnp.int32)
        keys = clip_keys(self.config.seed, stream, positions)
        limit = self.config.diffusion.timesteps
        # CPU: not randint, which draws twice and divides: it takes five times as long to compile.
        return jax.vmap(lambda key: (jax.random.uniform(key) * limit).astype(jnp.int32))(keys)

    def _noise(
        self, positions: jax.Array, modality: str, shape: tuple[int, int], view: str
    ) -> Float[Array, 'b m p']:
        return diffusion.draw_noise(clip_keys(self.config.seed, f'{view} {modality} noise', positions), shape)


def _loss_mask(batch: Mapping[str, jax.Array], *modalities: str) -> Float[Array, ' b'] | None:
    """1 for the clips that have all of these modalities, else 0; None where no clip lacks any."""
    if 'present' not in batch:
        return None
    return jnp.stack([batch['present'][:, MODALITIES.index(m)] for m in modalities]).prod(axis=0)
