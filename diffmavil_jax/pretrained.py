"""Parameters of a finished run, as the start of another."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffmavil_jax.config_tree import ConfigError
from diffmavil_jax.training.state import TrainState


def load_params(run: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """The newest parameters of a run, their average if it kept one, and the samples it had seen.

    Arrays are read to the host; nothing of the run is changed.

    Raises:
        ConfigError: the run has no checkpoint that can be read.
    """
    checkpoints = pathlib.Path(run).expanduser().absolute() / 'checkpoints'
    there = sorted((int(p.name) for p in checkpoints.glob('*') if p.name.isdigit()), reverse=True)
    reasons = []
    for samples in there:
        try:
            return _read(checkpoints / str(samples) / 'state'), samples
        except Exception as error:  # a broken file raises whatever its parser raises
            reasons.append(f'{samples} ({type(error).__name__}: {str(error).splitlines()[0][:200]})')
    why = f'none of its checkpoints can be read: {"; ".join(reasons)}' if reasons else 'it has no checkpoint'
    raise ConfigError(f'config.init = {os.fspath(run)!r}: must be a run to start from; {why}.')


def start_from(state: TrainState, loaded: Mapping[str, Any], *, new: tuple[str, ...], run: str) -> TrainState:
    """The state with loaded parameters in place of its own, and of its average's.

    Args:
        state: freshly initialised.
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
                f'config.init = {run!r}: the parameter {"/".join(names)} of shape {list(leaf.shape)} is '
                f'needed, and the run has {found}.'
            )
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    params = jax.tree_util.tree_map_with_path(take, state.params)
    average = None if state.average is None else jax.tree.map(lambda x: x.copy(), params)
    return dataclasses.replace(state, params=params, average=average)


def _read(path: pathlib.Path) -> dict[str, Any]:
    checkpointer = ocp.PyTreeCheckpointer()
    saved = checkpointer.metadata(path).item_metadata.tree
    name = 'average' if saved.get('average') else 'params'
    wanted = {name: jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved[name])}
    args = ocp.args.PyTreeRestore(item={name: saved[name]}, restore_args=wanted, partial_restore=True)
    return checkpointer.restore(path, args=args)[name]
