"""A classifier's predictions for all clips of a source, and its scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffmavil_jax.data.clip import ClipSource
from diffmavil_jax.evaluation import metrics
from diffmavil_jax.evaluation.held_out import Batch, extract

Predict = Callable[[Any, Batch], Any]


@dataclasses.dataclass(frozen=True)
class Answers:
    """The predictions of a classifier, and the truth."""

    probabilities: Float[np.ndarray, 'n c']
    targets: Float[np.ndarray, 'n c']
    multi_label: bool

    @property
    def labels(self) -> Int[np.ndarray, ' n']:
        """The class of each clip, if every clip has one."""
        return self.targets.argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """The scores by name; see `metrics`."""
        return self._metric(self.probabilities, self.targets)

    def intervals(self) -> dict[str, metrics.Interval]:
        """The scores with 95 % jackknife intervals over the clips."""
        return metrics.jackknife(self._metric, self.probabilities, self.targets)

    def by_class(self) -> Float[np.ndarray, ' c']:
        """The average precision of each class or, with one class a clip, its recall."""
        score = metrics.average_precision if self.multi_label else metrics.recall
        return score(self.probabilities, self.targets)

    @property
    def _metric(self) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
        return metrics.multi_label_scores if self.multi_label else metrics.single_label_scores


class ClassifierSuite:
    """Runs a classifier on whole clips, one crop of each."""

    def __init__(self, predict: Predict, source: ClipSource, *, batch_size: int, threads: int) -> None:
        """Keeps the classifier and the clips.

        Args:
            predict: gives the probabilities [b c] of a batch, for some parameters.
            source: clips with a `target`.
            batch_size: number of clips in a batch.
            threads: number of threads that read clips.
        """
        self._predict, self.source = predict, source
        self._options = {'batch_size': batch_size, 'threads': threads}

    def __call__(self, params: Any) -> Mapping[str, float]:
        return self.answers(params).scores()

    def answers(self, params: Any) -> Answers:
        """The predictions for all clips of the source."""
        functions = {'all': lambda batch: self._predictions(params, batch)}
        rows = extract(functions, self.source, range(len(self.source)), **self._options)['all']
        return Answers(rows['probabilities'], rows['targets'], self.source.multi_label)

    def _predictions(self, params: Any, batch: Batch) -> dict[str, Any]:
        inputs = {name: array for name, array in batch.items() if name != 'target'}
        return {'probabilities': self._predict(params, inputs), 'targets': batch['target']}
