"""Parameters of a run, an import or an export, as the start of a run."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.positions import fit_table, trimmed
from diffmavil_jax.saved import weights
from diffmavil_jax.saved.inherit import check_inherited, read_card, read_config
from diffmavil_jax.training.state import TrainState

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


def load_for(config: Config, modalities: Collection[str]) -> dict[str, Any]:
    """The parameters that a config starts from, with stored positions for its own clips.

    Args:
        config: the run that starts.
        modalities: that it has encoders of; see `check_start`.

    Raises:
        ConfigError: they can't be read.
    """
    params = load_params(config.loaded)[0]
    interpolate = config.finetune.positions == 'interpolate'
    for part, (old, new) in _grids(config, modalities).items():
        table = fit_table(params[part]['positions'], old, new, interpolate=interpolate)
        params[part] = params[part] | {'positions': table}
    return params


def check_start(config: Config, modalities: Collection[str]) -> None:
    """Raises ConfigError where a config can't start from its `init`; the parameters are not read yet."""
    if config.init:
        check_inherited(to_dict(config), read_config(config.init), config.init)
    if config.loaded:
        check_params(config.loaded)
    _check_positions(config, modalities)


def _check_positions(config: Config, modalities: Collection[str]) -> None:
    """Stored positions have to fit, or may be interpolated."""
    if config.finetune.positions == 'interpolate':
        return
    for part, (old, new) in _grids(config, modalities).items():
        try:
            trimmed(old, new)
        except ValueError as error:
            raise ConfigError(
                f'config.init = {config.init!r}: the stored positions of {part}: {error}; '
                f'config.finetune.positions=interpolate makes them fit.'
            ) from None


def _grids(config: Config, modalities: Collection[str]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The grid that stored positions are for and the one that the config needs, of each encoder there is."""
    if config.model.positions != 'stored' or not config.loaded:
        return {}
    run, missing = from_dict(read_config(config.loaded)), missing_parts(config.loaded)
    present = (m for m in modalities if f'encoder_{m}' not in missing)
    return {f'encoder_{m}': (run.grids[m], config.grids[m]) for m in present}


def missing_parts(run: str | os.PathLike[str]) -> tuple[str, ...]:
    """Parts of a network that an import or export does not have.

    A run has all that it needs, so that none are missing from it, nor from what is not there: ''.
    """
    card = read_card(run) if run else None
    return () if card is None else tuple(part for part in PARTS if part not in card['parts'])


def new_parts(config: Config, parts: Collection[str]) -> str:
    """Which of these begin new, in a sentence; empty if none do."""
    return f'Not in {config.loaded}, and so new: {", ".join(parts)}.' if parts else ''


def start_from(state: TrainState, loaded: Mapping[str, Any], *, new: tuple[str, ...], run: str) -> TrainState:
    """The state with loaded parameters in place of its own, and of its average's; see `filled_in`."""
    params = filled_in(state.params, loaded, new=new, run=run)
    average = None if state.average is None else jax.tree.map(lambda x: x.copy(), params)
    return dataclasses.replace(state, params=params, average=average)


def filled_in(params: Any, loaded: Mapping[str, Any], *, new: tuple[str, ...] = (), run: str) -> Any:
    """Loaded parameters in place of some, with their dtypes and shardings.

    Args:
        params: freshly initialised.
        loaded: parameters by name.
        new: how the names begin of those that keep their initial values.
        run: where the parameters are from, for messages.

    Raises:
        ConfigError: a parameter is missing, or has another shape.
    """

    def take(path: Any, leaf: jax.Array) -> jax.Array:
        names = [str(key.key) for key in path]
        if names[0].startswith(new):
            return leaf
        value: Any = loaded
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None or value.shape != leaf.shape:
            found = 'none' if value is None else f'one of shape {list(value.shape)}'
            raise ConfigError(
                f'{run!r}: the parameter {"/".join(names)} of shape {list(leaf.shape)} is '
                f'needed, and the run has {found}.'
            )
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(take, params)


def _read(path: pathlib.Path) -> dict[str, Any]:
    # Not a Checkpointer, which warns that what CheckpointStore writes has no metadata of its own.
    handler = ocp.PyTreeCheckpointHandler()
    saved = handler.metadata(epath.Path(path)).tree
    name = 'average' if saved.get('average') else 'params'
    wanted = {name: jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved[name])}
    args = ocp.args.PyTreeRestore(item={name: saved[name]}, restore_args=wanted, partial_restore=True)
    return handler.restore(epath.Path(path), args=args)[name]
