"""Makes examples of rows in this process, with settings for small clips."""

import dataclasses

from diffmavil_jax.data import media
from diffmavil_jax.data.listings.row import Row
from diffmavil_jax.data.prepare import clips, work
from diffmavil_jax.data.prepare.settings import Settings
from tests.data.film import MEDIA

SMALL = Settings(seconds=1.0, frames=2, frame_size=32, keep=('still',))
SOUND = Settings(modalities=('audio',), seconds=None)


class InProcess:
    """A DecodePool without processes, for speed; tests of whole datasets use the real one."""

    def probe(self, source):
        return media.probe(source)

    def call(self, function, *args):
        return function(*args)


def of_rows(rows, settings=SMALL, root=MEDIA):
    return list(clips.Clips(work.Job(str(root), settings), InProcess()).of_rows(rows))


def row(path, **changes):
    return dataclasses.replace(Row(path, 'train', path), **changes)
