"""Where a path that a user gave leads: into a file system, into a bucket, or to the Hugging Face Hub."""

from __future__ import annotations

import os
import pathlib
import urllib.parse
import urllib.request

from etils import epath

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage import buckets, hub


def open_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """The absolute path of a file or directory; an `epath.Path`, which has the same methods, in a bucket.

    What is on the Hub is downloaded, and the path is of the copy.

    Args:
        path: a path, a URL that begins with `file://`, one of a bucket, or `hf://ORG/NAME`.

    Raises:
        ConfigError: it is a URL of another kind, or can't be downloaded.
    """
    text = os.fspath(path)
    if hub.is_hub(text):
        return hub.fetched(text)
    if text.startswith('file://'):
        text = urllib.request.url2pathname(urllib.parse.urlsplit(text).path)
    if is_remote(text):
        if not text.startswith(buckets.PREFIXES):
            raise ConfigError(
                f'{text}: must be a path, or begin with file:// or '
                f'{" or ".join((*buckets.PREFIXES, hub.PREFIX))}.'
            )
        buckets.show_what_is_there()
        return epath.Path(text)
    return pathlib.Path(text).expanduser().absolute()


def local_path(path: str | os.PathLike[str], flag: str) -> pathlib.Path:
    """The absolute path of a file or directory in a file system.

    Args:
        path: see `open_path`.
        flag: what the user gave, such as `--output=DIR`, for the message.

    Raises:
        ConfigError: it is in a bucket.
    """
    if is_remote(path):
        raise ConfigError(
            f'{flag}: must be in a file system; copy it to the bucket afterwards, or mount that.'
        )
    return open_path(path)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket or on the Hub, and not in a file system."""
    return '://' in os.fspath(path) and not os.fspath(path).startswith('file://')
