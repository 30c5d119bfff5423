"""How a run gets its directory: a new one, or its own to resume in, but never that of another run.

While a run is at work, it holds its directory: a second start there is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diffmavil_jax.atomic import set_aside, write_json
from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.written_config import changes
from diffmavil_jax.storage.buckets import as_os_errors
from diffmavil_jax.storage.lock import locked
from diffmavil_jax.storage.outputs import RUN_LOCK, held_inputs
from diffmavil_jax.storage.paths import is_remote, open_path

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
    'config.train.profile_steps',
    'config.train.trackers',
    'config.data.path',
)

# Orbax writes to file systems, and to these buckets.
_CHECKPOINTS_IN = 'gs://'
_BUCKET_PACKAGES = ('gcsfs', 'google.cloud.storage')  # Orbax removes checkpoints with the second

# What a run writes into its directory besides config.json.
_WRITTEN = ('checkpoints', 'environment.jsonl', 'metrics.jsonl', 'report', 'tensorboard', 'trackers.json')

_ADVICE = 'Wait for it or stop it, or give another --workdir.'

_PACKAGES = ('diffmavil-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'av', 'numpy')


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The directory of a run, and whether the run was there before."""

    path: pathlib.Path
    resumed: bool


def check_kind(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError if no run can be written there, whatever is there; looks at the name only."""
    if is_remote(path) and not os.fspath(path).startswith(_CHECKPOINTS_IN):
        raise ConfigError(
            f'--workdir={path}: must be a directory, or begin with {_CHECKPOINTS_IN}, as Orbax writes '
            f'checkpoints to no other bucket; mount this one (docs/scale.md).'
        )


def open_workdir(path: str | os.PathLike[str], config: Config, *, overwrite: bool) -> Workdir:
    """Prepares a directory for a run of this config.

    A directory that holds a run of the same config is resumed. With `overwrite`, what it
    holds is first moved to a sibling directory. The directory is not held; see `hold_workdir`.

    Raises:
        ConfigError: the directory can't be written, holds a run of another config, one that is at work or
            files of the user's that a run would write, or `overwrite` would move what the run reads.
    """
    return _claim(_make(path, config, overwrite=overwrite), config, path)


@contextlib.contextmanager
def hold_workdir(
    path: str | os.PathLike[str], config: Config, *, overwrite: bool, say: Callable[[str], None]
) -> Iterator[Workdir]:
    """Opens a directory, and keeps other runs out of it until the end of the block.

    Args:
        path, config, overwrite: see `open_workdir`.
        say: see `locked`.

    Raises:
        ConfigError: see `open_workdir`; or another run is at work in it.
    """
    root = _make(path, config, overwrite=overwrite)
    with locked(root / RUN_LOCK, f'--workdir={path} is in use', _ADVICE, say):
        yield _claim(root, config, path)


@contextlib.contextmanager
def hold_root(
    path: str | os.PathLike[str], config: Config, *, overwrite: bool, say: Callable[[str], None]
) -> Iterator[pathlib.Path]:
    """Opens the directory of a cross-validation, which has one below it for each fold; see `hold_workdir`."""
    root = _make(path, config, overwrite=overwrite, runs=config.finetune.folds)
    with locked(root / RUN_LOCK, f'--workdir={path} is in use', _ADVICE, say):
        yield root


def _make(
    path: str | os.PathLike[str], config: Config, *, overwrite: bool, runs: Sequence[str] = ('',)
) -> pathlib.Path:
    """The directory, which is made if it is not there; `runs` are those in it that hold a run each."""
    check_kind(path)
    root = open_path(path)
    with _needing_storage(path):
        if root.exists():
            _check_place(root, config, path, overwrite=overwrite, runs=runs)
            if overwrite and any(root.iterdir()):
                with locked(root / RUN_LOCK, f'--workdir={path} is in use', _ADVICE, lambda line: None):
                    aside = set_aside(root)
                (aside / RUN_LOCK).unlink(missing_ok=True)
        if not is_remote(path):  # a bucket has no directories
            root.mkdir(parents=True, exist_ok=True)
        probe = root / f'.writable-{uuid.uuid4().hex}'
        probe.write_bytes(b'')
        probe.unlink()
    return root


@contextlib.contextmanager
def _needing_storage(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises ConfigError if the block meets storage that refuses, or lacks a package for a bucket."""
    try:
        with as_os_errors() if is_remote(path) else contextlib.nullcontext():
            if is_remote(path):
                for package in _BUCKET_PACKAGES:
                    importlib.import_module(package)
            yield
    except OSError as error:
        reason, advice = error.strerror or str(error), ''
        if is_remote(path):
            advice = "; a bucket needs pip install -e '.[gcs]' and access"
            reason = 'there is no such bucket' if isinstance(error, FileNotFoundError) else reason
        raise ConfigError(
            f'--workdir={path}: must be a directory that can be written ({reason}){advice}.'
        ) from None


def _check_place(
    root: pathlib.Path,
    config: Config,
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    runs: Sequence[str],
) -> None:
    """Raises ConfigError if the run would replace or move files that are not of a run, or that it reads."""
    names = {entry.name for entry in root.iterdir()} - {RUN_LOCK}
    if any((root / run / 'config.json').exists() for run in runs):
        for held in held_inputs(root, _inputs(config)) if overwrite else ():
            raise ConfigError(
                f'--workdir={path}: is, or holds, {held}, which the run reads: --overwrite would move it. '
                'Give another --workdir.'
            )
    elif overwrite and names:
        raise ConfigError(f'--workdir={path}: holds no run that --overwrite could keep aside.')
    elif there := [name for name in _WRITTEN if name in names]:
        raise ConfigError(
            f'--workdir={path}: holds no run, but has {", ".join(there)}, which a run would write to; '
            'give another --workdir.'
        )


def _inputs(config: Config) -> list[str]:
    """What a run reads."""
    data = config.data
    paths = {'folder': (data.folder,), 'tfds': data.datasets}.get(data.source, ())
    return [path for path in (config.init, config.teacher, *paths) if path and path != 'generated']


def _claim(root: pathlib.Path, config: Config, path: str | os.PathLike[str]) -> Workdir:
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
    root = open_path(path)
    with _needing_storage(path):
        there = (root / 'config.json').exists()
    if not there:
        raise ConfigError(
            f'--workdir={path}: must be on storage that all hosts share; {platform.node()} does not see what '
            f'process 0 wrote there.'
        )
    return Workdir(root, resumed=True)


def software() -> dict[str, str]:
    """The versions of Python, of the platform and of the packages that matter."""
    return {
        'python': platform.python_version(),
        'platform': platform.platform(),
        **{f'version {name}': _version(name) for name in _PACKAGES},
    }


def write_environment(root: pathlib.Path, device: Mapping[str, Any]) -> dict[str, Any]:
    """Appends the versions, the platform and the device to environment.jsonl, a line for each start.

    Returns:
        What was written.
    """
    environment = software() | dict(device)
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
