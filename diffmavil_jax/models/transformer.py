"""Pre-norm transformer blocks with self- and cross-attention, and stacks of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmavil_jax.config.compute import ComputeConfig
from diffmavil_jax.models.attention import attend, pad_to_even

LAYER_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Compute:
    """How blocks are computed: the parameters are the same, and results differ by rounding only.

    Attributes:
        dtype: of activations.
        attention: see `attend`.
        remat: what a block keeps for its gradient: `none` (recomputes nothing), `dots` or `full`.
        unroll: layers in an iteration of the scan over them.
    """

    dtype: Any = jnp.float32
    attention: str = 'xla'
    remat: str = 'none'
    unroll: int = 1

    @classmethod
    def of(cls, compute: ComputeConfig) -> Compute:
        """What is automatic is chosen for this machine; `for_this_machine` chooses attention as well."""
        compute = compute.on(jax.default_backend())
        return cls(jnp.dtype(compute.dtype), compute.attention, compute.remat, compute.scan_unroll)


def dense(features: int, axes: tuple[str, str], name: str, dtype: Any, *, zeros: bool = False) -> nn.Dense:
    """A linear layer whose kernel carries the logical names of its two axes."""
    init = nn.initializers.zeros_init() if zeros else nn.initializers.xavier_uniform()
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), (axes[1],)),
        name=name,
    )


@jax.custom_vjp
def gelu(x: Float[Array, '...']) -> Float[Array, '...']:
    """Exact GELU, as in published ViTs; its derivative reuses the normal distribution of the forward pass.

    CPU: automatic differentiation would compute the error function again, a fifth of an MLP's time.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    cumulative = (0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))).astype(x.dtype)
    return x * cumulative, (x, cumulative)


def _gelu_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, cumulative = saved
    density = jnp.exp(-0.5 * x * x) * (2.0 * jnp.pi) ** -0.5
    return (gradient * (cumulative + x * density).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def layer_norm(name: str, dtype: Any, *, affine: bool = True) -> nn.LayerNorm:
    """Layer normalisation, computed in float32 whatever the dtype of the result."""
    return nn.LayerNorm(
        epsilon=LAYER_NORM_EPSILON,
        dtype=dtype,
        use_bias=affine,
        use_scale=affine,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ('embed',)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ('embed',)),
        name=name,
    )


def flat(x: Float[Array, 'b n d']) -> Float[Array, 'bn d']:
    """One row for each token.

    CPU: XLA contracts (clips, tokens) of a kernel's gradient up to three times slower as two axes than
    as one. On other devices the reshape is free.
    """
    return x.reshape(-1, x.shape[-1])


def shard_batch(x: Float[Array, 'b ...']) -> Float[Array, 'b ...']:
    """Shards an activation over the devices by clips alone: parameters are gathered, activations stay."""
    return nn.with_logical_constraint(x, ('clips', *[None] * (x.ndim - 1)))


class Attention(nn.Module):
    """Multi-head attention of queries to a memory (themselves, for self-attention).

    `lengths`: the numbers of queries and of memory tokens, where padding follows them; see `attend`.
    """

    heads: int
    compute: Compute = Compute()
    lengths: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self, queries: Float[Array, 'b q d'], memory: Float[Array, 'b n d']
    ) -> Float[Array, 'b q d']:
        width = queries.shape[-1]

        def split(tokens: jax.Array, name: str) -> jax.Array:
            projected = dense(width, ('embed', 'heads'), name, self.compute.dtype)(flat(tokens))
            return projected.reshape(*tokens.shape[:2], self.heads, -1).swapaxes(1, 2)

        query, key, value = split(queries, 'query'), split(memory, 'key'), split(memory, 'value')
        mixed = attend(query, key, value, self.compute.attention, self.lengths).swapaxes(1, 2)
        out = dense(width, ('heads', 'embed'), 'out', self.compute.dtype)(mixed.reshape(-1, width))
        return out.reshape(queries.shape)


class Mlp(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, 'b q d']) -> Float[Array, 'b q d']:
        hidden = gelu(dense(4 * x.shape[-1], ('embed', 'mlp'), 'wide', self.dtype)(flat(x)))
        return dense(x.shape[-1], ('mlp', 'embed'), 'narrow', self.dtype)(hidden).reshape(x.shape)


class Block(nn.Module):
    """One pre-norm block.

    kind `self`: self-attention, MLP. `cross`: attention to the memory, MLP. `cross_self`:
    self-attention, attention to the memory, MLP. With a condition, each layer norm is
    shifted and scaled by it and each branch gated (adaLN-zero: Peebles and Xie 2023). `drop_path_scale`
    multiplies each branch, the first and the MLP: 0 drops it (stochastic depth: Huang et al. 2016).
    """

    kind: str
    heads: int
    compute: Compute = Compute()
    lengths: tuple[int, int] | None = None  # of x and of the memory; see `Attention`

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'b q d'],
        memory: Float[Array, 'b n d'] | None,
        condition: Float[Array, 'b d'] | None,
        drop_path_scale: Float[Array, 'b 2'] | None,
    ) -> Float[Array, 'b q d']:
        x = shard_batch(x)
        attention_scale, mlp_scale = (
            (1.0, 1.0) if drop_path_scale is None else jnp.split(drop_path_scale[:, None], 2, axis=-1)
        )
        if self.kind in ('self', 'cross_self'):
            normed, gate = self._norm(x, condition, 'self')
            own = self.lengths and (self.lengths[0], self.lengths[0])
            attended = Attention(self.heads, self.compute, own, name='self_attention')(normed, normed)
            x = x + attention_scale * gate * attended
        if self.kind in ('cross', 'cross_self'):
            normed, gate = self._norm(x, condition, 'cross')
            attention = Attention(self.heads, self.compute, self.lengths, name='cross_attention')
            attended = attention(normed, memory)
            x = x + attention_scale * gate * attended
        normed, gate = self._norm(x, condition, 'mlp')
        return x + mlp_scale * gate * Mlp(self.compute.dtype, name='mlp')(normed)

    def _norm(
        self, x: jax.Array, condition: jax.Array | None, branch: str
    ) -> tuple[jax.Array, jax.Array | float]:
        dtype = self.compute.dtype
        if condition is None:
            return layer_norm(f'{branch}_norm', dtype)(x), 1.0
        normed = layer_norm(f'{branch}_norm', dtype, affine=False)(x)
        modulation = dense(3 * x.shape[-1], ('embed', 'mlp'), f'{branch}_modulation', dtype, zeros=True)
        shift, scale, gate = jnp.split(modulation(nn.silu(condition))[:, None], 3, axis=-1)
        return normed * (1 + scale) + shift, gate


class Stack(nn.Module):
    """`depth` blocks with their parameters stacked on a leading `layers` axis.

    The scan traces one block whatever the depth.
    """

    depth: int
    heads: int
    kind: str = 'self'
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'b q d'],
        memory: Float[Array, 'b n d'] | None = None,
        condition: Float[Array, 'b d'] | None = None,
        drop_path_scale: Float[Array, 'depth b 2'] | None = None,
    ) -> Float[Array, 'b q d']:
        tokens, block, lengths = x.shape[1], _remat(self.compute.remat), None
        if self.compute.attention == 'cudnn':
            # Padded once, not in every layer.
            lengths = (tokens, tokens if memory is None else memory.shape[1])
            x, memory = pad_to_even(x), None if memory is None else pad_to_even(memory)
        scan = nn.scan(
            lambda module, carry, *context: (module(carry, *context), None),
            variable_axes={'params': 0},
            split_rngs={'params': True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=self.depth,
            unroll=min(self.compute.unroll, self.depth),
            metadata_params={nn.PARTITION_NAME: 'layers'},
        )
        layers = block(self.kind, self.heads, self.compute, lengths, name='block')
        return scan(layers, x, memory, condition, drop_path_scale)[0][:, :tokens]


def _remat(what: str) -> type[Block]:
    """The block that keeps for its gradient what `Compute.remat` says, and computes the rest again."""
    if what == 'none':
        return Block
    # Inside a scan nothing else could be shared with what is computed again.
    return nn.remat(Block, prevent_cse=False, policy=_keep_products if what == 'dots' else None)


def _keep_products(primitive: jax.extend.core.Primitive, *avals: Any, **params: Any) -> bool:
    """Whether to keep a result: of products with weights, and of cuDNN's attention."""
    if primitive.name.startswith('dot_product_attention'):
        return True
    return bool(jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *avals, **params))
