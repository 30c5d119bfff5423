"""How files of other projects are read: only tensors and plain values, so that no file can run code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import pathlib
import pickle
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors

from diffmavil_jax.config.tree import ConfigError

# How other kinds of files begin.
_NO_WEIGHTS = {
    b'<!doctype': 'is a web page: download the file itself, not the page about it',
    b'<html': 'is a web page: download the file itself, not the page about it',
    b'version https://git-lfs': 'is a pointer of Git LFS: get the file itself by `git lfs pull`',
}
_UNKNOWN_GLOBAL = re.compile(r'GLOBAL (\S+)')


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A tensor of a type that NumPy lacks."""

    dtype: str
    shape: tuple[int, ...]


def read(path: pathlib.Path) -> Any:
    """What a file holds: tensors by name, or whatever torch.save was given.

    Raises:
        ConfigError: the file can't be read, or holds something that may run code.
    """
    with _config_errors(path):
        with path.open('rb') as file:
            start = file.read(64)
        if not start:
            raise ConfigError(f'{path}: is empty.')
        for sign, reason in _NO_WEIGHTS.items():
            if start.lstrip().lower().startswith(sign):
                raise ConfigError(f'{path}: {reason}.')
        return _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)


def _read_safetensors(path: pathlib.Path) -> Mapping[str, Any]:
    arrays: dict[str, Any] = {}
    with safetensors.safe_open(path, 'numpy') as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            try:
                arrays[name] = file.get_tensor(name)
            except AttributeError:  # NumPy lacks the type
                entry = file.get_slice(name)
                arrays[name] = Unreadable(entry.get_dtype(), tuple(entry.get_shape()))
    return arrays


def _read_torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise ConfigError(
            f"{path}: needs PyTorch to be read: pip install -e '.[torch]'; a .safetensors file does not."
        ) from None
    with torch.serialization.safe_globals(_plain_values()):
        return torch.load(path, map_location='cpu', weights_only=True)


def _plain_values() -> list[Any]:
    """What launchers keep beside the tensors, such as training flags; none of it runs code."""
    scalar, array = (value.__reduce__()[0] for value in (np.float64(0), np.zeros(0)))  # as NumPy pickles them
    kinds = [type(np.dtype(code)) for code in np.typecodes['All']]
    return [
        *(bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range, slice),
        # PyTorch fills plain dictionaries and lists only.
        *((_dictionary, 'collections.defaultdict'), (_list, 'collections.deque')),
        *(argparse.Namespace, types.SimpleNamespace),
        *(datetime.datetime, datetime.date, datetime.timedelta),
        *(pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
        # A path of Windows can't be made elsewhere; newer versions of Python name the module differently.
        *((pathlib.PureWindowsPath, f'{module}.WindowsPath') for module in ('pathlib', 'pathlib._local')),
        *((pathlib.PurePosixPath, f'pathlib._local.{name}') for name in ('PosixPath', 'PurePosixPath')),
        *(np.ndarray, np.dtype, *kinds),
        *((scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
        *((array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    ]


def _dictionary(default: Any = None) -> dict[Any, Any]:
    return {}


def _list(items: Iterable[Any] = (), length: int | None = None) -> list[Any]:
    return list(items)


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
        unknown = _UNKNOWN_GLOBAL.search(str(error))
        if unknown is None:
            raise ConfigError(f'{path}: can not be read as parameters ({_first_line(error)}).') from None
        raise ConfigError(
            f'{path}: holds something other than plain tensors and values, {unknown[1]}, and is not loaded, '
            f'because that may run code; save the state dict of the network alone.'
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f'{path}: can not be read as parameters ({_first_line(error)}).') from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0][:200]}' if lines else type(error).__name__
