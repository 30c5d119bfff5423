"""How well a finished run finds sounds by pictures, and pictures by sounds, in a prepared dataset."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import labels
from diffmavil_jax.data.clip import ClipSpec, Sources, require_modalities
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource
from diffmavil_jax.evaluation import retrieval
from diffmavil_jax.evaluation.suite import make_suite
from diffmavil_jax.objectives.pretraining import PretrainingObjective
from diffmavil_jax.saved.network import open_network


def retrieve(
    run: str | os.PathLike[str], data: str, split: str, *, clips_per_class: int, seed: int = 0
) -> dict[str, Any]:
    """Measures cross-modal retrieval among some clips of each class (CAV-MAE).

    Uni-modal features are mean-pooled and compared by their cosine; a tie counts as a miss.

    Args:
        run: workdir of a pretraining run.
        data: directory of a prepared dataset.
        split: of the dataset.
        clips_per_class: how many are drawn at random; 0 takes all clips, which then need no classes.
        seed: of the draw.

    Returns:
        `a2v` and `v2a` (see `retrieval.retrieval`), the same for `chance`, and `remarks`.

    Raises:
        ConfigError, DataError: the run, the dataset or the split can't be used.
    """
    network = open_network(run)
    config, missing = network.config, network.lacking(('encoder_audio', 'encoder_video'))
    if config.objective == 'classification':
        raise ConfigError(f'--run={os.fspath(run)}: must be a pretraining run; this one is a classifier.')
    if missing:
        raise ConfigError(
            f'--run={os.fspath(run)}: must have both encoders; it has no {" and ".join(missing)}.'
        )
    wanted = config.data
    spec = ClipSpec.of(wanted)
    dataset = open_prepared(data)
    remarks = dataset.remarks(spec)
    length = sum(file.take for file in dataset.files([split]))
    source = PreparedSource(dataset, [split], spec, Ledger(dataset.path, length, wanted.max_bad_fraction))
    require_modalities([source], MODALITIES, 'Retrieval')
    chosen = list(range(length))
    if clips_per_class:
        sets = labels.label_sets(source)
        labels.check_labels(source, sets, least=0)
        chosen = labels.few_of_each_class(sets, clips_per_class, seed)
    suite = make_suite(config, PretrainingObjective(config), Sources(source, source))
    features = suite.features(network.params, chosen)
    for modality in MODALITIES:
        bad = int((~np.isfinite(features[modality]).all(axis=1)).sum())
        if bad:
            raise ConfigError(
                f'--run={os.fspath(run)}: the {modality} features of {bad:,} of {len(chosen):,} clips are '
                f'not finite: its parameters may be too large.'
            )
    return {
        'a2v': retrieval.retrieval(features['audio'], features['video']),
        'v2a': retrieval.retrieval(features['video'], features['audio']),
        'chance': retrieval.chance(len(chosen)),
        'remarks': remarks,
    }
