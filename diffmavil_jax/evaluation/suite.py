"""The evaluations of a pretraining run: a quick one inside the loop, and a full one at its end.

Names are those of report/summary.json: `retrieval.{a2v,v2a}.{r1,r5,r10,median_rank}`,
`reconstruction.{audio,video}.{low,high}`, `{probe,knn}.{audio,video,fused}.top1`,
`world.factors.{audio,video,fused}.NAME`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import NO_LABEL, ClipSource, Sources
from diffmavil_jax.evaluation import retrieval
from diffmavil_jax.evaluation.baselines import PcaBaseline, logmel_statistics
from diffmavil_jax.evaluation.held_out import FEATURES, Batch, Network, band_energies, extract, spread
from diffmavil_jax.evaluation.probes import RidgeProbe, decode_factors, knn
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.plan.buckets import counts_at

Features = Mapping[str, Float[np.ndarray, 'n d']]
Nested = dict[str, Any]

_MIN_PROBE_CLIPS = 2
_LABEL = 'label'


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of clips: class labels, or None, and generating factors by name."""

    labels: Int[np.ndarray, ' n'] | None
    factors: dict[str, np.ndarray]


class Suite:
    """Evaluates parameters of one network on fixed clips of a training and a held-out source."""

    def __init__(self, network: Network, train: ClipSource, held_out: ClipSource) -> None:
        config = network.config
        self.network, self._train, self._held_out = network, train, held_out
        self._options = {'batch_size': config.evaluation.batch_size, 'threads': config.data.threads}
        self.retrieval_clips = spread(len(held_out), config.evaluation.retrieval_clips)
        self._reconstruction_clips = spread(len(held_out), config.evaluation.reconstruction_clips)
        self._probe_train = spread(len(train), config.evaluation.probe_train_clips)
        self._probe_eval = spread(len(held_out), config.evaluation.probe_eval_clips)

    def __call__(self, params: Any) -> dict[str, float]:
        """Retrieval and reconstruction, flat names: `retrieval/a2v/r10`, `reconstruction/audio/high`."""
        return flatten(self.retrieval(params) | self.reconstruction(params))

    def features(self, params: Any, indices: Sequence[int]) -> dict[str, Float[np.ndarray, 'n d']]:
        """Features of held-out clips."""
        return self._extract({'only': self._features(params)}, self._held_out, indices)['only']

    def retrieval(self, params: Any) -> Nested:
        """Which sound belongs to which picture, among held-out clips, by uni-modal features."""
        return _retrieval(self.features(params, self.retrieval_clips))

    def reconstruction(self, params: Any) -> Nested:
        """Error energy over target energy of masked patches, by frequency; the mean predictor has 1.

        Nothing of a network that predicts no patches.
        """
        if not self.network.predicts_patches:
            return {}
        energies = band_energies(
            self.network, params, self._held_out, self._reconstruction_clips, **self._options
        )
        return {'reconstruction': {modality: e.relative_error() for modality, e in energies.items()}}

    def full(self, trained: Any, untrained: Any) -> Nested:
        """Everything for the trained network, and the same under `untrained` and `raw`, and `chance`."""
        results = self._measured({'trained': trained, 'untrained': untrained}, raw=True)
        chance = _named(retrieval.chance(len(self.retrieval_clips)))
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
        """By name of the network; `raw` as well, where it is asked for and there are clips to fit on."""
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
            results[name] |= _decode(train[name], train_truth, test[name], test_truth)
        if raw:
            results['raw'] = self._raw(train['raw'], train_truth, test['raw'], test_truth)
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

    def _raw(
        self,
        train: Mapping[str, np.ndarray],
        train_truth: Truth,
        test: Mapping[str, np.ndarray],
        test_truth: Truth,
    ) -> Nested:
        """The best of two descriptions without learning, for each number; both are listed as well.

        `pca`: principal components of pixels and of log-mel. `statistics`: mean and standard
        deviation of log-mel over time, with the components of pixels. Retrieval goes through
        a linear map between the components of sound and picture, fitted on training clips.
        """
        pca = {name: PcaBaseline.fit(train[name]) for name in ('audio', 'video')}
        descriptions = {}
        for part, inputs in (('train', train), ('test', test)):
            video = pca['video'].transform(inputs['video'])
            for kind, audio in (
                ('pca', pca['audio'].transform(inputs['audio'])),
                ('statistics', logmel_statistics(inputs['audio'])),
            ):
                fused = np.concatenate([audio, video], axis=1)
                descriptions[kind, part] = {'audio': audio, 'video': video, 'fused': fused}
        kinds = {
            kind: _decode(descriptions[kind, 'train'], train_truth, descriptions[kind, 'test'], test_truth)
            for kind in ('pca', 'statistics')
        }
        count = len(self.retrieval_clips)
        mapped = _linear_retrieval(descriptions['pca', 'train'], descriptions['pca', 'test'], count)
        return mapped | _best(kinds['pca'], kinds['statistics']) | kinds

    def _truth(self, source: ClipSource, indices: Sequence[int]) -> Truth:
        rows = [source.factors(i) for i in indices]
        factors = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        labels = factors.pop(_LABEL, None)
        if labels is not None and (labels == NO_LABEL).any():
            labels = None
        return Truth(labels, factors)


def flatten(nested: Mapping[str, Any], prefix: str = '') -> dict[str, float]:
    """Nested names joined by slashes."""
    flat: dict[str, float] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f'{prefix}{name}/')
        else:
            flat[prefix + name] = float(value)
    return flat


def _decode(train: Features, train_truth: Truth, test: Features, test_truth: Truth) -> Nested:
    """What a linear probe, kNN and ridge regressions read from frozen features."""
    targets, test_targets = dict(train_truth.factors), dict(test_truth.factors)
    labels, test_labels = train_truth.labels, test_truth.labels
    result: Nested = {}
    if labels is not None and test_labels is not None:
        result['knn'] = {f: {'top1': knn(train[f], labels, test[f], test_labels)} for f in FEATURES}
        targets[_LABEL], test_targets[_LABEL] = labels, test_labels
    if targets:
        # The class is one more factor here: the features are decomposed once for all of them.
        decoded = {f: decode_factors(train[f], targets, test[f], test_targets) for f in FEATURES}
        if _LABEL in targets:
            result['probe'] = {f: {'top1': decoded[f].pop(_LABEL)} for f in FEATURES}
        if train_truth.factors:
            result['world'] = {'factors': decoded}
    return result


def _retrieval(features: Features) -> Nested:
    a2v = retrieval.retrieval(features['audio'], features['video'])
    v2a = retrieval.retrieval(features['video'], features['audio'])
    return {'retrieval': {'a2v': _named(a2v), 'v2a': _named(v2a)}}


def _named(result: Mapping[str, float]) -> dict[str, float]:
    recalls = {f'r{k}': result[f'recall_at_{k}'] for k in (1, 5, 10)}
    return {**recalls, 'median_rank': result['median_rank'], 'clips': result['num_candidates']}


def _linear_retrieval(train: Features, test: Features, count: int) -> Nested:
    chosen = spread(len(test['audio']), count)

    def mapped(source: str, target: str) -> dict[str, float]:
        guess = RidgeProbe(train[source]).predict(train[target], test[source][chosen])
        centre = train[target].mean(axis=0)
        return _named(retrieval.retrieval(guess - centre, test[target][chosen] - centre))

    return {'retrieval': {'a2v': mapped('audio', 'video'), 'v2a': mapped('video', 'audio')}}


def _best(a: Nested, b: Nested) -> Nested:
    """The higher of two numbers under each name."""
    return {
        name: _best(a[name], b[name]) if isinstance(a[name], Mapping) else np.fmax(a[name], b[name])
        for name in a
    }


def make_suite(config: Config, objective: PretrainingObjective, sources: Sources) -> Suite:
    """The evaluations, at the evaluation's own mask ratio."""
    counts = counts_at(config, config.evaluation.mask_ratio)
    network = Network(config, objective, {name: TokenCounts(*pair) for name, pair in counts.items()})
    return Suite(network, sources.train, sources.held_out)
