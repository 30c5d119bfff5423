"""Fixtures: examples of prepared datasets, and folders opened as sources."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

tfds.disable_progress_bar()


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
    """Makes clip `number`: its sound counts up from that number, and picture t has the brightness 20 t."""

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


@pytest.fixture(scope='module')
def open_folder():
    """Opens a folder. Its decoders end with the module, because other tests count processes."""
    from diffmavil_jax.data import folder
    from diffmavil_jax.data.sandbox import DecodePool
    from tests.data.folders import SPEC

    with DecodePool(2) as decoders:

        def make(path, spec=SPEC, *, eval_fraction=0.1, max_bad_fraction=0.5, cache_bytes=1 << 24, **options):
            return folder.open_folder(
                path,
                spec,
                eval_fraction=eval_fraction,
                max_bad_fraction=max_bad_fraction,
                cache_bytes=cache_bytes,
                decoders=decoders,
                **options,
            )

        yield make
