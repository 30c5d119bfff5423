"""Scaled dot-product attention, in a form that each back end compiles well."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attend(
    query: Float[Array, 'b h q c'], key: Float[Array, 'b h n c'], value: Float[Array, 'b h n c']
) -> Float[Array, 'b h q c']:
    """softmax(query key^T / sqrt(c)) value (Vaswani et al. 2017, eq. 1), softmax in float32."""
    query = query * query.shape[-1] ** -0.5
    if jax.default_backend() == 'cpu':
        return _attend_on_cpu(query, key, value)
    return _weights(query, key.swapaxes(-1, -2)) @ value


def _weights(query: jax.Array, transposed_key: jax.Array) -> jax.Array:
    # float32: bfloat16 has 8 bits for weights that must sum to 1.
    return jax.nn.softmax((query @ transposed_key).astype(jnp.float32), axis=-1).astype(query.dtype)


@jax.custom_vjp
def _attend_on_cpu(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """The same with a gradient whose products are all plain [q n] x [n c] ones.

    XLA folds the transposes of the automatic gradient into its products, and the CPU back end
    has no fast path for a batch of those: an attention layer's gradient took two to three times as long.
    """
    return _forward(query, key, value)[0]


def _forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    weights = _weights(query, _transposed(key))
    return weights @ value, (query, key, value, weights)


def _backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    query, key, value, weights = saved
    to_weights = gradient @ _transposed(value)
    to_logits = weights * (to_weights - (to_weights * weights).sum(axis=-1, keepdims=True))
    return to_logits @ key, _transposed(to_logits) @ query, _transposed(weights) @ gradient


def _transposed(x: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(x.swapaxes(-1, -2))


_attend_on_cpu.defvjp(_forward, _backward)
