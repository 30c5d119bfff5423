"""The uni-modal encoders and the fusion encoder."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.patches import take_rows
from diffmavil_jax.models.positions import sincos_table
from diffmavil_jax.models.transformer import Compute, Stack, dense, flat, shard_batch


class Encoder(nn.Module):
    """f_a or f_v: embeds patches of one modality and runs a ViT over them.

    The output is not normed: the fusion encoder takes the residual stream (as in the
    public inference code of MAViL).
    """

    grid: tuple[int, ...]
    width: int
    depth: int
    heads: int
    compute: Compute = Compute()
    time_step: float = 1.0  # distance of neighbours in time, see `sincos_table`
    has_class_token: bool = True
    stores_positions: bool = False  # see `ModelConfig.positions`

    @nn.compact
    def __call__(
        self,
        patches: Float[Array, 'b k p'],
        token_ids: Int[Array, 'b k'] | None = None,
        drop_path_scale: Float[Array, 'depth b 2'] | None = None,
    ) -> Float[Array, 'b z d']:
        """Encodes the patches; token 0 of the result is the class token, if there is one.

        Args:
            patches: the visible patches.
            token_ids: their indices in the clip; None: all tokens, in order.
            drop_path_scale: for each layer, see `Block`.
        """
        positions = self._positions().astype(self.compute.dtype)
        positions = positions[None] if token_ids is None else take_rows(positions, token_ids)
        tokens = dense(self.width, ('patch', 'embed'), 'patch_embedding', self.compute.dtype)(flat(patches))
        tokens = shard_batch(tokens.reshape(*patches.shape[:2], self.width) + positions)
        if self.has_class_token:
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, 'embed'))
            class_token = self.param('class_token', init, (1, 1, self.width)).astype(self.compute.dtype)
            class_token = jnp.broadcast_to(class_token, (tokens.shape[0], 1, self.width))
            tokens = jnp.concatenate([class_token, tokens], axis=1)
        return Stack(self.depth, self.heads, compute=self.compute, name='layers')(
            tokens, drop_path_scale=drop_path_scale
        )

    def _positions(self) -> Float[Array, 'n d']:
        table = sincos_table(self.grid, self.width, self.time_step)
        if not self.stores_positions:
            return jnp.asarray(table)
        init = nn.with_logical_partitioning(lambda key: jnp.asarray(table), (None, 'embed'))
        return jax.lax.stop_gradient(self.param('positions', init))


def make_encoder(
    config: Config, modality: str, *, time_step: float = 1.0, name: str | None = None
) -> Encoder:
    """The encoder of one modality of a run; for `time_step` see `Encoder`."""
    model = config.model
    return Encoder(
        config.grids[modality],
        model.vit.width,
        model.vit.depth,
        model.vit.heads,
        Compute.of(config.compute),
        time_step=time_step,
        has_class_token=model.class_token,
        stores_positions=model.positions == 'stored',
        name=name,
    )


class FusionEncoder(nn.Module):
    """g: plain blocks over [class_a, audio, class_v, video] (MAViL)."""

    depth: int
    heads: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, 'b ka d'],
        video: Float[Array, 'b kv d'],
        drop_path_scale: Float[Array, 'depth b 2'] | None = None,
    ) -> tuple[Float[Array, 'b ka d'], Float[Array, 'b kv d']]:
        stack = Stack(self.depth, self.heads, compute=self.compute, name='layers')
        fused = stack(jnp.concatenate([audio, video], axis=1), drop_path_scale=drop_path_scale)
        return fused[:, : audio.shape[1]], fused[:, audio.shape[1] :]
