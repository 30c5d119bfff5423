"""The pretraining network: two encoders, fusion, two decoders."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config import Config
from diffmavil_jax.models.decoders import Decoder
from diffmavil_jax.models.encoders import Encoder, FusionEncoder
from diffmavil_jax.models.transformer import layer_norm

MODALITIES = ('audio', 'video')


@flax.struct.dataclass
class View:
    """What the network gets of one modality.

    Clean patches of which it sees `visible`, and the tokens that it is to decode, with their
    diffused patches and time step where they replace mask tokens.
    """

    patches: Float[Array, 'b n p']
    visible: Int[Array, 'b k']
    decoded: Int[Array, 'b m']
    noisy: Float[Array, 'b m p'] | None = None
    timestep: Int[Array, ' b'] | None = None


@flax.struct.dataclass
class Outputs:
    """Per modality: predictions at the decoded tokens, and the pooled uni-modal features."""

    predictions: dict[str, Float[Array, 'b m p']]
    pooled: dict[str, Float[Array, 'b d']]


class PretrainingModel(nn.Module):
    """MAViL and DiffMAViL; which of them, and how large, is the config's."""

    config: Config

    def setup(self) -> None:
        config, model = self.config, self.config.model
        dtype = jnp.dtype(model.dtype)
        vit = model.vit
        common = {'dtype': dtype, 'remat': model.remat, 'unroll': model.scan_unroll}
        grids = {'audio': config.audio.grid, 'video': config.video_grid}
        patch_dims = {'audio': config.audio.patch_dim, 'video': config.video.patch_dim}
        kinds = {'audio': model.audio_decoder, 'video': model.video_decoder}
        self.encoder = {m: Encoder(grids[m], vit.width, vit.depth, vit.heads, **common) for m in MODALITIES}
        self.pool_norm = {m: layer_norm(f'{m}_pool_norm', dtype) for m in MODALITIES}
        self.fusion = FusionEncoder(model.fusion_layers, vit.heads, **common)
        self.fusion_norm = layer_norm('fusion_norm', dtype)
        self.decoder = {
            m: Decoder(
                grid=grids[m],
                patch_dim=patch_dims[m],
                width=model.decoder_width,
                depth=model.decoder_layers,
                heads=model.decoder_heads,
                kind=kinds[m],
                conditioning=config.diffusion.conditioning,
                timesteps=config.diffusion.timesteps,
                **common,
            )
            for m in MODALITIES
        }

    def __call__(self, views: dict[str, View]) -> Outputs:
        """Encodes the visible tokens, fuses, and decodes."""
        tokens = {m: self.encoder[m](views[m].patches, views[m].visible) for m in MODALITIES}
        latents = self._fuse(tokens)
        predictions = {
            m: self.decoder[m](latents[m], view.visible, view.decoded, view.noisy, view.timestep)
            for m, view in views.items()
        }
        return Outputs(predictions, {m: self._pool(tokens[m], m) for m in MODALITIES})

    def embed(
        self, patches: dict[str, Float[Array, 'b n p']], visible: dict[str, Int[Array, 'b k']]
    ) -> dict[str, Float[Array, 'b d']]:
        """Pooled uni-modal features of masked clips: the encoders alone."""
        return {m: self._pool(self.encoder[m](patches[m], visible[m]), m) for m in MODALITIES}

    def features(self, patches: dict[str, Float[Array, 'b n p']]) -> dict[str, Float[Array, 'b d']]:
        """Features of whole clips: `audio` and `video` pooled before fusion, `fused` after it (2 d wide)."""
        tokens = {m: self.encoder[m](patches[m]) for m in MODALITIES}
        latents = self._fuse(tokens)
        fused = jnp.concatenate([latents[m][:, 1:].mean(axis=1) for m in MODALITIES], axis=-1)
        return {m: self._pool(tokens[m], m) for m in MODALITIES} | {'fused': fused.astype(jnp.float32)}

    def _fuse(self, tokens: dict[str, jax.Array]) -> dict[str, jax.Array]:
        fused = self.fusion(tokens['audio'], tokens['video'])
        return {m: self.fusion_norm(x) for m, x in zip(MODALITIES, fused, strict=True)}

    def _pool(self, tokens: jax.Array, modality: str) -> jax.Array:
        """Mean over the patch tokens, without the class token, in float32."""
        return self.pool_norm[modality](tokens[:, 1:]).astype(jnp.float32).mean(axis=1)
