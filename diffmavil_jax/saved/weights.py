"""What an import or an export is on disk: config.json, card.json and one file of float32 parameters."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from diffmavil_jax.atomic import write_bytes, write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage.paths import is_remote

FILE = 'model.safetensors'  # names joined by '/'


def write_params(root: pathlib.Path, params: Mapping[str, Any]) -> None:
    """Writes nested parameters."""
    write_arrays(root / FILE, traverse_util.flatten_dict(params, sep='/'))


def write_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name as float32 in a .safetensors file."""
    contiguous = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(contiguous))


def write_description(root: pathlib.Path, config: Config, card: Mapping[str, Any]) -> None:
    """Writes the card, then the config, which makes the directory loadable."""
    write_card(root, card)
    write_json(root / 'config.json', to_dict(config))


def write_card(root: pathlib.Path, card: Mapping[str, Any]) -> None:
    """Writes what `inherit.read_card` reads."""
    write_json(root / 'card.json', card)


def read_params(root: pathlib.Path) -> dict[str, Any]:
    """The nested parameters that `write_params` wrote.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        path = root / FILE
        arrays = (
            safetensors.numpy.load(path.read_bytes())
            if is_remote(path)
            else safetensors.numpy.load_file(path)
        )
        return traverse_util.unflatten_dict(arrays, sep='/')
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f'{root / FILE}: can not be read ({error}).') from None
