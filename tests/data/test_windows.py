"""Whole files as windows: where they are cut, what the last one holds, and what is refused."""

import dataclasses
import itertools

import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import Refusal
from diffmavil_jax.data.windows import FileEnd, Reader, Window, cut_whole, read_window
from tests.data.film import MEDIA, SPEC, grey, shown, tone_from, write

BOTH = ('audio', 'video')


def read(paths, modality='auto', offered=BOTH, ahead=4, workers=1):
    reader = Reader(SPEC, offered, modality, workers)
    return list(reader.windows([str(path) for path in paths], ahead))


def windows_of(items):
    return [item for item in items if isinstance(item, Window)]


def refusals_of(items):
    return [item for item in items if isinstance(item, Refusal)]


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    """A film of 3 s, with 8 pictures per second and a tone."""
    path = tmp_path_factory.mktemp('film') / 'a.mkv'
    return write(path, [grey(i) for i in range(24)], tone_from(0, 3.0))


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    return write(tmp_path_factory.mktemp('sound') / 'a.mkv', sound=tone_from(0, 2.0))


@pytest.fixture(scope='module')
def silent_film(tmp_path_factory):
    path = tmp_path_factory.mktemp('silent') / 'a.mkv'
    return write(path, [grey(i) for i in range(16)], np.zeros(96_000, np.int16))


@pytest.mark.parametrize(
    ('length_s', 'cut'),
    [
        (4.0, [(0, 2), (2, 2)]),
        (4.1, [(0, 2), (2, 2)]),  # a twentieth of a window is left
        (4.5, [(0, 2), (2, 2), (4, 0.5)]),
        (3.9, [(0, 2), (2, 2)]),  # a twentieth is missing, as is allowed in a training clip
        (0.1, [(0, 0.1)]),
    ],
)
def test_files_are_cut_into_consecutive_windows(length_s, cut):
    found = cut_whole(length_s, 2.0)
    np.testing.assert_allclose(found, cut, atol=1e-9)


def test_whole_windows_are_what_the_decoder_gives(film):
    first, last, end = read([film])
    waveform, frames = media.decode(film, 0.0, SPEC)
    np.testing.assert_array_equal(first.waveform, waveform)
    np.testing.assert_array_equal(first.frames, frames)
    assert (first.id, first.start_s, first.end_s) == (f'{film}@0.000', 0.0, 2.0)
    assert first.samples == SPEC.num_samples and isinstance(end, FileEnd)
    assert (last.id, last.start_s) == (f'{film}@2.000', 2.0)


def test_the_last_window_holds_what_is_left(film):
    last = windows_of(read([film]))[-1]
    assert last.end_s == pytest.approx(3.0, abs=0.01)
    # Wanted are 4 pictures per second, those at 2.125, 2.375, 2.625 and 2.875 s; the last one is repeated.
    assert shown(last.frames) == [17, 19, 21, 23, 23, 23, 23, 23]
    assert last.samples == pytest.approx(16_000, abs=160)
    t = np.arange(15_000) / 16_000
    error = last.waveform[:15_000] - 12_000 * np.sin(2 * np.pi * 440 * t)
    assert np.abs(error).max() < 300 and not last.waveform[last.samples :].any()


def test_less_than_the_time_of_one_picture_has_one_picture(film):
    _, frames = read_window(film, 0.0, 0.2, SPEC, ['video'])
    assert frames.shape == (8, 32, 32, 3) and shown(frames) == [0] * 8


def test_auto_takes_what_a_file_has_and_what_can_be_used(film, sound):
    both, alone = read([film])[0], read([sound])[0]
    assert both.waveform is not None and both.frames is not None
    assert alone.waveform is not None and alone.frames is None
    video = read([film], offered=('video',))[0]
    assert video.waveform is None and video.samples == 0
    np.testing.assert_array_equal(video.frames, both.frames)
    assert read([sound], offered=('video',))[0] == Refusal(str(sound), 'no video')


def test_a_modality_that_is_asked_for_must_be_there(film, sound):
    assert read([film], 'audio')[0].frames is None
    assert read([sound], 'both')[0] == Refusal(str(sound), 'no video')
    assert read([sound], 'video') == [Refusal(str(sound), 'no video'), FileEnd()]


def test_silence_is_no_sound(silent_film):
    window = read([silent_film])[0]
    assert window.waveform is None and shown(window.frames) == list(range(1, 16, 2))
    assert read([silent_film], 'both')[0] == Refusal(f'{silent_film}@0.000', 'silent')
    assert read([silent_film], 'audio')[0] == Refusal(f'{silent_film}@0.000', 'silent')


def test_bad_files_are_named_and_the_others_come_in_order(film, sound, tmp_path):
    broken = tmp_path / 'broken.mp4'
    broken.write_text('no film')
    paths = [broken, film, tmp_path / 'gone.mp4', sound, MEDIA / 'tos_battle.webm']
    one = read(paths)
    assert [item.path for item in refusals_of(one)] == [str(broken), str(tmp_path / 'gone.mp4')]
    assert 'no such file' in refusals_of(one)[1].reason
    assert sum(isinstance(item, FileEnd) for item in one) == len(paths)
    several = read(paths, ahead=9, workers=3)
    assert [item.id for item in windows_of(one)] == [item.id for item in windows_of(several)]
    assert [window.id.split('@')[0] for window in windows_of(one)] == [
        str(path) for path, count in ((film, 2), (sound, 1), (paths[-1], 3)) for _ in range(count)
    ]


def test_a_file_without_any_length_is_refused(tmp_path):
    path = write(tmp_path / 'a.mkv', sound=tone_from(0, 0.01))
    assert 'too short' in read([path])[0].reason


def test_no_more_is_read_than_is_asked_for_and_some_ahead(sound):
    taken = itertools.count()

    def paths():
        for _ in range(1_000):
            next(taken)
            yield str(sound)

    items = Reader(SPEC, BOTH, 'auto', workers=1).windows(paths(), ahead=3)
    assert isinstance(next(items), Window)
    items.close()
    assert next(taken) < 20


def test_pictures_of_a_part_are_from_the_middle_of_what_is_there(film):
    part = dataclasses.replace(SPEC, frames=4, video_seconds=0.5)  # every 0.125 s, as the film's pictures
    _, frames = read_window(film, 0.0, 2.0, part, ['video'])
    assert shown(frames) == [6, 7, 8, 9]
    _, frames = read_window(film, 2.0, 1.0, part, ['video'])
    assert shown(frames) == [18, 19, 20, 21]
    _, frames = read_window(film, 2.5, 0.26, part, ['video'])
    assert shown(frames) == [20, 21, 21, 21]
