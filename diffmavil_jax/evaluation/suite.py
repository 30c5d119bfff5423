"""The evaluations of a pretraining run: a quick one inside the loop, and a full one at its end.

Names are those of report/summary.json: `retrieval.{a2v,v2a}.{r1,r5,r10,median_rank}`,
`reconstruction.{audio,video}.{low,high}`, `{probe,knn}.{audio,video,fused}.top1`,
`world.factors.{audio,video,fused}.NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import NO_LABEL, ClipSource, Sources
from diffmavil_jax.evaluation import retrieval
from diffmavil_jax.evaluation.baselines import raw_scores
from diffmavil_jax.evaluation.held_out import Batch, Network, band_energies, extract, spread
from diffmavil_jax.evaluation.readout import (
    LABEL,
    Nested,
    Truth,
    mean_retrieval,
    named,
    read_out,
    retrieve_both_ways,
)
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.plan.buckets import counts_at

_MIN_PROBE_CLIPS = 2


class Suite:
    """Evaluates parameters of one network on fixed clips of a training and a held-out source."""

    def __init__(self, network: Network, train: ClipSource, held_out: ClipSource) -> None:
        """Chooses the clips.

        Args:
            network: the compiled functions.
            train: clips that probes are fitted on.
            held_out: clips that everything is measured on.
        """
        config = network.config
        self.network, self._train, self._held_out = network, train, held_out
        self._options = {'batch_size': config.evaluation.batch_size, 'threads': config.data.threads}
        self._galleries = galleries_of(
            len(held_out), config.evaluation.retrieval_clips, config.evaluation.retrieval_galleries
        )
        self.retrieval_clips = self._galleries[0]
        self._reconstruction_clips = spread(len(held_out), config.evaluation.reconstruction_clips)
        self._probe_train = spread(len(train), config.evaluation.probe_train_clips)
        self._probe_eval = spread(len(held_out), config.evaluation.probe_eval_clips)

    def __call__(self, params: Any) -> dict[str, float]:
        """Retrieval and reconstruction under flat names: `retrieval/a2v/r10`, `reconstruction/audio/high`."""
        return flatten(self.retrieval(params) | self.reconstruction(params))

    def features(self, params: Any, indices: Sequence[int]) -> dict[str, Float[np.ndarray, 'n _']]:
        """Features of held-out clips."""
        return self._extract({'only': self._features(params)}, self._held_out, indices)['only']

    def retrieval(self, params: Any) -> Nested:
        """Which sound belongs to which picture, among the held-out clips of a gallery, by uni-modal features.

        See `mean_retrieval`, if there are several galleries.
        """
        return mean_retrieval(
            [retrieve_both_ways(self.features(params, gallery)) for gallery in self._galleries]
        )

    def reconstruction(self, params: Any) -> Nested:
        """Error energy over target energy of masked patches, by frequency; the mean predictor has 1.

        Empty for a network that predicts no patches.
        """
        if not self.network.predicts_patches:
            return {}
        energies = band_energies(
            self.network, params, self._held_out, self._reconstruction_clips, **self._options
        )
        return {'reconstruction': {modality: e.relative_error() for modality, e in energies.items()}}

    def full(self, trained: Any, untrained: Any) -> Nested:
        """Everything for the trained network, and to compare with it `untrained`, `raw` and `chance`."""
        results = self._measured({'trained': trained, 'untrained': untrained}, raw=True)
        chance = named(retrieval.chance(len(self.retrieval_clips)))
        return {
            **results['trained'],
            'untrained': results['untrained'],
            'raw': results.get('raw', {}),
            'chance': {'retrieval': {'a2v': chance, 'v2a': chance}},
        }

    def measured(self, params: Any) -> Nested:
        """Everything for one network alone."""
        return self._measured({'only': params}, raw=False)['only']

    def _measured(self, networks: Mapping[str, Any], *, raw: bool) -> dict[str, Nested]:
        """Everything by the name of the network, and `raw` where there are clips to fit its probes on."""
        results: dict[str, Nested] = {
            name: self.retrieval(params) | self.reconstruction(params) for name, params in networks.items()
        }
        if min(len(self._probe_train), len(self._probe_eval)) < _MIN_PROBE_CLIPS:
            return results
        looks = {name: self._features(params) for name, params in networks.items()}
        if raw:
            looks['raw'] = self.network.raw
        train = self._extract(looks, self._train, self._probe_train)
        test = self._extract(looks, self._held_out, self._probe_eval)
        train_truth = self._truth(self._train, self._probe_train)
        test_truth = self._truth(self._held_out, self._probe_eval)
        for name in networks:
            results[name] |= read_out(train[name], train_truth, test[name], test_truth)
        if raw:
            count = len(self.retrieval_clips)
            results['raw'] = raw_scores(train['raw'], train_truth, test['raw'], test_truth, count)
        return results

    def _features(self, params: Any) -> Callable[[Batch], dict[str, Any]]:
        return lambda batch: self.network.features(params, batch)

    def _extract(
        self,
        functions: Mapping[str, Callable[[Batch], Mapping[str, Any]]],
        source: ClipSource,
        indices: Sequence[int],
    ) -> dict[str, dict[str, np.ndarray]]:
        return extract(functions, source, indices, **self._options)

    def _truth(self, source: ClipSource, indices: Sequence[int]) -> Truth:
        rows = [source.factors(i) for i in indices]
        factors = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        labels = factors.pop(LABEL, None)
        if labels is not None and (labels == NO_LABEL).any():
            labels = None
        return Truth(labels, factors)


def galleries_of(held_out: int, clips: int, galleries: int) -> list[Sequence[int]]:
    """The clips of each gallery, spread evenly; fewer galleries where the held-out clips do not suffice."""
    galleries = max(1, min(galleries, held_out // clips))
    chosen = spread(held_out, galleries * clips)
    return [chosen[first::galleries] for first in range(galleries)]


def flatten(nested: Mapping[str, Any], prefix: str = '') -> dict[str, float]:
    """Turns nested names into flat ones, joined by slashes."""
    flat: dict[str, float] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f'{prefix}{name}/')
        else:
            flat[prefix + name] = float(value)
    return flat


def make_suite(config: Config, objective: PretrainingObjective, sources: Sources) -> Suite:
    """The evaluations of a run, at the mask ratio of config.evaluation."""
    counts = counts_at(config, config.evaluation.mask_ratio)
    network = Network(config, objective, {name: TokenCounts(*pair) for name, pair in counts.items()})
    return Suite(network, sources.train, sources.held_out)
