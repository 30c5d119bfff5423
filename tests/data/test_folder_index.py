"""Which clips a folder has: how it is searched, listed, cut and split."""

import shutil

import numpy as np
import pytest

from diffmavil_jax.data.clip import NO_LABEL, ClipSpec, DataError, Refusal
from diffmavil_jax.data.listings.local import unit_hash
from tests.data.film import GRID, MEDIA, NASA, SPRING, TOS
from tests.data.folders import files, fill, ids, write_csv, write_silence


def test_files_are_found_below_the_folder_and_cut_into_clips(tmp_path, open_folder):
    (tmp_path / 'deep' / 'er').mkdir(parents=True)
    (tmp_path / '.hidden').mkdir()
    fill(tmp_path, b=SPRING)
    fill(tmp_path / 'deep' / 'er', a=TOS)
    fill(tmp_path / '.hidden', c=GRID)
    shutil.copy(MEDIA / GRID, tmp_path / '._c.mp4')
    shutil.copy(MEDIA / GRID, tmp_path / 'UPPER.MP4')
    (tmp_path / 'notes.txt').write_text('not media')

    sources = open_folder(tmp_path)

    everything = sorted(ids(sources.train) + ids(sources.eval))
    assert everything == sorted(
        [f'UPPER.MP4@{i}.000' for i in range(3)]
        + [f'b.mp4@{i}.000' for i in range(4)]
        + [f'deep/er/a.webm@{i}.000' for i in range(6)]
    )
    assert not set(files(sources.train)) & set(files(sources.eval))
    assert sources.train.counts['clips'] + sources.eval.counts['clips'] == 13
    assert sources.train.counts['files'] + sources.eval.counts['files'] == 3
    assert sources.train.counts['seconds'] == len(sources.train) * 1.0


@pytest.mark.parametrize(('seconds', 'clips'), [(1.0, 3), (1.5, 2), (1.6, 1), (2.0, 1), (3.25, 1)])
def test_a_remainder_is_dropped_and_a_tenth_is_padded(tmp_path, open_folder, seconds, clips):
    fill(tmp_path, a=GRID, b=GRID)  # 2.98 s of sound
    sources = open_folder(tmp_path, ClipSpec(16_000, seconds, 2, 16))
    assert len(sources.train) == len(sources.eval) == clips
    assert sources.train[clips - 1]['waveform'].shape == (round(seconds * 16_000),)


def test_a_file_too_short_for_a_clip_is_refused(tmp_path, open_folder):
    fill(tmp_path, a=GRID, b=SPRING, c=TOS)
    sources = open_folder(tmp_path, ClipSpec(16_000, 3.5, 2, 16))
    refusals = sources.train.refused() + sources.eval.refused()
    assert refusals == [Refusal('a.mp4', 'too short: 2.98 s for a clip of 3.5 s')]


def test_the_hash_of_the_name_splits():
    """A literal: a change here would mix the train and held-out clips of everyone's runs."""
    names = [f'clips/{i:03d}.mp4' for i in range(20)]
    assert [i for i, name in enumerate(names) if unit_hash(name) < 0.25] == [2, 4, 16, 18]
    many = [unit_hash(f'{i}.mp4') for i in range(4_000)]
    assert np.mean(np.array(many) < 0.1) == pytest.approx(0.1, abs=0.015)


def test_files_stay_in_their_part_when_others_come(tmp_path, open_folder):
    fill(tmp_path, **{f'clip{i}': GRID for i in range(8)})
    before = open_folder(tmp_path, eval_fraction=0.5)
    fill(tmp_path, **{f'more{i}': GRID for i in range(8)})
    after = open_folder(tmp_path, eval_fraction=0.5)
    assert set(files(before.train)) < set(files(after.train))
    assert set(files(before.eval)) < set(files(after.eval))
    assert before.notes == ()


def test_one_usable_file_at_least_is_held_out(tmp_path, open_folder):
    fill(tmp_path, a=GRID, b=SPRING)
    for fraction in (1e-9, 1 - 1e-9):
        sources = open_folder(tmp_path, eval_fraction=fraction)
        assert len(files(sources.train)) == len(files(sources.eval)) == 1
        assert 'the hash of the names held out' in sources.notes[0]
    write_silence(tmp_path / 'c.mp4')
    write_silence(tmp_path / 'd.mp4')
    for fraction in (1e-9, 1 - 1e-9):
        sources = open_folder(tmp_path, eval_fraction=fraction, max_bad_fraction=1.0)
        assert len(set(ids(sources.train))) >= 3 and len(set(ids(sources.eval))) >= 3

    (tmp_path / 'alone').mkdir()
    with pytest.raises(DataError, match='at least two usable files'):
        open_folder(fill(tmp_path / 'alone', a=SPRING))


def test_a_csv_says_split_and_label(tmp_path, open_folder):
    fill(tmp_path, a=GRID, b=SPRING, c=NASA, d=TOS)
    write_csv(
        tmp_path, 'path,split,label\na.mp4,train,speech\nb.mp4,TEST,film\nc.mp4,val,\nd.webm,train,film\n'
    )
    sources = open_folder(tmp_path)
    assert files(sources.train) == ['a.mp4', 'd.webm']
    assert files(sources.eval) == ['b.mp4', 'c.mp4']
    assert sources.train.label_names == sources.eval.label_names == ('film', 'speech')
    assert [sources.train[i]['label'] for i in (0, 5)] == [1, 0]
    assert sources.train.factors(0) == {'label': 1}
    assert sources.eval[5]['label'] == NO_LABEL
    assert sources.notes == ()


def test_a_csv_without_split_is_split_by_the_hash(tmp_path, open_folder):
    fill(tmp_path, **{f'clip{i}': GRID for i in range(6)})
    plain = open_folder(tmp_path, eval_fraction=0.5)
    write_csv(tmp_path, 'path\n' + ''.join(f'clip{i}.mp4\n' for i in range(5)))
    listed = open_folder(tmp_path, eval_fraction=0.5)
    assert set(files(plain.eval)) - {'clip5.mp4'} == set(files(listed.eval))
    assert plain.train.factors(0) == {}


def test_start_and_duration_are_a_stretch_of_the_file(tmp_path, open_folder):
    fill(tmp_path, a=TOS, b=SPRING)
    write_csv(
        tmp_path,
        'path,split,start_s,duration_s\na.webm,train,0.5,2.2\na.webm,train,3.25,\nb.mp4,val,,2\nb.mp4,val,3,9\n',
    )
    sources = open_folder(tmp_path)
    assert ids(sources.train) == ['a.webm@0.500', 'a.webm@1.500', 'a.webm@3.250']
    assert ids(sources.eval) == ['b.mp4@0.000', 'b.mp4@1.000', 'b.mp4@3.000']


def test_a_start_beyond_the_end_is_ignored_and_noted(tmp_path, open_folder):
    fill(tmp_path, a=SPRING, b=SPRING, c=NASA, d=NASA)
    rows = 'a.mp4,train,0.000,4\nb.mp4,train,4.000,4\nc.mp4,test,120,2\nd.mp4,test,3.5,4\n'
    sources = open_folder(write_csv(tmp_path, 'path,split,start_s,duration_s\n' + rows))
    assert ids(sources.train) == [f'{name}.mp4@{i}.000' for name in 'ab' for i in range(4)]
    assert ids(sources.eval) == ['c.mp4@0.000', 'c.mp4@1.000']
    assert sources.eval.refused() == [Refusal('d.mp4@3.500', 'too short: 0.50 s for a clip of 1 s')]
    (note,) = sources.notes
    assert 'beyond the end of the file in 2 of 4 rows' in note
    assert 'b.mp4: start_s 4, length 4.00 s' in note


def test_a_clip_in_two_rows_is_taken_once_and_noted(tmp_path, open_folder):
    fill(tmp_path, a=SPRING, b=NASA)
    sources = open_folder(write_csv(tmp_path, 'path,split\na.mp4,train\na.mp4,train\nb.mp4,val\n'))
    assert ids(sources.train) == [f'a.mp4@{i}.000' for i in range(4)]
    assert sources.notes == ('4 clips are in several rows and were taken once, from the first',)


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        (
            'path,split\na.mp4,train\nb.mp4,dev\n',
            "line 3: split = 'dev': must be one of train; or, held out, val,",
        ),
        ('path,split\na.mp4,train\nb.mp4\n', 'line 3: 1 values, not 2: path, split'),
        ('path,split\na.mp4,train\n../b.mp4,val\n', 'line 3: path = .* must be below the input folder'),
        ('path,split\na.mp4,train\n/b.mp4,val\n', 'line 3: path = .* must be below the input folder'),
        ('path,split\na.mp4,train\n,val\n', 'line 3: path = .* must be below the input folder'),
        ('path,start_s\na.mp4,soon\n', "line 2: start_s = 'soon': must be a number of seconds"),
        ('path,start_s\na.mp4,-1\n', "line 2: start_s = '-1'"),
        ('path,duration_s\na.mp4,inf\n', "line 2: duration_s = 'inf'"),
        ('path,split\na.mp4,train\na.mp4,val\n', 'line 3: a.mp4 is in train too'),
        ('path,split\n', 'has no rows'),
        (
            'path,split\na.mp4,train\nb.mp4,train\n',
            'no usable held-out clip: the CSV needs rows with split val',
        ),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused(tmp_path, open_folder, text, error):
    fill(tmp_path, a=GRID, b=GRID)
    with pytest.raises(DataError, match=error):
        open_folder(write_csv(tmp_path, text))


def test_which_csv_is_the_list(tmp_path, open_folder):
    fill(tmp_path, a=GRID, b=GRID)
    write_csv(tmp_path, 'name,score\nx,1\n', 'scores.csv')
    assert len(open_folder(tmp_path).train) == 3
    write_csv(tmp_path, 'path,transcript\na.mp4,bin blue\n', 'words.csv')
    write_csv(tmp_path, '\ufeffpath, split\na.mp4, val\nb.mp4, train\n', 'list.csv')
    assert files(open_folder(tmp_path).eval) == ['a.mp4']
    write_csv(tmp_path, 'path,label\na.mp4,x\n', 'other.csv')
    with pytest.raises(DataError, match='list.csv, other.csv in .* all have a path column: leave one'):
        open_folder(tmp_path)
    (tmp_path / 'other.csv').write_bytes(b'path\n\xff\xfe.mp4\n')
    (tmp_path / 'list.csv').write_bytes(b'path,split\n\xff\xfe.mp4,train\n')
    with pytest.raises(DataError, match="can't be read as text in UTF-8"):
        open_folder(tmp_path)


def test_a_folder_without_media_is_named(tmp_path, open_folder):
    with pytest.raises(DataError, match=r'absent is not a folder \(config.data.path\)'):
        open_folder(tmp_path / 'absent')
    with pytest.raises(DataError, match='No media in .*: looked in it and below for .*.mkv.*CSV'):
        open_folder(tmp_path)
    (tmp_path / 'readme.txt').write_text('none here')
    with pytest.raises(DataError, match='No media in '):
        open_folder(tmp_path)


def test_a_sub_folder_is_a_class_where_classes_are_wanted(tmp_path, open_folder):
    for name in ('cats', 'dogs'):
        (tmp_path / name / 'deep').mkdir(parents=True)
        for i in range(4):
            shutil.copy(MEDIA / SPRING, tmp_path / name / 'deep' / f'{i}.mp4')
    sources = open_folder(tmp_path, folder_labels=True, eval_fraction=0.3)
    assert sources.train.label_names == ('cats', 'dogs') == sources.eval.label_names
    for part in (sources.train, sources.eval):
        for i in range(len(part)):
            clip = part[i]
            assert clip['id'].startswith(part.label_names[clip['label']])
            assert part.labels(i).tolist() == [clip['label']]
    assert open_folder(tmp_path).train.label_names == ()

    shutil.copy(MEDIA / SPRING, tmp_path / 'stray.mp4')
    with pytest.raises(DataError, match='stray.mp4 is in no sub-folder, which must name its class'):
        open_folder(tmp_path, folder_labels=True)
