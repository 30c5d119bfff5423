"""Writes small prepared datasets, by TFDS alone."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffmavil_jax.data.prepared import FEATURES, Metadata

tfds.disable_progress_bar()


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, *, name, examples, metadata, **options):
        self.name, self._examples, self._metadata = name, examples, metadata
        super().__init__(file_format='array_record', **options)

    def _info(self):
        metadata = tfds.core.MetadataDict(self._metadata.to_dict())
        return tfds.core.DatasetInfo(builder=self, features=FEATURES(), metadata=metadata)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(rows) for split, rows in self._examples.items()}

    def _generate_examples(self, rows):
        yield from enumerate(rows)


def _jpeg(value, size):
    """A picture whose brightness is `value` on the left and 255 - value on the right."""
    pixels = np.full((size, size, 3), value, np.uint8)
    pixels[:, size // 2 :] = 255 - value
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=95)
    return file.getvalue()


@pytest.fixture(scope='session')
def jpeg():
    return _jpeg


@pytest.fixture(scope='session')
def example():
    """Makes clip `number`: its sound counts up from it, picture t has the brightness 20 t."""

    def make(number=0, *, samples=16_000, size=32, label=0, **changes):
        return {
            'id': f'{number}.mp4@0.000',
            'start_s': 0.0,
            'audio': np.arange(number, number + samples, dtype=np.int16),
            'frames': [_jpeg(20 * t, size) for t in range(8)],
            'labels': [label],
            'source_hash': '',
            **changes,
        }

    return make


@pytest.fixture(scope='session')
def write_prepared():
    """Writes {split: examples} below a folder; returns the directory of the version."""

    def write(folder, examples, name='tiny', **metadata):
        values = {'source': 'folder', 'class_names': ('cat', 'dog'), 'seconds': 1.0, 'frames': 8}
        values |= {'frame_size': 32, 'frame_seconds': 1.0, **metadata}
        builder = _Builder(name=name, examples=examples, metadata=Metadata(**values), data_dir=folder)
        builder.download_and_prepare()
        return builder.data_dir

    return write
