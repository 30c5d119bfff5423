"""Which clips show a still picture."""

import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.prepare import encode
from tests.data.film import GRID, MEDIA, NASA, SPRING, TOS


@pytest.mark.parametrize('size', [16, 64, 100, 256])
def test_a_still_picture_is_one_but_for_noise(size):
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(40, 200, (1, size, size, 3), np.uint8), 4, 0)
    noise = rng.normal(0, 4 if size >= 64 else 1, still.shape)
    assert encode.is_still(still) and encode.is_still((still + noise).astype(np.uint8))
    moving = still.copy()
    moving[2, : size // 8, : size // 8] += 30  # a 64th of the picture
    assert not encode.is_still(moving)
    assert not encode.is_still(still[:1])  # one frame can't tell


def test_slow_films_are_not_still():
    for name in (SPRING, NASA, GRID, TOS):
        _, frames = media.decode(MEDIA / name, 0.0, ClipSpec(16_000, 2.0, 8, 64), ['video'])
        assert not encode.is_still(frames)
