"""How the encoders and the fusion of a run are written for use elsewhere."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from diffmavil_jax.atomic import write_json
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop import to_timm, vit
from diffmavil_jax.interop.card import make_card
from diffmavil_jax.saved import weights
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.storage.outputs import OutputDirectory
from diffmavil_jax.storage.paths import open_path
from diffmavil_jax.training.checkpoint import CheckpointStore

_ENCODERS = ('encoder_audio', 'encoder_video')
# Entries of a report's summary that are about the run, not about its network.
_PROCESS = ('name', 'seed', 'macs', 'buckets', 'compilations', 'time', 'refused', 'parameters', 'environment')


def export(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str],
    form: str,
    *,
    licence: str,
    overwrite: bool,
    dtype: str = 'float32',
) -> dict[str, Any]:
    """Writes encoders, pool norms and fusion of a run, an import or another export.

    Args:
        run: its directory.
        output: the directory to write.
        form: `safetensors` or `jax` (an Orbax checkpoint), which a run can start from, or `timm`, which
            has no fusion.
        licence: of the parameters; if empty, that of the run's card, or `not stated`.
        overwrite: whether to move what is in the directory to a sibling; otherwise it must be empty.
        dtype: `float32`, or `bfloat16` for half the size, of the file of `safetensors`.

    Returns:
        The card.

    Raises:
        ConfigError: the run can't be read, or the directory can't be written.
    """
    target = OutputDirectory(output, [run], overwrite)
    target.check()
    network = open_network(run)
    config, samples, old = network.stored, network.samples_seen, network.card
    params, remarks = _without_decoders(network.params, config)
    if form == 'timm':
        params = {name: part for name, part in params.items() if not name.startswith('fusion')}
    facts = _facts(open_path(run), config, samples) if old is None else _kept(old)
    facts['remarks'] = [*facts['remarks'], *remarks]
    licence = licence or (old or {}).get('licence', 'not stated')
    card = make_card(config, params, licence=licence, format=form, **facts)
    root = target.open()
    if form == 'timm':
        card['timm'] = _write_timm(root, params, config)
        weights.write_card(root, card)
        return card
    if form == 'jax':
        store = CheckpointStore(root / 'checkpoints', keep_latest=1, keep_best=0, best_metric=None)
        store.save(samples, {'params': params}, {}, block=True)
        store.close()
        if store.failure():
            raise ConfigError(f'--output={output}: can not be written ({store.failure()}).')
    else:
        weights.write_params(root, params, dtype)
    weights.write_description(root, config, card)
    return card


def _without_decoders(params: Mapping[str, Any], config: Config) -> tuple[dict[str, Any], list[str]]:
    """The parts that are exported, and remarks on norms that the run lacks: those only normalise."""
    parts = {name: params[name] for name in (*_ENCODERS, 'fusion') if name in params}
    remarks = []
    norms = {'encoder_audio': 'audio_pool_norm', 'encoder_video': 'video_pool_norm', 'fusion': 'fusion_norm'}
    for part in list(parts):
        norm = norms[part]
        parts[norm] = params.get(norm) or vit.plain_norm(config.model.vit.width)
        if norm not in params:
            remarks.append(f'{norm} only normalises: the run has none.')
    return parts, remarks


def _facts(run: pathlib.Path, config: Config, samples: int) -> dict[str, Any]:
    """Where a run's parameters are from, and how good they are by its report."""
    scores, remarks = _scores(run, config, samples)
    data = config.data
    return {
        'name': config.name,
        'objective': config.objective,
        'init': config.init,
        'training_data': {
            'source': data.source,
            'path': data.folder,
            'splits': ','.join(data.train_split) if data.source == 'tfds' else '',
        },
        'samples_seen': samples,
        'scores': scores,
        'remarks': remarks,
    }


def _kept(card: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an import or an export that its export keeps."""
    names = ('name', 'objective', 'init', 'source', 'training_data', 'samples_seen', 'scores', 'remarks')
    return {name: card[name] for name in names if name in card}


def _scores(run: pathlib.Path, config: Config, samples: int) -> tuple[dict[str, Any], list[str]]:
    """The scores in the run's report, or a remark on why they are not of these parameters."""
    try:
        summary = json.loads((run / 'report' / 'summary.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}, ['No scores: the run has no report.']
    if summary['clips_seen'] != samples:
        return {}, [f'No scores: the report is of another checkpoint, at {summary["clips_seen"]} clips.']
    if config.objective == 'classification' and config.finetune.select == 'best':
        return {}, [
            'No scores: the report is of the best checkpoint (finetune.select=best), not of the last.'
        ]
    return {name: value for name, value in summary.items() if name not in _PROCESS}, []


def _write_timm(root: pathlib.Path, params: Mapping[str, Any], config: Config) -> dict[str, str]:
    """Writes a state dict and the arguments of its model for each encoder; returns their inputs in words."""
    modalities = [m for m in ('audio', 'video') if f'encoder_{m}' in params]
    for modality in modalities:
        state = to_timm.timm_state(params, config, modality)
        weights.write_arrays(root / f'{modality}.safetensors', state)
        arguments = to_timm.timm_arguments(config, modality)
        write_json(root / f'{modality}.json', arguments)
    return {modality: to_timm.INPUT[modality] for modality in modalities}
