"""What an import or an export is on disk: config.json, card.json and one file of parameters."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import traverse_util

from diffmavil_jax.atomic import write_bytes, write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError

FILE = 'model.safetensors'  # names joined by '/'
# By the names that a file has for them; NumPy lacks bfloat16, and safetensors can't read it without PyTorch.
_DTYPES = {'F32': np.dtype(np.float32), 'BF16': np.dtype(ml_dtypes.bfloat16)}


def write_params(root: pathlib.Path, params: Mapping[str, Any], dtype: str = 'float32') -> None:
    """Writes nested parameters; see `write_arrays`."""
    write_arrays(root / FILE, traverse_util.flatten_dict(params, sep='/'), dtype)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, Any], dtype: str = 'float32') -> None:
    """Writes arrays by name in a .safetensors file, as `float32` or rounded to `bfloat16`."""
    kind = np.dtype(dtype)  # ml_dtypes has told NumPy of bfloat16
    contiguous = {name: np.ascontiguousarray(array, kind) for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(contiguous))


def write_description(root: pathlib.Path, config: Config, card: Mapping[str, Any]) -> None:
    """Writes the card, then the config, which makes the directory loadable."""
    write_card(root, card)
    write_json(root / 'config.json', to_dict(config))


def write_card(root: pathlib.Path, card: Mapping[str, Any]) -> None:
    """Writes what `inherit.read_card` reads."""
    write_json(root / 'card.json', card)


def read_params(root: pathlib.Path) -> dict[str, Any]:
    """The nested parameters that `write_params` wrote, float32.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        entries = safetensors.deserialize((root / FILE).read_bytes())
        arrays = {name: _array(entry) for name, entry in entries}
        return traverse_util.unflatten_dict(arrays, sep='/')
    except (KeyError, OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f'{root / FILE}: can not be read ({error}).') from None


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    """A tensor of a file; KeyError if its type is another one."""
    values = np.frombuffer(entry['data'], _DTYPES[entry['dtype']]).reshape(entry['shape'])
    return values.astype(np.float32, copy=False)
