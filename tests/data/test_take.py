"""Takes: what they depend on, how they are distributed, and which part of a picture they cut out."""

import dataclasses

import numpy as np
import pytest

from diffmavil_jax.data.take import FIXED, Crop, Takes, cut_picture

ALL = Takes(3, start=True, video=True, min_area=0.5, max_aspect=4 / 3, flip=0.5)


def test_a_take_depends_on_seed_and_position_alone():
    forwards = [ALL(i) for i in range(50)]
    assert [ALL(i) for i in reversed(range(50))] == forwards[::-1]
    assert len(set(forwards)) == 50
    assert dataclasses.replace(ALL, seed=4)(0) != forwards[0]


def test_what_is_drawn_does_not_depend_on_what_else_is():
    for i in range(20):
        assert dataclasses.replace(ALL, start=False, flip=0.0)(i).crop == ALL(i).crop
        assert Takes(3, video=True)(i) == dataclasses.replace(FIXED, video=ALL(i).video)


def test_starts_sides_and_rectangles_are_uniform():
    takes = [ALL(i) for i in range(2_000)]
    for shares in ([t.start for t in takes], [t.video for t in takes], [t.crop.x for t in takes]):
        assert min(shares) >= 0 and max(shares) < 1 and np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.mean([t.flip for t in takes]) == pytest.approx(0.5, abs=0.04)
    areas = np.array([t.crop.width * t.crop.height for t in takes])
    ratios = np.array([t.crop.width / t.crop.height for t in takes])
    assert areas.min() >= 0.5 - 1e-9 and areas.mean() == pytest.approx(0.75, abs=0.01)
    assert 3 / 4 - 1e-9 <= ratios.min() < 0.8 and 1.25 < ratios.max() <= 4 / 3 + 1e-9
    assert max(max(t.crop.width, t.crop.height) for t in takes) <= 1


def test_a_run_without_augmentation_draws_nothing(tiny):
    assert Takes.of(tiny()) is None
    assert Takes.of(tiny(data={'video_seconds': 1.0})) is None
    assert Takes.of(tiny(augmentation={'gain': True})) is None  # within the step
    assert Takes.of(tiny(data={'video_seconds': 0.5}, seed=7)) == Takes(7, video=True, max_aspect=4 / 3)
    assert Takes.of(tiny(augmentation={'random_start': True})).start
    assert Takes.of(tiny(augmentation={'crop_min_area': 0.5}))(0).crop is not None
    assert Takes.of(tiny(augmentation={'flip': 1.0}))(0).flip


def gradient(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize('crop', [Crop(1, 1, 0, 0), Crop(0.75, 0.5, 0.25, 1.0), Crop(0.6, 0.8, 1.0, 0.5)])
def test_a_crop_is_where_its_numbers_say(crop):
    left, top, right, bottom = crop.box(100, 80)
    assert (right - left, bottom - top) == pytest.approx((80 * crop.width, 80 * crop.height))
    assert (left, top) == pytest.approx((crop.x * (100 - right + left), crop.y * (80 - bottom + top)))
    cut = cut_picture(gradient(80, 100), crop, 40).astype(float)
    across = left + (np.arange(40) + 0.5) * (right - left) / 40 - 0.5
    down = top + (np.arange(40) + 0.5) * (bottom - top) / 40 - 0.5
    np.testing.assert_allclose(cut[:, 2:-2, 0], np.tile(2 * across[2:-2], (40, 1)), atol=3)
    np.testing.assert_allclose(cut[2:-2, :, 1], np.tile(2 * down[2:-2, None], (1, 40)), atol=3)
