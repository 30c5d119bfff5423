"""What can be read from frozen features: retrieval, class labels and generating factors.

Names are those of report/summary.json; see `suite`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffmavil_jax.evaluation import retrieval
from diffmavil_jax.evaluation.held_out import FEATURES
from diffmavil_jax.evaluation.probes import decode_factors, knn

# By name (FEATURES), one row a clip.
Features = Mapping[str, Float[np.ndarray, '_ _']]
Nested = dict[str, Any]

LABEL = 'label'


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of clips: their class labels, or None, and their generating factors by name."""

    labels: Int[np.ndarray, ' n'] | None
    factors: dict[str, np.ndarray]


def read_out(train: Features, train_truth: Truth, test: Features, test_truth: Truth) -> Nested:
    """What a linear probe, nearest neighbours and ridge regressions read from features of held-out clips.

    Args:
        train: features that the probes are fitted on.
        train_truth: what is known of their clips.
        test: features of held-out clips.
        test_truth: what is known of those.
    """
    targets, test_targets = dict(train_truth.factors), dict(test_truth.factors)
    labels, test_labels = train_truth.labels, test_truth.labels
    result: Nested = {}
    if labels is not None and test_labels is not None:
        result['knn'] = {f: {'top1': knn(train[f], labels, test[f], test_labels)} for f in FEATURES}
        targets[LABEL], test_targets[LABEL] = labels, test_labels
    if targets:
        # The class is one more factor here, so that the features are decomposed once for all.
        decoded = {f: decode_factors(train[f], targets, test[f], test_targets) for f in FEATURES}
        if LABEL in targets:
            result['probe'] = {f: {'top1': decoded[f].pop(LABEL)} for f in FEATURES}
        if train_truth.factors:
            result['world'] = {'factors': decoded}
    return result


def retrieve_both_ways(features: Features) -> Nested:
    """Retrieval of pictures by sound (`a2v`), and of sound by pictures (`v2a`)."""
    a2v = retrieval.retrieval(features['audio'], features['video'])
    v2a = retrieval.retrieval(features['video'], features['audio'])
    return {'retrieval': {'a2v': named(a2v), 'v2a': named(v2a)}}


def mean_retrieval(galleries: Sequence[Nested]) -> Nested:
    """The mean of what `retrieve_both_ways` gives for each gallery; of several, `galleries` says how many."""
    if len(galleries) == 1:
        return galleries[0]
    found = [gallery['retrieval'] for gallery in galleries]
    return {
        'retrieval': {
            direction: {name: float(np.mean([f[direction][name] for f in found])) for name in scores}
            | {'galleries': float(len(found))}
            for direction, scores in found[0].items()
        }
    }


def named(result: Mapping[str, float]) -> dict[str, float]:
    """The results of `retrieval.retrieval` under their short names."""
    recalls = {f'r{k}': result[f'recall_at_{k}'] for k in (1, 5, 10)}
    return {**recalls, 'median_rank': result['median_rank'], 'clips': result['num_candidates']}
