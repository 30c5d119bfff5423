"""The media in tars that lie below a folder."""

from __future__ import annotations

from collections.abc import Iterator

from diffmavil_jax.data.listings import local
from diffmavil_jax.data.shards import tars
from diffmavil_jax.data.shards.inside import Inside
from diffmavil_jax.data.shards.opening import READ_HEADERS, below


def media_in(root: str, shard: str) -> Iterator[tuple[str, Inside]]:
    """The media of a tar: their paths, which begin with that of the tar, and their places.

    Raises:
        OSError: it can't be read.
        TarError: after the media before it: it is cut off or damaged.
    """
    with tars.open_tar(below(root, shard), READ_HEADERS) as file:
        for member in tars.members(file, lambda name, size: False):
            if member.is_file and local.is_media(member.name) and not is_hidden(member.name):
                yield f'{shard}/{member.name}', Inside(shard, member.begin, member.size)


def is_hidden(name: str) -> bool:
    """Whether a file in a tar, or a folder that it is in, begins with a dot."""
    return any(part.startswith('.') and part != '.' for part in name.split('/'))
