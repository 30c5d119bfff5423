"""The clips that rows are cut into, their examples, and why some are refused."""

import dataclasses
import hashlib
import io
import os
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.prepare import clips
from tests.data.film import DATA, GRID, MEDIA, SPRING, TOS, moving, silence, tone_from, write
from tests.data.prepare.rows import SMALL, SOUND, of_rows, row


def reasons(found):
    return [(outcome.id, outcome.reason) for outcome, _ in found]


def test_an_example_is_what_the_decoder_gives():
    ((outcome, example),) = of_rows([row(SPRING, start_s=1.0, labels=(2, 5))])
    waveform, frames = media.decode(MEDIA / SPRING, 1.0, ClipSpec(16_000, 1.0, 2, 32))
    assert outcome.id == example['id'] == f'{SPRING}@1.000' and outcome.reason == ''
    assert example['start_s'] == 1.0 and list(example['labels']) == [2, 5]
    assert example['source_hash'] == hashlib.sha256((MEDIA / SPRING).read_bytes()).hexdigest()
    np.testing.assert_array_equal(example['audio'], waveform)
    for data, frame in zip(example['frames'], frames, strict=True):
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (32, 32))
        assert np.abs(np.asarray(image).astype(int) - frame).mean() < 5


def test_jpeg_quality_and_size():
    def size(**changes):
        ((_, example),) = of_rows([row(SPRING, start_s=0.0)], dataclasses.replace(SMALL, **changes))
        assert Image.open(io.BytesIO(example['frames'][0])).width == changes['frame_size']
        return len(example['frames'][0])

    assert size(frame_size=64, jpeg_quality=50) < size(frame_size=64, jpeg_quality=95)


@pytest.mark.parametrize(
    ('changes', 'starts'),
    [
        ({}, [0.0, 1.0, 2.0, 3.0]),
        ({'duration_s': 2.0}, [0.0, 1.0]),
        ({'start_s': 1.5}, [1.5]),
        ({'start_s': 0.5, 'duration_s': 2.0}, [0.5, 1.5]),
    ],
)
def test_a_row_is_cut_into_clips(changes, starts):
    found = of_rows([row(SPRING, **changes)])
    assert [example['start_s'] for _, example in found] == starts
    assert [outcome.id for outcome, _ in found] == [f'{SPRING}@{start:.3f}' for start in starts]


def test_a_start_beyond_the_end_is_ignored_and_noted():
    ((outcome, example),) = of_rows([row(GRID, start_s=100.0, duration_s=1.0)])
    assert example['start_s'] == 0.0 and outcome.id == f'{GRID}@0.000'
    assert outcome.note == clips.START_IGNORED


def test_overlapping_rows_are_written_once():
    found = of_rows([row(SPRING, duration_s=2.0), row(SPRING, start_s=1.0)])
    assert [outcome.reason for outcome, _ in found] == ['', '', 'repeated']


@pytest.mark.parametrize(
    ('start_s', 'in_file'),
    [(30.0, 0.0), (1.0, 1.0), (0.0, 0.0)],  # cut already; the whole video; either
)
def test_a_segment_is_found_in_a_cut_file_and_in_the_whole_video(start_s, in_file):
    segment = row(TOS, name='-_abcdefgh0', start_s=start_s, duration_s=4.0, is_segment=True)
    settings = dataclasses.replace(SMALL, seconds=4.0)
    ((outcome, example),) = of_rows([segment], settings)
    assert outcome.id == f'-_abcdefgh0@{start_s:.3f}' and example['start_s'] == start_s
    waveform, _ = media.decode(MEDIA / TOS, in_file, ClipSpec(16_000, 4.0, 2, 32))
    np.testing.assert_array_equal(example['audio'], waveform)


def test_a_video_that_ends_before_its_segment_is_refused():
    segment = row(TOS, name='-_abcdefgh0', start_s=30.0, duration_s=1.0, is_segment=True)
    ((outcome, example),) = of_rows([segment])
    assert example is None and outcome.reason.startswith('too short: the file lasts 6')


def test_a_sound_has_its_own_length():
    file = 'audio/2-118072-A-0.flac'
    ((_, example),) = of_rows([row(file)], SOUND, DATA / 'esc10')
    with av.open(str(DATA / 'esc10' / file)) as container:
        expected = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    np.testing.assert_array_equal(example['audio'], expected)
    assert len(example['frames']) == 0


def test_one_modality_is_enough_where_one_is_wanted(tmp_path):
    write(tmp_path / 'mute.mp4', moving())
    write(tmp_path / 'dark.mp4', sound=tone_from(0, 2))
    rows = [row('mute.mp4', start_s=0.0), row('dark.mp4', start_s=0.0)]

    def read(*modalities):
        return of_rows(rows, dataclasses.replace(SMALL, modalities=modalities), tmp_path)

    (_, sound), (_, film) = read('audio')[1], read('video')[0]
    assert len(sound['frames']) == 0 and len(sound['audio']) == 16_000
    assert len(film['frames']) == 2 and len(film['audio']) == 0
    assert [outcome.reason for outcome, _ in read('audio', 'video')] == ['no audio', 'no video']
    assert [outcome.reason for outcome, _ in read('audio')] == ['no audio', '']
    assert [outcome.reason for outcome, _ in read('video')] == ['', 'no video']


def test_every_reason(tmp_path):
    shutil.copy(MEDIA / SPRING, tmp_path / 'good.mp4')
    (tmp_path / 'broken.mp4').write_bytes((MEDIA / SPRING).read_bytes()[:3000])
    write(tmp_path / 'mute.mp4', moving())
    write(tmp_path / 'dark.mp4', sound=tone_from(0, 2))
    write(tmp_path / 'silent.mp4', moving(), silence(2))
    write(tmp_path / 'still.mp4', moving()[:1] * 16, tone_from(0, 2))
    names = ['good.mp4', 'broken.mp4', 'mute.mp4', 'dark.mp4', 'silent.mp4', 'still.mp4', 'gone.mp4']
    strict = dataclasses.replace(SMALL, keep=())
    found = of_rows([*(row(name, start_s=0.0) for name in names), row('id', file=None)], strict, tmp_path)
    assert [outcome.reason.partition(':')[0] for outcome, _ in found] == [
        '', 'unreadable', 'no audio', 'no video', 'silent', 'still picture', 'missing', 'missing',
    ]  # fmt: skip
    long = dataclasses.replace(SMALL, seconds=10.0)
    assert reasons(of_rows([row('good.mp4')], long, tmp_path)) == [
        ('good.mp4@0.000', 'too short: 4.00 s for a clip of 10 s')
    ]


def test_what_is_no_file_is_missing_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / 'pipe.mp4')
    (tmp_path / 'folder.mp4').mkdir()
    found = of_rows([row('pipe.mp4'), row('folder.mp4')], root=tmp_path)
    assert [outcome.reason for outcome, _ in found] == ['missing', 'missing']


def test_silent_and_still_clips_can_be_kept(tmp_path):
    write(tmp_path / 'silent.mp4', moving(), silence(2))
    write(tmp_path / 'still.mp4', moving()[:1] * 16, tone_from(0, 2))
    rows = [row('silent.mp4', start_s=0.0), row('still.mp4', start_s=0.0)]
    (_, silent), (_, still) = of_rows(rows, dataclasses.replace(SMALL, keep=('silent', 'still')), tmp_path)
    assert not silent['audio'].any() and silent['audio'].shape == (16_000,) and len(silent['frames']) == 2
    assert still['audio'].any()
    ((outcome, _), _) = of_rows(rows, dataclasses.replace(SMALL, keep=('still',)), tmp_path)
    assert outcome.reason == 'silent'
