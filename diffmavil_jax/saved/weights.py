"""What an import or an export is on disk: config.json, card.json and one file of float32 parameters."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from diffmavil_jax.atomic import set_aside, write_bytes, write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError

FILE = 'model.safetensors'  # names joined by '/'


def open_output(path: str | os.PathLike[str], *, overwrite: bool) -> pathlib.Path:
    """Makes a directory; with `overwrite`, what is there is first moved to a sibling directory.

    Raises:
        ConfigError: the directory is not empty, or it can't be written.
    """
    root = pathlib.Path(path).expanduser().absolute()
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            if not overwrite:
                raise ConfigError(
                    f'--output={path}: is not empty; give another, or --overwrite to keep the old one aside.'
                )
            set_aside(root)
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f'--output={path}: must be a directory that can be written ({error.strerror}).'
        ) from None
    return root


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
        return traverse_util.unflatten_dict(safetensors.numpy.load_file(root / FILE), sep='/')
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f'{root / FILE}: can not be read ({error}).') from None
