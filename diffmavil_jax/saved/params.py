"""How the parameters of a run, an import or an export are read from disk."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved import weights
from diffmavil_jax.saved.inherit import read_card
from diffmavil_jax.storage.buckets import is_away
from diffmavil_jax.storage.paths import is_remote, open_path

# The parts of a pretraining network; an import or an export may lack some.
PARTS = (
    'encoder_audio',
    'encoder_video',
    'audio_pool_norm',
    'video_pool_norm',
    'fusion',
    'fusion_norm',
    'decoder_audio',
    'decoder_video',
)


def load_params(run: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """The newest parameters of a run, an import or an export, and the samples that they were trained on.

    If a run kept an exponential moving average (EMA) of its parameters, the EMA is returned instead. Arrays
    are read to the host; nothing in the directory is changed. A checkpoint that is damaged is named in a
    warning, and the one before it is read.

    Raises:
        ConfigError: no checkpoint can be read, a bucket does not answer, or a parameter has a value that is
            not finite.
    """
    params, samples = _newest(run)
    check_finite(traverse_util.flatten_dict(params, sep='/'), os.fspath(run))
    return params, samples


def check_finite(arrays: Mapping[str, np.ndarray], path: str) -> None:
    """Raises ConfigError if an array has a value that is not finite; names the first such array.

    Args:
        arrays: of floats, by name.
        path: where they are from.
    """
    for name, array in arrays.items():
        # Both extremes of an array are NaN if one of its values is; an array of truth values is not needed.
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            bad = int((~np.isfinite(array)).sum())
            raise ConfigError(
                f'{path}: {bad:,} of the {array.size:,} values of {name} are not finite (NaN or infinite), '
                f'and so would be every feature; take another copy or an earlier checkpoint.'
            )


def _newest(run: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """The newest parameters that can be read, and their samples."""
    check_params(run)
    root = open_path(run)
    if (root / weights.FILE).exists():
        return weights.read_params(root), (read_card(root) or {}).get('samples_seen', 0)
    reasons = []
    for samples in _checkpoints(root):
        try:
            params = _read(root / 'checkpoints' / str(samples) / 'state')
        except Exception as error:  # a broken file raises whatever its parser raises
            first_line = str(error).strip().partition('\n')[0]
            reason = f'{type(error).__name__}: {first_line[:200]}'
            if is_remote(root) and is_away(error):
                raise ConfigError(
                    f'{os.fspath(run)}: its newest checkpoint can not be reached ({reason}); the same '
                    f'command tries again.'
                ) from error
            reasons.append(f'{samples} ({reason})')
            continue
        if reasons:
            logging.warning(
                '%s: the checkpoint at clip %d is used, since newer ones can not be read: %s',
                os.fspath(run),
                samples,
                '; '.join(reasons),
            )
        return params, samples
    raise ConfigError(
        f'{os.fspath(run)!r}: must be a run with parameters; none of its checkpoints can be read: '
        f'{"; ".join(reasons)}.'
    )


def check_params(run: str | os.PathLike[str]) -> None:
    """Raises ConfigError if a directory has no parameters; does not check that they can be read."""
    root = open_path(run)
    if not (root / weights.FILE).exists() and not _checkpoints(root):
        raise ConfigError(f'{os.fspath(run)!r}: must be a run with parameters; it has no checkpoint.')


def _checkpoints(root: pathlib.Path) -> list[int]:
    """The samples seen at each checkpoint, the newest first."""
    found = [path for path in (root / 'checkpoints').glob('*') if path.name.isdigit()]
    if is_remote(root):  # there, what a killed run was writing has its name already
        found = [path for path in found if ocp.utils.is_checkpoint_finalized(epath.Path(path))]
    return sorted((int(path.name) for path in found), reverse=True)


def missing_parts(run: str | os.PathLike[str]) -> tuple[str, ...]:
    """The parts of a network that an import or an export lacks.

    None are missing from a run, which has all the parts that it needs, nor where `run` is empty.
    """
    card = read_card(run) if run else None
    return () if card is None else tuple(part for part in PARTS if part not in card['parts'])


def _read(path: pathlib.Path) -> dict[str, Any]:
    # A Checkpointer would warn that what CheckpointStore writes has no metadata of its own.
    handler = ocp.PyTreeCheckpointHandler()
    saved = handler.metadata(epath.Path(path)).tree
    name = 'average' if saved.get('average') else 'params'
    wanted = {name: jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved[name])}
    args = ocp.args.PyTreeRestore(item={name: saved[name]}, restore_args=wanted, partial_restore=True)
    return handler.restore(epath.Path(path), args=args)[name]
