"""The classifier: pretrained encoders, a pooled feature, a linear layer."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.encoders import FusionEncoder, make_encoder
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.models.transformer import Attention, Compute, dense, layer_norm

NEW = ('head', 'attentive')  # name prefixes of the parameters that a pretrained network does not have
MOMENTS = 'feature_moments'  # of a linear probe: measured, not trained


class Standardized(nn.Module):
    """(x - mean) / deviation of each feature, with moments that are not trained.

    It stands for the batch norm without parameters of the probe of He et al. 2022. A
    probe's encoder is frozen, so moments over all training clips replace running ones.
    """

    @nn.compact
    def __call__(self, features: Float[Array, 'b d']) -> Float[Array, 'b d']:
        def moment(name: str, init: nn.initializers.Initializer) -> Float[Array, ' d']:
            partitioned = nn.with_logical_partitioning(init, ('embed',))
            return jax.lax.stop_gradient(self.param(name, partitioned, features.shape[-1:]))

        mean, deviation = moment('mean', nn.initializers.zeros), moment('deviation', nn.initializers.ones)
        return (features - mean) / deviation


class Classifier(nn.Module):
    """One encoder, or both with their fusion, and a linear layer (MAViL).

    Encoders and fusion have the names and shapes that `PretrainingModel` gives them. Tokens are
    pooled by their mean without class tokens or, for an attentive probe, by the attention of one
    learnt query for each modality. With both modalities the pooled features are concatenated. A linear
    probe standardises them; otherwise they pass a layer norm.
    """

    config: Config
    num_classes: int
    time_steps: Mapping[str, float]  # see Encoder

    @nn.compact
    def __call__(
        self,
        patches: Mapping[str, Float[Array, 'b n p']],
        visible: Mapping[str, Int[Array, 'b k']] | None = None,
        drop_path_scale: Mapping[str, Float[Array, 'depth b 2']] | None = None,
    ) -> Float[Array, 'b c']:
        """Logits of the classes, float32.

        Args:
            patches: of each modality of `config.finetune`.
            visible: indices of the visible tokens, by modality; all tokens of a modality that it lacks.
            drop_path_scale: for each layer of `audio`, `video` and `fusion`, see `Block`.
        """
        finetune, model = self.config.finetune, self.config.model
        compute = Compute.of(self.config.compute)
        visible, drop_path_scale = visible or {}, drop_path_scale or {}
        tokens = {}
        for m in finetune.modalities:
            encoder = make_encoder(self.config, m, time_step=self.time_steps[m], name=f'encoder_{m}')
            token_ids = visible.get(m)
            seen = patches[m] if token_ids is None else take_tokens(patches[m], token_ids)
            tokens[m] = encoder(seen, token_ids, drop_path_scale.get(m))
        if len(tokens) == 2:
            fusion = FusionEncoder(model.fusion_layers, model.vit.heads, compute, name='fusion')
            fused = fusion(tokens['audio'], tokens['video'], drop_path_scale.get('fusion'))
            tokens = dict(zip(tokens, fused, strict=True))
        if finetune.probe != 'none':
            tokens = jax.lax.stop_gradient(tokens)
        pooled = jnp.concatenate([self._pool(tokens[m][:, model.class_tokens :], m) for m in tokens], axis=-1)
        self.sow('intermediates', 'pooled', pooled)
        linear = finetune.probe == 'linear'
        norm = Standardized(name=MOMENTS) if linear else layer_norm('head_norm', compute.dtype)
        head = dense(self.num_classes, ('embed', 'classes'), 'head', compute.dtype, zeros=True)
        return head(norm(pooled)).astype(jnp.float32)

    def _pool(self, tokens: Float[Array, 'b k d'], modality: str) -> Float[Array, 'b d']:
        if self.config.finetune.probe != 'attentive':
            return tokens.mean(axis=1)
        width = tokens.shape[-1]
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, 'embed'))
        query = self.param(f'attentive_query_{modality}', init, (1, 1, width)).astype(tokens.dtype)
        normed = layer_norm(f'attentive_norm_{modality}', tokens.dtype)(tokens)
        model = self.config.model
        pool = Attention(model.vit.heads, Compute.of(self.config.compute), name=f'attentive_pool_{modality}')
        return pool(jnp.broadcast_to(query, (len(tokens), 1, width)), normed)[:, 0]
