"""Random masks of a static size (MAE: He et al. 2022, section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key


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
    scores = jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(keys)
    order = jnp.argsort(scores, axis=1)
    return order[:, :visible], order[:, visible : visible + decoded]
