"""InfoNCE over the global batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def info_nce(
    left: Float[Array, 'b d'],
    right: Float[Array, 'b d'],
    temperature: float,
    present: Float[Array, ' b'] | None = None,
) -> tuple[Float[Array, ' b'], Bool[Array, ' b']]:
    """Symmetric InfoNCE of pairs (left i, right i) against all others of the batch.

    L2-normalised cosine similarities over a temperature; the mean of both directions
    (MAViL; van den Oord et al. 2018). The arrays are global: under jit on a
    mesh the negatives come from every device.

    Args:
        left: features of one kind.
        right: features of the other kind, in the same order.
        temperature: of the similarities.
        present: 1 for complete pairs; the others are no negatives, and their loss is 0.

    Returns:
        The loss of each pair, and whether left i scores right i above all others.
    """
    left, right = _normalize(left), _normalize(right)
    # A division by 0.1 shows what TPUs and newer GPUs round away unless they are told not to.
    logits = jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST) / temperature
    own = jnp.eye(len(left), dtype=bool)
    # CPU: not jnp.diagonal. Over several devices its gradient gathers inside a conditional, and XLA's CPU
    # runtime may start that and another collective in a different order in each process.
    diagonal = jnp.where(own, logits, 0.0).sum(axis=1)
    if present is not None:
        logits = jnp.where((present[:, None] * present > 0) | own, logits, -jnp.inf)
    loss = (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) / 2 - diagonal
    others = jnp.where(own, -jnp.inf, logits)
    return loss, diagonal > others.max(axis=1)


def _normalize(features: Float[Array, 'b d']) -> Float[Array, 'b d']:
    return features * jax.lax.rsqrt(jnp.square(features).sum(axis=-1, keepdims=True) + 1e-12)
