"""The pretraining network: two encoders, fusion, two decoders."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.decoders import Decoder
from diffmavil_jax.models.encoders import FusionEncoder, make_encoder
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.transformer import Compute, layer_norm, shard_batch


@flax.struct.dataclass
class View:
    """The network's input of one modality.

    Attributes:
        patches: clean patches of all tokens.
        visible: indices of the visible tokens.
        decoded: indices of the tokens that are decoded.
        noisy: diffused patches of these; None: the mask token.
        timestep: of the diffusion, for each clip.
        second: indices of the visible tokens of a second view, which passes the encoders only.
    """

    patches: Float[Array, 'b n p']
    visible: Int[Array, 'b k']
    decoded: Int[Array, 'b m']
    noisy: Float[Array, 'b m p'] | None = None
    timestep: Int[Array, ' b'] | None = None
    second: Int[Array, 'b k'] | None = None


@flax.struct.dataclass
class Outputs:
    """By modality: predictions of the decoded tokens, and pooled features of both views before fusion."""

    predictions: dict[str, Float[Array, 'b m p']]
    pooled: dict[str, Float[Array, 'b d']]
    second_pooled: dict[str, Float[Array, 'b d']]  # empty without a second view


class PretrainingModel(nn.Module):
    """MAViL and DiffMAViL, as the config says.

    `target_dim` is the number of values of a target; None where the decoders predict patches.
    """

    config: Config
    target_dim: int | None = None

    def setup(self) -> None:
        config, model = self.config, self.config.model
        compute = Compute.of(config.compute)
        patch_dims = {'audio': config.audio.patch_dim, 'video': config.video.patch_dim}
        kinds = {'audio': model.audio_decoder, 'video': model.video_decoder}
        self.encoder = {m: make_encoder(config, m) for m in MODALITIES}
        self.pool_norm = {m: layer_norm(f'{m}_pool_norm', compute.dtype) for m in MODALITIES}
        self.fusion = FusionEncoder(model.fusion_layers, model.vit.heads, compute)
        self.fusion_norm = layer_norm('fusion_norm', compute.dtype)
        self.decoder = {
            m: Decoder(
                grid=config.grids[m],
                target_dim=self.target_dim or patch_dims[m],
                width=model.decoder_width,
                depth=model.decoder_layers,
                heads=model.decoder_heads,
                kind=kinds[m],
                conditioning=config.diffusion.conditioning,
                timesteps=config.diffusion.timesteps,
                compute=compute,
            )
            for m in MODALITIES
        }

    def __call__(self, views: dict[str, View]) -> Outputs:
        """Encodes the visible tokens, fuses, and decodes."""
        latents, both = self.encode(views)
        predictions = {m: self.decode(latents[m], view, m) for m, view in views.items()}
        return Outputs(
            predictions,
            {m: self._pool(both[m][:, 0], m) for m in MODALITIES},
            {m: self._pool(both[m][:, 1], m) for m in MODALITIES if views[m].second is not None},
        )

    def encode(self, views: dict[str, View]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """The visible tokens of each modality, after fusion and before it.

        Returns:
            Latents [b z d] of the first view after fusion; tokens [b v z d] of all v views before it.
        """
        both = {m: self._encode(view, m) for m, view in views.items()}
        return self._fuse({m: tokens[:, 0] for m, tokens in both.items()}), both

    def decode(self, latents: Float[Array, 'b z d'], view: View, modality: str) -> Float[Array, 'b m p']:
        """Predictions of the decoded tokens of one modality, float32."""
        return self.decoder[modality](latents, view.visible, view.decoded, view.noisy, view.timestep)

    def _encode(self, view: View, modality: str) -> Float[Array, 'b v z d']:
        """The tokens of one view or of both, in one pass, so that the encoder is compiled once."""
        seen = [view.visible] if view.second is None else [view.visible, view.second]
        token_ids = jnp.concatenate(seen, axis=1)
        # Gathered before the embedding, so that masked patches cost nothing.
        patches = take_tokens(view.patches, token_ids)
        # The views of a clip are neighbours, so that a batch over several devices is not moved.
        rows = len(seen) * len(token_ids), view.visible.shape[1]
        tokens = self.encoder[modality](patches.reshape(*rows, patches.shape[-1]), token_ids.reshape(rows))
        return tokens.reshape(len(token_ids), len(seen), *tokens.shape[1:])

    def features(self, patches: dict[str, Float[Array, 'b n p']]) -> dict[str, Float[Array, 'b d']]:
        """Features of whole clips: `audio` and `video` pooled before fusion, `fused` after it (2 d wide).

        With the patches of one modality, it gives that one's features, without parameters of the other.
        """
        tokens, latents = self._of_whole_clips(patches)
        features = {m: self._pool(x, m) for m, x in tokens.items()}
        if latents:
            fused = jnp.concatenate([x.mean(axis=1) for x in latents.values()], axis=-1)
            features['fused'] = fused.astype(jnp.float32)
        return features

    def feature_tokens(self, patches: dict[str, Float[Array, 'b n p']]) -> dict[str, Float[Array, 'b n d']]:
        """The tokens that `features` averages, float32; in `fused`, those of sound come first."""
        tokens, latents = self._of_whole_clips(patches)
        features = {m: self._normed(x, m).astype(jnp.float32) for m, x in tokens.items()}
        if latents:
            features['fused'] = jnp.concatenate(list(latents.values()), axis=1).astype(jnp.float32)
        return features

    def tokens(self, patches: dict[str, Float[Array, 'b n p']]) -> dict[str, Float[Array, 'b n d']]:
        """All tokens of whole clips after fusion, without class tokens, float32."""
        return {m: x.astype(jnp.float32) for m, x in self._of_whole_clips(patches)[1].items()}

    def _of_whole_clips(
        self, patches: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """All tokens of each modality and, given both modalities, the patch tokens after fusion."""
        tokens = {m: self.encoder[m](patches[m]) for m in MODALITIES if m in patches}
        latents = self._fuse(tokens) if len(tokens) == len(MODALITIES) else {}
        return tokens, {m: self._of_patches(x) for m, x in latents.items()}

    def _fuse(self, tokens: dict[str, jax.Array]) -> dict[str, jax.Array]:
        fused = self.fusion(tokens['audio'], tokens['video'])
        return {m: self.fusion_norm(shard_batch(x)) for m, x in zip(MODALITIES, fused, strict=True)}

    def _of_patches(self, tokens: Float[Array, 'b z d']) -> Float[Array, 'b k d']:
        """Without the class token."""
        return tokens[:, self.config.model.class_tokens :]

    def _pool(self, tokens: jax.Array, modality: str) -> jax.Array:
        """Mean over the patch tokens, without the class token, in float32."""
        return shard_batch(self._normed(tokens, modality).astype(jnp.float32).mean(axis=1))

    def _normed(self, tokens: Float[Array, 'b z d'], modality: str) -> Float[Array, 'b k d']:
        return self.pool_norm[modality](shard_batch(self._of_patches(tokens)))
