"""The reconstruction loss, and the normalisation of its targets."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def normalize_patches(patches: Float[Array, 'b n p']) -> Float[Array, 'b n p']:
    """Each patch to mean 0 and variance 1 (MAE; unbiased variance plus 1e-6)."""
    mean, scale = _moments(patches)
    return (patches - mean) / scale


def denormalize_patches(
    normalized: Float[Array, 'b n p'], patches: Float[Array, 'b n p']
) -> Float[Array, 'b n p']:
    """The inverse of `normalize_patches`, with the mean and scale of `patches`."""
    mean, scale = _moments(patches)
    return normalized * scale + mean


def squared_error(prediction: Float[Array, 'b m p'], target: Float[Array, 'b m p']) -> Float[Array, ' b']:
    """Mean squared error of each clip over its decoded patches."""
    return jnp.square(prediction - target).mean(axis=(1, 2))


def _moments(patches: Float[Array, 'b n p']) -> tuple[Float[Array, 'b n 1'], Float[Array, 'b n 1']]:
    mean = patches.mean(axis=-1, keepdims=True)
    return mean, jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
