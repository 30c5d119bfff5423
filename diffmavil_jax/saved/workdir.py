"""How a run gets its directory: a new one, or its own to resume in, but never that of another run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from diffmavil_jax.atomic import set_aside, write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.written_config import changes

# Sections and fields that don't change what is learned: a run may resume with other values of them.
_FREE = (
    'config.parallel',
    'config.checkpoint',
    'config.compute.remat',
    'config.compute.scan_unroll',
    'config.data.threads',
    'config.data.workers',
    'config.data.prefetch_batches',
    'config.data.cache_gb',
    'config.data.path',
)

_PACKAGES = ('diffmavil-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'av', 'numpy')


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The directory of a run, and whether the run was there before."""

    path: pathlib.Path
    resumed: bool


def open_workdir(path: str | os.PathLike[str], config: Config, *, overwrite: bool) -> Workdir:
    """Prepares a directory for a run of this config.

    A directory that holds a run of the same config is resumed. With `overwrite`, what it
    holds is first moved to a sibling directory.

    Raises:
        ConfigError: the directory can't be written, or holds a run of another config.
    """
    if '://' in os.fspath(path):
        raise ConfigError(
            f'--workdir={path}: must be a directory of a file system; mount the bucket (docs/scale.md).'
        )
    root = pathlib.Path(path).expanduser().absolute()
    if overwrite and root.exists():
        if any(root.iterdir()) and not (root / 'config.json').exists():
            raise ConfigError(f'--workdir={path}: holds no run that --overwrite could keep aside.')
        set_aside(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / '.writable'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f'--workdir={path}: must be a directory that can be written ({error.strerror}).'
        ) from None
    saved = root / 'config.json'
    resumed = saved.exists()
    if resumed:
        _check_same(saved, config, path)
    else:
        write_json(saved, to_dict(config))
    return Workdir(root, resumed)


def join_workdir(path: str | os.PathLike[str]) -> Workdir:
    """The directory of a run that another process has opened.

    Raises:
        ConfigError: this host does not see the directory.
    """
    root = pathlib.Path(path).expanduser().absolute()
    if not (root / 'config.json').exists():
        raise ConfigError(
            f'--workdir={path}: must be on storage that all hosts share; {platform.node()} does not see what '
            f'process 0 wrote there.'
        )
    return Workdir(root, resumed=True)


def write_environment(root: pathlib.Path, device: Mapping[str, Any]) -> dict[str, Any]:
    """Appends the versions, the platform and the device to environment.jsonl, a line for each start.

    Returns:
        What was written.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    environment = {
        'python': platform.python_version(),
        'platform': platform.platform(),
        **{f'version {name}': version for name, version in versions.items()},
        **device,
    }
    with (root / 'environment.jsonl').open('a', encoding='utf-8') as file:
        file.write(json.dumps(environment) + '\n')
    return environment


def _check_same(saved: pathlib.Path, config: Config, path: str | os.PathLike[str]) -> None:
    try:
        old = json.loads(saved.read_text(encoding='utf-8'))
    except ValueError:
        raise ConfigError(
            f'{saved}: is not readable as JSON; --overwrite starts anew, keeping it aside.'
        ) from None
    lines = changes(old, config)
    for line in lines:
        if line.startswith('config.data.path:'):
            print(f'Other data than before: {line}')
    lines = [
        line for line in lines if not line.startswith(tuple(free + end for free in _FREE for end in '.:'))
    ]
    if lines:
        raise ConfigError(
            f'--workdir={path} holds a run of another config:\n  '
            + '\n  '.join(lines)
            + '\nGive another --workdir, the same config, or --overwrite to start anew and keep the old run.'
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
