"""Clips in motion, read back from GIF and MP4."""

import io

import av
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from diffmavil_jax.report.content import Stages
from diffmavil_jax.report.figures import MASKED
from diffmavil_jax.report.film import side_by_side, to_gif, to_mp4


def shades(*values, side=48):
    """Frames of one shade each."""
    return np.stack([np.full((side, side, 3), value, np.float32) for value in values])


@pytest.fixture
def stages():
    masked = shades(0.2, 0.4)
    masked[:, :24] = np.nan
    return Stages(target=shades(0.2, 0.4), masked=masked, prediction=shades(0.3, 1.5))


def test_side_by_side(stages):
    film = side_by_side(stages)
    assert film.dtype == np.uint8 and film.shape == (2, 192, 3 * 192 + 2 * 12, 3)
    target, masked, made = (film[:, :, start : start + 192] for start in (0, 204, 408))
    assert (target[0] == 51).all() and (target[1] == 102).all()
    assert (made[1] == 255).all()  # clipped
    np.testing.assert_array_equal(masked[0, 0, 0], np.round(255 * np.array(to_rgb(MASKED))))
    assert (masked[1, 96:] == 102).all()


def test_without_a_target_the_reconstruction_is_alone():
    unknown = np.full((2, 5, 5, 3), np.nan)
    film = side_by_side(Stages(target=unknown, masked=unknown, prediction=shades(0.2, 0.6, side=5)))
    assert film.shape == (2, 196, 196, 3)  # 39 to a pixel is 195: sides are even
    assert film.min() == 51 and film.max() == 153


def test_gif(stages):
    picture = Image.open(io.BytesIO(to_gif(side_by_side(stages), seconds=1.0)))
    assert picture.n_frames == 2 and picture.info['loop'] == 0
    for index, shade in enumerate((51, 102)):
        picture.seek(index)
        assert picture.info['duration'] == 500
        assert picture.convert('RGB').getpixel((10, 10)) == pytest.approx((shade,) * 3, abs=2)


def test_mp4(stages):
    data = to_mp4(side_by_side(stages), seconds=1.0)
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.05)
    assert len(frames) == 2
    for frame, shade in zip(frames, (51, 102), strict=True):
        assert frame[10, 10] == pytest.approx((shade,) * 3, abs=6)  # lossy
