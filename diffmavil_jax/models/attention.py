"""Scaled dot-product attention, in a form that each back end compiles well."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmavil_jax.config.schema import Config

Implementation = Literal['auto', 'xla', 'cudnn']


def attend(
    query: Float[Array, 'b h q c'],
    key: Float[Array, 'b h n c'],
    value: Float[Array, 'b h n c'],
    implementation: str = 'xla',
    lengths: tuple[int, int] | None = None,
) -> Float[Array, 'b h q c']:
    """softmax(query key^T / sqrt(c)) value (Vaswani et al. 2017), softmax in float32.

    `cudnn`, on NVIDIA GPUs in bfloat16, never writes the weights to memory (Dao et al. 2022).
    `choose` says whether it works here.

    Args:
        query: of each head.
        key: of each head.
        value: of each head.
        implementation: `xla` or `cudnn`.
        lengths: the numbers of queries and keys, where the caller has padded them with `pad_to_even`;
            results of padding are arbitrary. Only for `cudnn`.
    """
    if implementation == 'cudnn':
        return _attend_cudnn(query, key, value, lengths or (query.shape[2], key.shape[2]))
    return _attend(query * query.shape[-1] ** -0.5, key, value)


def pad_to_even(tokens: Float[Array, 'b n ...']) -> Float[Array, 'b even ...']:
    """The tokens, with one more of zeros if their number is odd: cuDNN's gradient needs even lengths."""
    return jnp.pad(tokens, ((0, 0), (0, tokens.shape[1] % 2), *[(0, 0)] * (tokens.ndim - 2)))


def _attend_cudnn(
    query: jax.Array, key: jax.Array, value: jax.Array, lengths: tuple[int, int]
) -> Float[Array, 'b h q c']:
    q, k, v = (pad_to_even(x.swapaxes(1, 2)) for x in (query, key, value))
    queries, keys = (
        None if (q.shape[1], k.shape[1]) == lengths else jnp.full(len(query), length, jnp.int32)
        for length in lengths
    )
    mixed = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=queries, key_value_seq_lengths=keys, implementation='cudnn'
    )
    return mixed[:, : query.shape[2]].swapaxes(1, 2)


def for_this_machine(config: Config) -> tuple[Config, str]:
    """The config with `compute` as it suits this machine, and why its attention was chosen.

    A network that was trained on a GPU may be opened on a CPU: `cudnn` is chosen again, `xla` works anywhere.
    """
    compute = config.compute
    attention, reason = choose('auto' if compute.attention == 'cudnn' else compute.attention, compute.dtype)
    compute = dataclasses.replace(compute.on(jax.default_backend()), attention=attention)
    return dataclasses.replace(config, compute=compute), reason


def choose(asked: Implementation, dtype: str) -> tuple[Implementation, str]:
    """The implementation to use, and why.

    Args:
        asked: `config.compute.attention`; `auto` takes cuDNN's where a trial of it gives the right
            numbers, forward and backward.
        dtype: of the activations.
    """
    if asked != 'auto':
        return asked, 'set in the config'
    if jax.default_backend() != 'gpu' or dtype != 'bfloat16':
        return 'xla', f'cuDNN has none for {dtype} on {jax.default_backend()}'
    return _try_cudnn()


@functools.cache
def _try_cudnn() -> tuple[Implementation, str]:
    """What a trial of cuDNN's attention says; one a process, because it compiles two programs."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [
        jax.random.normal(key, (2, 4, n, 64), jnp.bfloat16)
        for key, n in zip(keys, (37, 101, 101), strict=True)
    ]

    def trial(implementation: str) -> list[jax.Array]:
        def square(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            return jnp.square(attend(query, key, value, implementation).astype(jnp.float32)).sum()

        value, gradients = jax.jit(jax.value_and_grad(square, argnums=(0, 1, 2)))(*inputs)
        return [value, *gradients]

    try:
        differences = [
            float(jnp.linalg.norm((a - b).astype(jnp.float32)) / jnp.linalg.norm(b.astype(jnp.float32)))
            for a, b in zip(trial('cudnn'), trial('xla'), strict=True)
        ]
    except Exception as error:  # whatever a driver, a library or a compiler does not support
        return 'xla', f'cuDNN failed: {str(error).strip().splitlines()[0][:200]}'
    if max(differences) > 0.02:
        return 'xla', f'cuDNN differs by {max(differences):.1%}'
    return 'cudnn', 'a trial of it gave the right numbers'


@jax.custom_vjp
def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Keeps the weights in the dtype of the query, where automatic differentiation would keep float32."""
    return _forward(query, key, value)[0]


def _forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    logits = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
    mixed = weights @ value
    return mixed, (query, key, value, weights, mixed)


def _backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    query, key, value, weights, mixed = saved
    to_weights = jnp.matmul(gradient, value.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    # The mean of to_weights under the weights, which the derivative of a softmax subtracts.
    mean = (gradient.astype(jnp.float32) * mixed).sum(axis=-1, keepdims=True)
    to_logits = (weights * (to_weights - mean)).astype(query.dtype)
    return to_logits @ key, to_logits.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ gradient


_attend.defvjp(_forward, _backward)
