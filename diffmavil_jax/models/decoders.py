"""The decoder of one modality: from visible latents and diffused patches to predictions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.models.patches import take_rows
from diffmavil_jax.models.positions import sincos_table, timestep_embedding
from diffmavil_jax.models.transformer import Compute, Stack, dense, flat, layer_norm, shard_batch


class Decoder(nn.Module):
    """Predicts the masked patches (MAViL; DiffMAE).

    The decoded tokens start from a learnable mask token (MAE) or, given noisy patches,
    from their embedding (DiffMAViL). See `ModelConfig` for the kinds.
    """

    grid: tuple[int, ...]
    target_dim: int  # of a prediction
    width: int
    depth: int
    heads: int
    kind: str
    conditioning: str  # of the time step: none, add, adaln
    timesteps: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, 'b z d'],
        visible: Int[Array, 'b k'],
        decoded: Int[Array, 'b m'],
        noisy: Float[Array, 'b m p'] | None,
        timestep: Int[Array, ' b'] | None,
    ) -> Float[Array, 'b m o']:
        """Predicts the decoded tokens.

        Args:
            latents: of the visible tokens, after fusion.
            visible: their indices.
            decoded: indices of the tokens to predict.
            noisy: diffused patches of these; None: the mask token.
            timestep: of the diffusion, for each clip; not needed without conditioning.

        Returns:
            Predictions, float32, in the units of the target.
        """
        positions = jnp.asarray(sincos_table(self.grid, self.width), self.compute.dtype)
        memory = dense(self.width, ('embed', 'decoder'), 'latent_embedding', self.compute.dtype)(latents)
        # A class token has no position in the grid.
        class_tokens = latents.shape[1] - visible.shape[1]
        offsets = jnp.pad(take_rows(positions, visible), ((0, 0), (class_tokens, 0), (0, 0)))
        memory = shard_batch(memory + offsets)
        queries = shard_batch(self._initial_queries(noisy) + take_rows(positions, decoded))
        condition = None if self.conditioning == 'none' else self._condition(timestep)
        if condition is not None and self.conditioning == 'add':
            queries = queries + condition[:, None]
        stack = Stack(self.depth, self.heads, self.kind, self.compute, name='layers')
        context = condition if self.conditioning == 'adaln' else None
        if self.kind == 'self':
            x = stack(jnp.concatenate([memory, queries], axis=1), None, context)[:, memory.shape[1] :]
        else:
            x = stack(queries, layer_norm('memory_norm', self.compute.dtype)(memory), context)
        x = layer_norm('norm', self.compute.dtype)(shard_batch(x))
        prediction = dense(self.target_dim, ('embed', 'patch'), 'prediction', self.compute.dtype)(flat(x))
        return prediction.reshape(*x.shape[:2], -1).astype(jnp.float32)

    def _initial_queries(self, noisy: jax.Array | None) -> jax.Array:
        if noisy is not None:
            embedded = dense(self.width, ('patch', 'embed'), 'noisy_patch_embedding', self.compute.dtype)(
                flat(noisy)
            )
            return embedded.reshape(*noisy.shape[:2], -1)
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, 'embed'))
        return self.param('mask_token', init, (1, 1, self.width)).astype(self.compute.dtype)

    def _condition(self, timestep: jax.Array | None) -> jax.Array:
        table = jnp.asarray(timestep_embedding(self.timesteps, self.width), self.compute.dtype)
        hidden = dense(self.width, ('embed', 'mlp'), 'timestep_wide', self.compute.dtype)(table[timestep])
        return dense(self.width, ('mlp', 'embed'), 'timestep_narrow', self.compute.dtype)(nn.silu(hidden))
