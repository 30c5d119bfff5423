"""Masks of a static size: uniformly random (MAE: He et al. 2022, section 3), or by contrast."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

_LEAST = 0.1  # is added to contrast / mean, so that a patch without contrast may be visible too


def random_masks(
    keys: Key[Array, ' b'], tokens: int, visible: int, decoded: int
) -> tuple[Int[Array, 'b k'], Int[Array, 'b m']]:
    """Draws for each clip which tokens are visible, and which of the masked ones are decoded.

    Args:
        keys: one for each clip.
        tokens: n of the modality.
        visible: k.
        decoded: m, at most n - k; with m = n - k all masked tokens are decoded.
    """
    order = jnp.argsort(_uniform(keys, tokens), axis=1)
    return order[:, :visible], order[:, visible : visible + decoded]


def contrast_masks(
    keys: Key[Array, ' b'],
    patches: Float[Array, 'b n p'],
    power: float,
    visible: int,
    decoded: int,
) -> tuple[Int[Array, 'b k'], Int[Array, 'b m']]:
    """Like `random_masks`, but a token is more likely to be visible the more its patch varies.

    Visible tokens are drawn one after the other, without replacement, with a probability in proportion
    to their weight (Efraimidis and Spirakis 2006, algorithm A): (s / mean(s) + 0.1)^power, where s is the
    standard deviation of the values of a patch. All masked tokens are equally likely to be decoded.

    Args:
        keys: one for each clip.
        patches: clean patches.
        power: 0 draws uniformly.
        visible: k.
        decoded: m, at most n - k.
    """
    tokens = patches.shape[1]
    contrast = patches.std(axis=2)
    mean = jnp.maximum(contrast.mean(axis=1, keepdims=True), jnp.finfo(contrast.dtype).tiny)
    weight = (contrast / mean + _LEAST) ** power
    # Sorted exponential waiting times give the order of weighted draws without replacement.
    waits = -jnp.log1p(-_uniform(keys, tokens)) / weight
    order = jnp.argsort(waits, axis=1)
    masked = order[:, visible:]
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    drawn = jnp.argsort(_uniform(others, tokens - visible), axis=1)[:, :decoded]
    return order[:, :visible], jnp.take_along_axis(masked, drawn, axis=1, mode='promise_in_bounds')


def _uniform(keys: Key[Array, ' b'], tokens: int) -> Float[Array, 'b n']:
    return jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(keys)
