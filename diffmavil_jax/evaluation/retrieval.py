"""Cross-modal retrieval: the rank of each clip's own picture, searched by its sound, and the reverse.

Letters: n queries, m targets, d feature width, k matches.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

RECALL_AT = (1, 5, 10)

# Cosines that differ by less than the resolution of float32 are ties. Otherwise the rounding of a matrix
# product would rank the features of a collapsed network.
TIE_TOLERANCE = 1e-7


def retrieval(queries: Float[np.ndarray, 'n d'], targets: Float[np.ndarray, 'n d']) -> dict[str, float]:
    """Recall and median rank of target i for query i, among all n targets.

    Args:
        queries: features of one modality, one row a clip.
        targets: features of the other modality, the same clips in the same order.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10` (shares in [0, 1]), `median_rank`
        (1 is best) and `num_candidates`. Compare them with `chance(n)`: with ten candidates or
        fewer, `recall_at_10` is 1 whatever the features are.

    Raises:
        ValueError: the features are not finite, or their shapes differ.
    """
    return _summary(ranks(queries, targets))


def ranks(queries: Float[np.ndarray, 'n d'], targets: Float[np.ndarray, 'n d']) -> Int[np.ndarray, ' n']:
    """Rank of target i for query i: 1 + the number of other targets that score at least as high.

    So a tie counts against the model: constant features give rank n, not 1.
    """
    if queries.shape != targets.shape:
        raise ValueError(f'queries {queries.shape} and targets {targets.shape} must pair row by row.')
    scores = cosine(queries, targets)
    true = np.diagonal(scores)[:, None]
    # The true target reaches its own score too, which adds the 1.
    return np.sum(scores >= true - TIE_TOLERANCE, axis=1)


def chance(n: int) -> dict[str, float]:
    """The expected result of `retrieval` for features that know nothing: all ranks are equally likely."""
    return _summary(np.arange(1, n + 1))


def cosine(queries: Float[np.ndarray, 'n d'], targets: Float[np.ndarray, 'm d']) -> Float[np.ndarray, 'n m']:
    """Cosine similarities in float64. A row of zeros has similarity 0 to everything."""
    return _unit_rows(queries, 'queries') @ _unit_rows(targets, 'targets').T


def nearest(scores: Float[np.ndarray, 'n m'], k: int) -> Int[np.ndarray, 'n k']:
    """Indices of the k highest scores of each row, best first; ties go to the lower index.

    With fewer than k targets, all m of them are returned.
    """
    coarse = np.round(scores / TIE_TOLERANCE)
    return np.argsort(-coarse, axis=1, kind='stable')[:, :k]


def _summary(rank: Int[np.ndarray, ' n']) -> dict[str, float]:
    if not len(rank):
        raise ValueError('Retrieval needs at least one pair.')
    recalls = {f'recall_at_{k}': float(np.mean(rank <= k)) for k in RECALL_AT}
    return {**recalls, 'median_rank': float(np.median(rank)), 'num_candidates': float(len(rank))}


def _unit_rows(features: Float[np.ndarray, 'n d'], name: str) -> Float[np.ndarray, 'n d']:
    features = np.asarray(features, np.float64)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(f'{name}: {len(bad)} of {len(features)} rows are not finite, first row {bad[0]}.')
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
