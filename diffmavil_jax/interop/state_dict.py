"""The parameters of a file of another project, by name; each is checked when it is taken."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.reading import read
from diffmavil_jax.saved.params import check_finite
from diffmavil_jax.storage.paths import open_path

_FLOATS = ('float64', 'float32', 'float16', 'bfloat16')
# Modules that training wraps around a network or its parts; DataParallel's `module` only around the whole.
_WRAPPERS = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
# Where launchers keep the parameters of a network, the most usual first.
_ENTRIES = ('model', 'state_dict', 'model_state_dict')


class StateDict:
    """The parameters of a file by name; remembers which of them were taken.

    Args:
        path: a .safetensors file, or one written by torch.save, which needs PyTorch; `hf://ORG/NAME/FILE`, a
            .safetensors file on the Hub.

    Raises:
        ConfigError: the file can't be read, holds more than plain tensors, or has no parameters.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = open_path(path)
        saved = read(self.path)
        with self.path.open('rb') as file:
            self.sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
        model, self._others = _model_of(self.path, saved)
        self._tensors = _unwrapped(self.path, model)
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def take(self, key: str, shape: Sequence[int | None] | None = None) -> Float[np.ndarray, '...']:
        """A parameter, float32.

        Args:
            key: its name.
            shape: what it must be; None stands for any length of an axis.

        Raises:
            ConfigError: the file has no parameter of this name, or one of another shape or type, or with a
                value that is not finite.
        """
        if key not in self._tensors:
            some = ', '.join(list(self._tensors)[:3])
            raise ConfigError(
                f'{self.path}: has no {key}; it has {len(self._tensors)} parameters such as {some}.'
            )
        self._taken.add(key)
        tensor = self._tensors[key]
        kind = str(tensor.dtype).removeprefix('torch.')
        if kind not in _FLOATS:
            raise ConfigError(
                f'{self.path}: {key} is {kind}, and must be one of {", ".join(_FLOATS)}: save the network '
                f'before it was quantised.'
            )
        array = np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().float(), np.float32)
        if shape is not None and not _fits(array.shape, shape):
            needed = ', '.join('any' if size is None else str(size) for size in shape)
            raise ConfigError(
                f'{self.path}: {key} has shape {list(array.shape)}, and [{needed}] is needed; is the layout '
                f'that of the file?'
            )
        check_finite({key: array}, str(self.path))
        return array

    def count(self, prefix: str) -> int:
        """How many layers there are below a prefix."""
        start = f'{prefix}.'
        return len({key[len(start) :].split('.')[0] for key in self._tensors if key.startswith(start)})

    def taken(self) -> list[str]:
        """The names that were taken, sorted."""
        return sorted(self._taken)

    def left_out(self) -> list[str]:
        """The names that were not taken, in the order of the file."""
        return [key for key in self._tensors if key not in self._taken]

    def others(self) -> list[str]:
        """The names of entries that are not tensors of the network, such as the state of an optimizer."""
        return list(self._others)


def _fits(shape: tuple[int, ...], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _model_of(path: pathlib.Path, saved: Any) -> tuple[dict[str, Any], list[str]]:
    """The tensors of the network by name, and the names of other entries."""
    if not isinstance(saved, Mapping):
        raise ConfigError(f'{path}: holds a {type(saved).__name__}, and must hold parameters by name.')
    tensors = {key: value for key, value in saved.items() if _is_tensor(value)}
    others = [str(key) for key in saved if key not in tensors]
    holders = {
        key: sum(map(_is_tensor, value.values()))
        for key, value in saved.items()
        if isinstance(value, Mapping) and any(map(_is_tensor, value.values()))
    }
    entry = next((name for name in _ENTRIES if name in holders), None)
    if entry is None and not tensors and len(holders) == 1:
        (entry,) = holders
    if entry is not None:
        model, inner = _model_of(path, saved[entry])
        return model, [*inner, *(str(key) for key in saved if key != entry)]
    if not tensors:
        raise ConfigError(f'{path}: {_nothing(saved, holders)}')
    return tensors, others


def _nothing(saved: Mapping[str, Any], holders: Mapping[str, int]) -> str:
    """Why no parameters were found, and what to do."""
    if holders:
        found = ', '.join(f'{name} ({count})' for name, count in holders.items())
        return (
            f'has several entries with tensors, {found}, and none is called {" or ".join(_ENTRIES)}: save '
            f'the network alone, for example with '
            f"torch.save(torch.load(FILE, weights_only=True)['{next(iter(holders))}'], NEW_FILE)."
        )
    entries = ', '.join(map(str, list(saved)[:5])) or 'none'
    return f'has no tensors; its entries are {entries}.'


def _is_tensor(value: Any) -> bool:
    return hasattr(value, 'shape') and hasattr(value, 'dtype')


def _unwrapped(path: pathlib.Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by the names that they have in the network itself."""
    result: dict[str, Any] = {}
    for key, tensor in tensors.items():
        parts = [part for part in str(key).split('.') if part not in _WRAPPERS]
        while parts[0] == 'module' and len(parts) > 1:
            parts = parts[1:]
        name = '.'.join(parts)
        if name in result:
            raise ConfigError(f'{path}: has {name} twice, once as {key}: save one of the two networks alone.')
        result[name] = tensor
    return result
