"""Masks of a static size: uniformly random (MAE: He et al. 2022), or by contrast."""

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
    *,
    channels: int = 1,
) -> tuple[Int[Array, 'b k'], Int[Array, 'b m']]:
    """Like `random_masks`, but a token is more likely to be visible the more its patch varies.

    Visible tokens are drawn one after the other, without replacement, with a probability in proportion
    to their weight (Efraimidis and Spirakis 2006): (s / mean(s) + 0.1)^power, where s is the `contrast` of a
    patch. All masked tokens are equally likely to be decoded.

    Args:
        keys: one for each clip.
        patches: clean patches.
        power: 0 draws uniformly.
        visible: k.
        decoded: m, at most n - k.
        channels: of the pixels, see `contrast`.
    """
    tokens = patches.shape[1]
    score = contrast(patches, channels)
    mean = jnp.maximum(score.mean(axis=1, keepdims=True), jnp.finfo(score.dtype).tiny)
    weight = (score / mean + _LEAST) ** power
    # Sorted exponential waiting times give the order of weighted draws without replacement.
    waits = -jnp.log1p(-_uniform(keys, tokens)) / weight
    order = jnp.argsort(waits, axis=1)
    masked = order[:, visible:]
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    drawn = jnp.argsort(_uniform(others, tokens - visible), axis=1)[:, :decoded]
    return order[:, :visible], jnp.take_along_axis(masked, drawn, axis=1, mode='promise_in_bounds')


def contrast(patches: Float[Array, 'b n p'], channels: int) -> Float[Array, 'b n']:
    """The standard deviation of each patch within its channels: the root of the mean of their variances.

    The variance of a channel is taken over the pixels, so that a patch of one colour has no contrast.

    Args:
        patches: values in the order (pixel, channel).
        channels: 3 for pictures, 1 for sound, whose pixels are the bins of a spectrogram.
    """
    pixels = patches.reshape(*patches.shape[:2], -1, channels)
    return jnp.sqrt(pixels.var(axis=2).mean(axis=2))


def _uniform(keys: Key[Array, ' b'], tokens: int) -> Float[Array, 'b n']:
    return jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(keys)
