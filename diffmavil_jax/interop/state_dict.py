"""How files of other projects are read. Nothing but tensors is loaded, so that no file can run code."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import pathlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float

from diffmavil_jax.config.tree import ConfigError


class StateDict:
    """The parameters of a file by name; remembers which of them were taken.

    Args:
        path: a .safetensors file, or one written by torch.save, which needs PyTorch.

    Raises:
        ConfigError: the file can't be read, or holds more than plain tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path).expanduser()
        with _config_errors(self.path):
            with self.path.open('rb') as file:
                self.sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
            if self.path.suffix == '.safetensors':
                saved: Mapping[str, Any] = safetensors.numpy.load_file(self.path)
            else:
                saved = _torch_load(self.path)
            self._tensors, self._others = _model_of(saved)
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def take(self, key: str) -> Float[np.ndarray, '...']:
        """A parameter, float32.

        Raises:
            ConfigError: the file has no parameter of this name.
        """
        if key not in self._tensors:
            some = ', '.join(list(self._tensors)[:3])
            raise ConfigError(
                f'{self.path}: has no {key}; it has {len(self._tensors)} parameters such as {some}.'
            )
        self._taken.add(key)
        tensor = self._tensors[key]
        return np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().float(), np.float32)

    def count(self, prefix: str) -> int:
        """How many layers there are below a prefix."""
        start = f'{prefix}.'
        return len({key[len(start) :].split('.')[0] for key in self._tensors if key.startswith(start)})

    def taken(self) -> list[str]:
        """The names that were taken, sorted."""
        return sorted(self._taken)

    def left_out(self) -> list[str]:
        """The names that were not taken, in the order of the file; entries that are not tensors come last."""
        return [key for key in self._tensors if key not in self._taken] + self._others


def _torch_load(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError:
        raise ConfigError(
            f"{path}: needs PyTorch to be read: pip install -e '.[torch]'; a .safetensors file does not."
        ) from None
    # Checkpoints of the MAE family keep their training flags in a Namespace, which is a plain container.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location='cpu', weights_only=True)


def _model_of(saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The tensors of the model, without the name prefix of DataParallel, and the names of other entries."""
    if not isinstance(saved, Mapping):
        raise ValueError(f'a {type(saved).__name__}, not parameters by name')
    name = next((n for n in ('model', 'state_dict') if isinstance(saved.get(n), Mapping)), None)
    model = saved if name is None else saved[name]
    others = [] if name is None else [key for key in saved if key != name]
    tensors = {key.removeprefix('module.'): value for key, value in model.items() if hasattr(value, 'shape')}
    return tensors, [key for key in model if not hasattr(model[key], 'shape')] + others


@contextlib.contextmanager
def _config_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever reading a file may raise into a ConfigError that names it."""
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f'{path}: can not be read ({error.strerror or error}).') from None
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f'{path}: holds something other than plain tensors, and is not loaded '
            f'({str(error).strip().splitlines()[0][:200]}).'
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, TypeError, KeyError) as error:
        reason = f'{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}'
        raise ConfigError(f'{path}: can not be read as parameters ({reason}).') from None
