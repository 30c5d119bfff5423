"""The pretraining objective: reconstruct the masked patches, contrast the modalities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.pretraining import MODALITIES, Outputs, PretrainingModel, View
from diffmavil_jax.objectives import diffusion
from diffmavil_jax.objectives.contrastive import info_nce
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.masking import contrast_masks, random_masks
from diffmavil_jax.objectives.randomness import clip_keys
from diffmavil_jax.objectives.reconstruction import normalize_patches, squared_error

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count)

# From views, clean patches and positions of the clips to what is predicted of each modality [b m p].
Targets = Callable[[dict[str, View], dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """Static sizes of one modality's mask."""

    visible: int
    decoded: int


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
        """The loss of a batch, and its parts.

        Args:
            params: of the model.
            batch: see `to_patches`; with `position` int32 [b], the samples seen before each
                clip, which determine everything random; and maybe `present` [b 2], 1 for the
                modalities that a clip has: no term is taken of others.
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
        patches, positions = to_patches(batch, self.config), batch['position']
        views = self.views(patches, positions, counts, power=self.config.masking.contrast_power)
        if self.config.loss.second_view:
            views = self._with_second_views(views, positions, counts)
        outputs = self.model.apply({'params': params}, views)
        config = self.config.loss
        share = {m: _share(batch, m) for m in MODALITIES} | {'inter': _share(batch, *MODALITIES)}
        targets = targets_of(views, patches, positions)
        terms = {m: squared_error(outputs.predictions[m], targets[m]) for m in views}
        terms['inter'], correct = self._inter_modal(outputs.pooled, share['inter'])
        if config.inter_both_views:
            second, _ = self._inter_modal(outputs.second_pooled, share['inter'])
            terms['inter'] = (terms['inter'] + second) / 2
        weights = {'audio': config.audio_weight, 'video': config.video_weight, 'inter': config.inter_weight}
        terms['inter_accuracy'] = correct.astype(jnp.float32)
        share['inter_accuracy'] = share['inter']
        terms = {name: _shared(term, share[name]) for name, term in terms.items()}
        if config.second_view:
            terms['intra'] = self._intra_modal(outputs, share)
            weights['intra'] = config.intra_weight
        per_clip = jnp.stack([weight * terms[name] for name, weight in weights.items()]).sum(axis=0)
        count = jnp.float32(per_clip.shape[0])
        counts_of = {name: count if of is None else of.sum() for name, of in share.items()}
        metrics = {name: (term.sum(), counts_of.get(name, count)) for name, term in terms.items()}
        return per_clip.mean(), {'loss': (per_clip.sum(), count), **metrics}

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
        """Masks, and diffused patches at the decoded places, for each modality.

        Args:
            patches: clean patches.
            positions: of the clips, see `loss`.
            counts: see `loss`.
            timestep: the same for every clip; drawn for each clip if None.
            view: names the random streams; another name draws another view.
            power: of contrast in what is visible, see `contrast_masks`.
        """
        views = {}
        for modality in MODALITIES:
            clean, count = patches[modality], counts[modality]
            visible, decoded = self._masks(f'{view} {modality} mask', positions, clean, count, power)
            views[modality] = View(clean, visible, decoded)
            if self.config.diffusion.enabled:
                steps = self._timesteps(positions, f'{view} {modality} timestep', timestep)
                noise = self._noise(positions, modality, (count.decoded, clean.shape[2]), view)
                noisy = diffusion.diffuse(take_tokens(clean, decoded), noise, self._alphas_cumprod[steps])
                views[modality] = dataclasses.replace(views[modality], noisy=noisy, timestep=steps)
        return views

    def clean_targets(self, patches: Float[Array, 'b n p'], view: View) -> Float[Array, 'b m p']:
        """Clean patches at the decoded places, in the units that the model predicts x_0 in."""
        clean = take_tokens(patches, view.decoded)
        return normalize_patches(clean) if self.config.loss.normalize_targets else clean

    def predicted_x0(self, prediction: Float[Array, 'b m p'], view: View) -> Float[Array, 'b m p']:
        """The model's estimate of the clean patches at the decoded places."""
        if view.noisy is None:
            return prediction
        alpha_bar = self._alphas_cumprod[view.timestep]
        return diffusion.predicted_x0(self.config.diffusion.target, prediction, view.noisy, alpha_bar)

    def _patch_targets(
        self, views: dict[str, View], patches: dict[str, jax.Array], positions: jax.Array
    ) -> dict[str, Float[Array, 'b m p']]:
        """What the decoders are to predict at the decoded places."""
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
        """Whether the second view passes fusion and decoders in the papers is unknown; here it does not."""
        result, power = {}, self.config.masking.contrast_power
        for modality, view in views.items():
            count = dataclasses.replace(counts[modality], decoded=0)
            second, _ = self._masks(f'second {modality} mask', positions, view.patches, count, power)
            result[modality] = dataclasses.replace(view, second=second)
        return result

    def _masks(
        self, stream: str, positions: jax.Array, patches: jax.Array, count: TokenCounts, power: float
    ) -> tuple[Int[Array, 'b k'], Int[Array, 'b m']]:
        keys = clip_keys(self.config.seed, stream, positions)
        if power == 0:
            return random_masks(keys, patches.shape[1], count.visible, count.decoded)
        return contrast_masks(keys, patches, power, count.visible, count.decoded)

    def _inter_modal(
        self, pooled: Mapping[str, jax.Array], share: jax.Array | None
    ) -> tuple[Float[Array, ' b'], jax.Array]:
        """InfoNCE between the modalities, and which sounds find their pictures."""
        return info_nce(pooled['audio'], pooled['video'], self.config.loss.inter_temperature, share)

    def _intra_modal(self, outputs: Outputs, share: Mapping[str, jax.Array | None]) -> Float[Array, ' b']:
        """InfoNCE between two masked views of each modality, summed over the modalities."""
        terms = []
        for m in MODALITIES:
            pair = (outputs.pooled[m], outputs.second_pooled[m])
            terms.append(_shared(info_nce(*pair, self.config.loss.intra_temperature, share[m])[0], share[m]))
        return jnp.stack(terms).sum(axis=0)

    def _timesteps(self, positions: jax.Array, stream: str, fixed: int | None) -> Int[Array, ' b']:
        if fixed is not None:
            return jnp.full(positions.shape, fixed, jnp.int32)
        keys = clip_keys(self.config.seed, stream, positions)
        limit = self.config.diffusion.timesteps
        # Not randint, which draws twice and divides: it takes five times as long to compile.
        return jax.vmap(lambda key: (jax.random.uniform(key) * limit).astype(jnp.int32))(keys)

    def _noise(
        self, positions: jax.Array, modality: str, shape: tuple[int, int], view: str
    ) -> Float[Array, 'b m p']:
        return diffusion.draw_noise(clip_keys(self.config.seed, f'{view} {modality} noise', positions), shape)


def _share(batch: Mapping[str, jax.Array], *modalities: str) -> Float[Array, ' b'] | None:
    """1 for the clips that have these modalities, else 0; None where all have all."""
    if 'present' not in batch:
        return None
    return jnp.stack([batch['present'][:, MODALITIES.index(m)] for m in modalities]).prod(axis=0)


def _shared(term: Float[Array, ' b'], share: Float[Array, ' b'] | None) -> Float[Array, ' b']:
    return term if share is None else term * share
