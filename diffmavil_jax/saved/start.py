"""How a run starts from the parameters of another run, an import or an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax

from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.models.positions import fit_table, trimmed
from diffmavil_jax.saved.inherit import check_inherited, read_config
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import check_params
from diffmavil_jax.training.state import TrainState


def load_for(config: Config, modalities: Collection[str]) -> dict[str, Any]:
    """The parameters that a config starts from, with stored positions fitted to its own clips.

    Args:
        config: of the run that starts; `check_start` has accepted it.
        modalities: those that the run has encoders for.

    Raises:
        ConfigError: they can't be read.
    """
    params = dict(open_network(config.loaded).params)
    interpolate = config.finetune.positions == 'interpolate'
    for part, (old, new) in _grids(config, modalities).items():
        table = fit_table(params[part]['positions'], old, new, interpolate=interpolate)
        params[part] = params[part] | {'positions': table}
    return params


def check_start(config: Config, modalities: Collection[str]) -> None:
    """Raises ConfigError if a config can't start from its `init`; does not read the parameters yet."""
    if config.init:
        check_inherited(to_dict(config), read_config(config.init), config.init)
    if config.loaded:
        check_params(config.loaded)
    _check_positions(config, modalities)


def _check_positions(config: Config, modalities: Collection[str]) -> None:
    """Raises ConfigError if stored positions do not fit and may not be interpolated."""
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
    """By encoder: the grid that its stored positions are for, and the grid that the config needs."""
    if config.model.positions != 'stored' or not config.loaded:
        return {}
    network = open_network(config.loaded)
    missing = network.lacking([f'encoder_{m}' for m in modalities])
    return {
        f'encoder_{m}': (network.stored.grids[m], config.grids[m])
        for m in modalities
        if f'encoder_{m}' not in missing
    }


def new_parts(config: Config, parts: Collection[str]) -> str:
    """A sentence that names the parts which start from random values; empty if there are none."""
    return f'Not in {config.loaded}, and so new: {", ".join(parts)}.' if parts else ''


def start_from(state: TrainState, loaded: Mapping[str, Any], *, new: tuple[str, ...], run: str) -> TrainState:
    """The state with loaded parameters, which its EMA starts from as well; see `filled_in`."""
    params = filled_in(state.params, loaded, new=new, run=run)
    ema = None if state.ema is None else jax.tree.map(lambda x: x.copy(), params)
    return dataclasses.replace(state, params=params, ema=ema)


def filled_in(params: Any, loaded: Mapping[str, Any], *, new: tuple[str, ...] = (), run: str) -> Any:
    """Parameters with loaded values, in the dtypes and shardings that they have.

    Args:
        params: initialised parameters, nested.
        loaded: parameters to take, nested by the same names.
        new: name prefixes of the parameters that keep their initial values.
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
