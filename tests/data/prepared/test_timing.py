"""Which stored pictures a take has, and when its sound begins."""

import dataclasses

import pytest

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.prepared.timing import Timing
from diffmavil_jax.data.take import FIXED, Take

MAVIL = ClipSpec(16_000, 10.0, 8, 224, video_seconds=4.0)
TEN = Timing(10.0, 20, 10.0)  # two pictures a second


def test_evaluation_takes_pictures_of_the_middle():
    assert TEN.frame_indices(MAVIL, FIXED) == list(range(6, 14))  # from 3 to 7 s
    assert TEN.start(MAVIL, FIXED) == 0


def test_training_takes_any_stretch_within_the_sound():
    firsts = [TEN.frame_indices(MAVIL, Take(video=k / 100)) for k in range(100)]
    assert {indices[0] for indices in firsts} == set(range(13))
    assert all(indices == list(range(indices[0], indices[0] + 8)) for indices in firsts)


def test_a_longer_clip_has_several_starts_and_its_pictures_move_along():
    long = Timing(30.0, 60, 30.0)
    assert [long.start(MAVIL, Take(start=s)) for s in (0.0, 0.5, 0.999)] == [0, 20, 40]
    assert long.start_s(20) == 10.0
    for start in (0.0, 0.3, 0.7, 0.999):
        for video in (0.0, 0.5, 0.999):
            first = long.start(MAVIL, Take(start, video))
            indices = long.frame_indices(MAVIL, Take(start, video))
            assert first <= indices[0] and indices[-1] < first + 20 and indices[-1] - indices[0] == 7
    assert long.frame_indices(MAVIL, FIXED)[0] == 6


def test_pictures_of_the_beginning_limit_the_starts():
    part = Timing(30.0, 20, 10.0)
    assert part.start(MAVIL, Take(start=0.999)) == 12  # at 6 s: their last four seconds
    assert part.frame_indices(MAVIL, Take(0.999, 0.999)) == list(range(12, 20))


@pytest.mark.parametrize('seconds, pictures, span', [(None, 8, None), (9.6, 8, 9.6), (10.0, 8, 10.0)])
def test_clips_that_are_no_longer_begin_where_they_do(seconds, pictures, span):
    spec = dataclasses.replace(MAVIL, video_seconds=0.0)
    timing = Timing(seconds, pictures, span)
    for take in (FIXED, Take(0.7, 0.2)):
        assert timing.start(spec, take) == 0 and timing.frame_indices(spec, take) == list(range(8))
