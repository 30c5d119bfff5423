"""What a bucket is reached by, and how it fails."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import fsspec
import fsspec.config

from diffmavil_jax.config.tree import ConfigError

PREFIXES = ('gs://', 's3://')
# Packages that reach a bucket, and have errors of their own.
CLIENTS = ('aiohttp', 'gcsfs', 'google', 'requests', 'urllib3')

_PROTOCOLS = ('gs', 'gcs', 's3', 's3a')
# How TensorStore says that a bucket did not answer, or does not know who asks.
_AWAY = re.compile(
    'UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED'
)


def show_what_is_there() -> None:
    """Makes listings of buckets fresh. They would be remembered for ever, also where others write.

    Call it before the first look into a bucket.
    """
    for protocol in _PROTOCOLS:
        fsspec.config.conf.setdefault(protocol, {}).setdefault('use_listings_cache', False)


def file_system(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """The file system of fsspec that a bucket's path is in, and the path there.

    Raises:
        OSError: a package that it needs is missing, or it can't be reached.
    """
    show_what_is_there()
    with as_os_errors():
        return fsspec.core.url_to_fs(os.fspath(path))


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Raises what goes wrong in a bucket as OSError: each client has errors of its own, and of its parts."""
    try:
        yield
    except (OSError, ConfigError):
        raise
    except Exception as error:
        raise OSError(f'{type(error).__name__}: {error}') from error


def is_away(error: Exception) -> bool:
    """Whether a bucket could not be reached or asked, unlike one that has no such object."""
    if type(error).__module__.partition('.')[0] in CLIENTS:
        return str(getattr(error, 'code', '')) != '404'
    return isinstance(error, ConnectionError | TimeoutError) or bool(_AWAY.search(str(error)))
