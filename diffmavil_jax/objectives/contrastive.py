"""Contrastive losses over the global batch: InfoNCE, and the sigmoid loss of SigLIP."""

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
    logits = _similarities(left, right, temperature)
    own = jnp.eye(len(left), dtype=bool)
    # CPU: not jnp.diagonal. Over several devices its gradient gathers inside a conditional, and XLA's CPU
    # runtime may start that and another collective in a different order in each process.
    diagonal = jnp.where(own, logits, 0.0).sum(axis=1)
    if present is not None:
        logits = jnp.where((present[:, None] * present > 0) | own, logits, -jnp.inf)
    loss = (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) / 2 - diagonal
    others = jnp.where(own, -jnp.inf, logits)
    return loss, diagonal > others.max(axis=1)


def sigmoid(
    left: Float[Array, 'b d'],
    right: Float[Array, 'b d'],
    temperature: float,
    bias: float,
    present: Float[Array, ' b'] | None = None,
) -> tuple[Float[Array, ' b'], Bool[Array, ' b']]:
    """The sigmoid loss (SigLIP: Zhai et al. 2023): each of the b^2 combinations is a pair or is not.

    SigLIP learns temperature and bias; here both are fixed. A clip's loss is the mean of its row and its
    column, so that the mean over the clips is SigLIP's loss.

    Args:
        left: features of one kind.
        right: features of the other kind, in the same order.
        temperature: of the cosine similarities.
        bias: added to the similarity over the temperature; negative, since most combinations are no pairs.
        present: 1 for complete pairs; the others are no negatives, and their loss is 0.

    Returns:
        See `info_nce`.
    """
    logits = _similarities(left, right, temperature) + bias
    own = jnp.eye(len(left), dtype=bool)
    costs = jax.nn.softplus(jnp.where(own, -logits, logits))
    there = jnp.ones_like(own) if present is None else present[:, None] * present > 0
    costs = jnp.where(there, costs, 0.0)
    # CPU: not jnp.diagonal, see `info_nce`.
    diagonal = jnp.where(own, logits, 0.0).sum(axis=1)
    others = jnp.where(own | ~there, -jnp.inf, logits)
    return (costs.sum(axis=0) + costs.sum(axis=1)) / 2, diagonal > others.max(axis=1)


def _similarities(
    left: Float[Array, 'b d'], right: Float[Array, 'b d'], temperature: float
) -> Float[Array, 'b b']:
    left, right = _normalize(left), _normalize(right)
    # A division by 0.1 shows what TPUs and newer GPUs round away unless they are told not to.
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST) / temperature


def _normalize(features: Float[Array, 'b d']) -> Float[Array, 'b d']:
    return features * jax.lax.rsqrt(jnp.square(features).sum(axis=-1, keepdims=True) + 1e-12)
