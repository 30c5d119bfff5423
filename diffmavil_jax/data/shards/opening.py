"""Opens files where they are: in a file system, or in a bucket by fsspec."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, cast

from diffmavil_jax.data.clip import DataError, printable

READ_AHEAD = 5 << 20  # for whole media
READ_HEADERS = 1 << 16


def open_file(url: str, read_ahead: int = READ_AHEAD) -> BinaryIO:
    """Opens a file to read its bytes, at a path or a URL such as `gs://...`; reads nothing yet.

    Args:
        url: of the file.
        read_ahead: how many bytes are fetched at once from a bucket.

    Raises:
        OSError: it can't be read.
        DataError: there is no such kind of URL, or its package is not installed.
    """
    if '://' not in url:
        return open(url, 'rb')
    system, path = file_system(url)
    return cast(BinaryIO, system.open(path, 'rb', block_size=read_ahead))


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a path or a URL, and the path in it.

    Raises:
        DataError: there is no such kind of URL, or its package is not installed.
    """
    import fsspec  # which needs the package of the store, such as gcsfs

    try:
        return fsspec.core.url_to_fs(url if '://' in url else os.path.abspath(url))
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{printable(url)} can't be read: {error}. gs:// needs the package gcsfs, s3:// s3fs, and hf:// "
            'huggingface_hub.'
        ) from error


def below(root: str, name: str) -> str:
    """The path or URL of a file below a folder."""
    return f'{root.rstrip("/")}/{name}'
