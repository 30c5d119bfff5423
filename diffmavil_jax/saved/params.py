"""The parameters that a run, an import or an export has on disk."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved import weights
from diffmavil_jax.saved.inherit import read_card

# What an import or an export may have or not.
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
    """The newest parameters of a run, their average if it kept one, and the samples it had seen.

    Those of an import or an export likewise. Arrays are read to the host; nothing of the run is changed.

    Raises:
        ConfigError: the run has no checkpoint that can be read.
    """
    check_params(run)
    root = pathlib.Path(run).expanduser().absolute()
    if (root / weights.FILE).exists():
        return weights.read_params(root), (read_card(root) or {}).get('samples_seen', 0)
    reasons = []
    for samples in _checkpoints(root):
        try:
            return _read(root / 'checkpoints' / str(samples) / 'state'), samples
        except Exception as error:  # a broken file raises whatever its parser raises
            reasons.append(f'{samples} ({type(error).__name__}: {str(error).splitlines()[0][:200]})')
    raise ConfigError(
        f'{os.fspath(run)!r}: must be a run with parameters; none of its checkpoints can be read: '
        f'{"; ".join(reasons)}.'
    )


def check_params(run: str | os.PathLike[str]) -> None:
    """Raises ConfigError where a directory has no parameters; whether they can be read is not looked at."""
    root = pathlib.Path(run).expanduser().absolute()
    if not (root / weights.FILE).exists() and not _checkpoints(root):
        raise ConfigError(f'{os.fspath(run)!r}: must be a run with parameters; it has no checkpoint.')


def _checkpoints(root: pathlib.Path) -> list[int]:
    """Samples seen of each, the newest first."""
    return sorted((int(p.name) for p in (root / 'checkpoints').glob('*') if p.name.isdigit()), reverse=True)


def missing_parts(run: str | os.PathLike[str]) -> tuple[str, ...]:
    """Parts of a network that an import or export does not have.

    A run has all that it needs, so that none are missing from it, nor from what is not there: ''.
    """
    card = read_card(run) if run else None
    return () if card is None else tuple(part for part in PARTS if part not in card['parts'])


def _read(path: pathlib.Path) -> dict[str, Any]:
    # Not a Checkpointer, which warns that what CheckpointStore writes has no metadata of its own.
    handler = ocp.PyTreeCheckpointHandler()
    saved = handler.metadata(epath.Path(path)).tree
    name = 'average' if saved.get('average') else 'params'
    wanted = {name: jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved[name])}
    args = ocp.args.PyTreeRestore(item={name: saved[name]}, restore_args=wanted, partial_restore=True)
    return handler.restore(epath.Path(path), args=args)[name]
