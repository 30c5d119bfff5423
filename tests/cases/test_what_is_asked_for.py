"""What is asked for decides how long a file is, and which of several files is read."""

import numpy as np
import pytest

from diffmavil_jax.data import media
from diffmavil_jax.data.prepare.clips import Clips
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.prepare.work import Job
from diffmavil_jax.data.windows import Reader, Window
from tests.cases.making import film, listed, outcomes, tone
from tests.data.film import SPEC
from tests.data.folders import SPEC as ONE_SECOND
from tests.data.prepare.rows import InProcess

FILMS = Settings(seconds=10.0, frames=2, frame_size=32, keep=('still',))
HEARD = Settings(modalities=('audio',), seconds=2.0)


@pytest.mark.parametrize('modality', ['audio', 'auto'])
def test_sound_with_one_picture_is_as_long_as_its_sound(tmp_path, modality):
    path = film(tmp_path / 'cover.mkv', 1 / 8, sound_s=10.0)
    found = list(Reader(SPEC, ('audio', 'video'), modality, 1).windows([str(path)], 2))
    windows = [item for item in found if isinstance(item, Window)]
    assert [window.start_s for window in windows] == [0, 2, 4, 6, 8]
    assert all(window.samples == 32_000 and window.frames is None for window in windows)


def test_prepare_cuts_sound_with_one_picture(tmp_path):
    film(tmp_path / 'cover.mkv', 1 / 8, sound_s=10.0)
    assert [outcome.reason for outcome in outcomes('folder', tmp_path, HEARD)] == [''] * 5
    (whole,) = outcomes('folder', tmp_path, Settings(modalities=('audio',), seconds=None))
    assert whole.seconds == pytest.approx(10.0, abs=0.1)


def test_training_on_sound_cuts_a_file_by_its_sound(tmp_path, open_folder):
    for name in ('a.mkv', 'b.mkv'):
        film(tmp_path / name, 1.0, sound_s=4.0)
    sources = open_folder(tmp_path, ONE_SECOND, modalities=('audio',))
    assert len(sources.train) == len(sources.eval) == 4
    assert len(open_folder(tmp_path, ONE_SECOND).train) == 1


def vggsound(root):
    (root / 'vggsound.csv').write_text('-XxUW9gW6mc,60,wind,train\n')
    return root


@pytest.mark.parametrize(
    ('sound', 'picture'),
    [
        ('audio/-XxUW9gW6mc_60000_70000.wav', 'video/-XxUW9gW6mc_60000_70000.mkv'),
        ('-XxUW9gW6mc.wav', '-XxUW9gW6mc.mkv'),
        ('a/-XxUW9gW6mc_60_70.wav', 'b/Y-XxUW9gW6mc.mkv'),
    ],
)
def test_the_file_that_has_what_is_wanted_is_read(tmp_path, sound, picture):
    vggsound(tmp_path)
    tone(tmp_path / sound, 10.0)
    film(tmp_path / picture, 10.0, sound_s=10.0)
    (outcome,) = outcomes('vggsound', tmp_path, FILMS)
    assert (outcome.file, outcome.reason) == (picture, '')


def test_a_sound_beside_a_silent_film_is_found(tmp_path):
    vggsound(tmp_path)
    film(tmp_path / 'a' / '-XxUW9gW6mc.mkv', 10.0)
    tone(tmp_path / 'z' / '-XxUW9gW6mc.wav', 10.0)
    (outcome,) = outcomes('vggsound', tmp_path, Settings(modalities=('audio',)))
    assert (outcome.file, outcome.reason) == ('z/-XxUW9gW6mc.wav', '')


def audioset(root, start_s=0, end_s=10):
    (root / 'balanced_train_segments.csv').write_text(f'--aE2O5G5WE, {start_s}, {end_s}, "/m/03fwl"\n')
    (root / 'class_labels_indices.csv').write_text('index,mid,display_name\n0,/m/03fwl,Goat\n')
    return root


@pytest.mark.parametrize('seconds', [10.0, None])
def test_a_segment_without_most_of_its_sound_is_refused(tmp_path, seconds):
    film(audioset(tmp_path) / '--aE2O5G5WE.mkv', 10.0, sound_s=2.0)
    settings = Settings(seconds=seconds, frames=2, frame_size=32, keep=('still', 'silent'))
    for source in ('audioset', 'folder'):
        (outcome,) = outcomes(source, tmp_path, settings)
        assert outcome.reason.startswith('too short') or source == 'folder' and seconds is None


def test_a_clip_stays_within_its_segment(tmp_path):
    film(audioset(tmp_path, 2, 6) / '--aE2O5G5WE.mkv', 12.0, sound_s=12.0)
    (whole,) = outcomes('audioset', tmp_path, Settings(seconds=None, frames=2, frame_size=32))
    assert (whole.seconds, whole.reason) == (4.0, '')
    (outcome,) = outcomes('audioset', tmp_path, FILMS)
    assert outcome.reason == 'too short: a segment of 4 s for a clip of 10 s'


def test_a_file_that_is_named_by_its_start_is_the_segment(tmp_path):
    """Though it lasts long enough to have the segment's place in the video in it."""
    path = film(audioset(tmp_path, 1, 5) / '--aE2O5G5WE_1.mkv', 5.5, sound_s=5.5)
    settings = Settings(seconds=4.0, frames=2, frame_size=32)
    (row,) = listed('audioset', tmp_path).rows
    ((_, example),) = Clips(Job(str(tmp_path), settings), InProcess()).of_rows([row])
    beginning, _ = media.decode(path, 0.0, settings.spec(4.0))
    np.testing.assert_array_equal(example['audio'], beginning)
