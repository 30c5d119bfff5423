"""Fills folders with films and lists, and reads the ids of a source's clips."""

import pathlib
import shutil

import numpy as np

from diffmavil_jax.data.clip import ClipSpec
from tests.data.film import MEDIA, silence, write

SPEC = ClipSpec(sample_rate=16_000, seconds=1.0, frames=2, frame_size=16)


def fill(root, **files):
    """Copies real files under new names: stem=original."""
    for stem, original in files.items():
        shutil.copy(MEDIA / original, root / f'{stem}{pathlib.Path(original).suffix}')
    return root


def write_silence(path):
    """Writes a film of 4 s without sound: its track is silent."""
    write(path, [np.zeros((32, 32, 3), np.uint8)] * 32, silence(4))


def ids(source):
    return [source[i]['id'] for i in range(len(source))]


def files(source):
    return sorted({clip.split('@')[0] for clip in ids(source)})


def write_csv(root, text, name='list.csv'):
    (root / name).write_text(text)
    return root
