"""The folder source on a few real clips: how it splits, cuts, refuses, replaces and remembers."""

import concurrent.futures
import pathlib
import pickle
import shutil

import av
import numpy as np
import pytest

from diffmavil_jax.data import folder
from diffmavil_jax.data.clip import NO_LABEL, ClipSpec, DataError, Refusal
from diffmavil_jax.data.listings.local import unit_hash
from diffmavil_jax.data.sandbox import DecodePool

DECODERS = DecodePool(2)
MEDIA = pathlib.Path(__file__).parent / 'media'
SPEC = ClipSpec(sample_rate=16_000, seconds=1.0, frames=2, frame_size=16)
SPRING, NASA, GRID, TOS = 'spring_0004.mp4', 'nasajwst_0000.mp4', 'grid-brbk7n_0000.mp4', 'tos_battle.webm'


@pytest.fixture(scope='module', autouse=True)
def decoders_end():
    """Other tests count the processes that there are."""
    yield
    DECODERS.close()


def open_folder(path, spec=SPEC, *, eval_fraction=0.1, max_bad_fraction=0.5, cache_bytes=1 << 24, **options):
    return folder.open_folder(
        path,
        spec,
        eval_fraction=eval_fraction,
        max_bad_fraction=max_bad_fraction,
        cache_bytes=cache_bytes,
        decoders=DECODERS,
        **options,
    )


def fill(root, **files):
    """Copies real files under new names: stem=original."""
    for stem, original in files.items():
        shutil.copy(MEDIA / original, root / f'{stem}{pathlib.Path(original).suffix}')
    return root


def damage(path):
    """Blanks the second half of the media data and leaves the headers as they are."""
    data = bytearray(path.read_bytes())
    headers, begin = data.index(b'moov'), data.index(b'mdat') + 4
    end = headers if headers > begin else len(data)
    middle = (begin + end) // 2
    data[middle:end] = bytes(end - middle)
    path.write_bytes(data)


def silence(path, seconds=4):
    with av.open(str(path), 'w') as container:
        video = container.add_stream('mpeg4', rate=8)
        video.height = video.width = 32
        video.pix_fmt = 'yuv420p'
        audio = container.add_stream('aac', rate=16_000, layout='mono')
        for _ in range(seconds * 8):
            container.mux(
                video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format='rgb24'))
            )
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, seconds * 16_000), np.float32), format='fltp', layout='mono'
        )
        sound.sample_rate = 16_000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def ids(source):
    return [source[i]['id'] for i in range(len(source))]


def files(source):
    return sorted({clip.split('@')[0] for clip in ids(source)})


def test_files_are_found_below_the_folder_and_cut_into_clips(tmp_path):
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


def test_a_clip_has_the_promised_shapes_and_is_read_only(tmp_path):
    clip = open_folder(fill(tmp_path, a=SPRING, b=NASA)).train[0]
    assert clip['waveform'].shape == (16_000,) and clip['waveform'].dtype == np.int16
    assert clip['frames'].shape == (2, 16, 16, 3) and clip['frames'].dtype == np.uint8
    assert clip['label'] == NO_LABEL
    with pytest.raises(ValueError, match='read-only'):
        clip['frames'][:] = 0


def test_consecutive_clips_are_consecutive(tmp_path):
    short, long = (ClipSpec(16_000, seconds, 2, 16) for seconds in (1.0, 3.0))
    fill(tmp_path, a=SPRING, b=NASA)
    pieces = open_folder(tmp_path, short).train
    whole = open_folder(tmp_path, long).train
    joined = np.concatenate([pieces[i]['waveform'] for i in range(3)])
    np.testing.assert_allclose(joined.astype(int), whole[0]['waveform'], atol=2)


@pytest.mark.parametrize(('seconds', 'clips'), [(1.0, 3), (1.5, 2), (1.6, 1), (2.0, 1), (3.25, 1)])
def test_a_remainder_is_dropped_and_a_tenth_is_padded(tmp_path, seconds, clips):
    fill(tmp_path, a=GRID, b=GRID)  # 2.98 s of sound
    sources = open_folder(tmp_path, ClipSpec(16_000, seconds, 2, 16))
    assert len(sources.train) == len(sources.eval) == clips
    assert sources.train[clips - 1]['waveform'].shape == (round(seconds * 16_000),)


def test_a_file_too_short_for_a_clip_is_refused(tmp_path):
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


def test_files_stay_in_their_part_when_others_come(tmp_path):
    fill(tmp_path, **{f'clip{i}': GRID for i in range(8)})
    before = open_folder(tmp_path, eval_fraction=0.5)
    fill(tmp_path, **{f'more{i}': GRID for i in range(8)})
    after = open_folder(tmp_path, eval_fraction=0.5)
    assert set(files(before.train)) < set(files(after.train))
    assert set(files(before.eval)) < set(files(after.eval))
    assert before.notes == ()


def test_one_usable_file_at_least_is_held_out(tmp_path):
    fill(tmp_path, a=GRID, b=SPRING)
    for fraction in (1e-9, 1 - 1e-9):
        sources = open_folder(tmp_path, eval_fraction=fraction)
        assert len(files(sources.train)) == len(files(sources.eval)) == 1
        assert 'the hash of the names held out' in sources.notes[0]
    silence(tmp_path / 'c.mp4')
    silence(tmp_path / 'd.mp4')
    for fraction in (1e-9, 1 - 1e-9):
        sources = open_folder(tmp_path, eval_fraction=fraction, max_bad_fraction=1.0)
        assert len(set(ids(sources.train))) >= 3 and len(set(ids(sources.eval))) >= 3

    (tmp_path / 'alone').mkdir()
    with pytest.raises(DataError, match='at least two usable files'):
        open_folder(fill(tmp_path / 'alone', a=SPRING))


def write_csv(root, text, name='list.csv'):
    (root / name).write_text(text)
    return root


def test_a_csv_says_split_and_label(tmp_path):
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


def test_a_csv_without_split_is_split_by_the_hash(tmp_path):
    fill(tmp_path, **{f'clip{i}': GRID for i in range(6)})
    plain = open_folder(tmp_path, eval_fraction=0.5)
    write_csv(tmp_path, 'path\n' + ''.join(f'clip{i}.mp4\n' for i in range(5)))
    listed = open_folder(tmp_path, eval_fraction=0.5)
    assert set(files(plain.eval)) - {'clip5.mp4'} == set(files(listed.eval))
    assert plain.train.factors(0) == {}


def test_start_and_duration_are_a_stretch_of_the_file(tmp_path):
    fill(tmp_path, a=TOS, b=SPRING)
    write_csv(
        tmp_path,
        'path,split,start_s,duration_s\na.webm,train,0.5,2.2\na.webm,train,3.25,\nb.mp4,val,,2\nb.mp4,val,3,9\n',
    )
    sources = open_folder(tmp_path)
    assert ids(sources.train) == ['a.webm@0.500', 'a.webm@1.500', 'a.webm@3.250']
    assert ids(sources.eval) == ['b.mp4@0.000', 'b.mp4@1.000', 'b.mp4@3.000']


def test_a_start_beyond_the_end_is_ignored_and_noted(tmp_path):
    fill(tmp_path, a=SPRING, b=SPRING, c=NASA, d=NASA)
    rows = 'a.mp4,train,0.000,4\nb.mp4,train,4.000,4\nc.mp4,test,120,2\nd.mp4,test,3.5,4\n'
    sources = open_folder(write_csv(tmp_path, 'path,split,start_s,duration_s\n' + rows))
    assert ids(sources.train) == [f'{name}.mp4@{i}.000' for name in 'ab' for i in range(4)]
    assert ids(sources.eval) == ['c.mp4@0.000', 'c.mp4@1.000']
    assert sources.eval.refused() == [Refusal('d.mp4@3.500', 'too short: 0.50 s for a clip of 1 s')]
    (note,) = sources.notes
    assert 'beyond the end of the file in 2 of 4 rows' in note
    assert 'b.mp4: start_s 4, length 4.00 s' in note


def test_a_clip_in_two_rows_is_taken_once_and_noted(tmp_path):
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
        ('path,split\na.mp4,train\nb.mp4\n', "line 3: split = ''"),
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
def test_a_csv_that_cannot_be_meant_is_refused(tmp_path, text, error):
    fill(tmp_path, a=GRID, b=GRID)
    with pytest.raises(DataError, match=error):
        open_folder(write_csv(tmp_path, text))


def test_which_csv_is_the_list(tmp_path):
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


def test_a_folder_without_media_is_named(tmp_path):
    with pytest.raises(DataError, match=r'absent is not a folder \(config.data.path\)'):
        open_folder(tmp_path / 'absent')
    with pytest.raises(DataError, match='No media in .*: looked in it and below for .*.mkv.*CSV'):
        open_folder(tmp_path)
    (tmp_path / 'readme.txt').write_text('none here')
    with pytest.raises(DataError, match='No media in '):
        open_folder(tmp_path)


def bad_folder(root):
    """Three good files and, in the training part, five that are refused when the folder is opened."""
    fill(root, a=GRID, b=SPRING, c=NASA)
    (root / 'empty.mp4').touch()
    (root / 'garbage.webm').write_bytes(b'garbage' * 1_000)
    for name, kind in (('mute.mkv', 'audio'), ('blind.mkv', 'video')):
        with av.open(str(root / name), 'w') as target, av.open(str(MEDIA / SPRING)) as source:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams if s.type != kind}
            for packet in source.demux([s for s in source.streams if s.index in streams]):
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
    names = ['a.mp4', 'b.mp4', 'blind.mkv', 'empty.mp4', 'garbage.webm', 'gone.mp4', 'mute.mkv']
    return write_csv(root, 'path,split\nc.mp4,val\n' + ''.join(f'{name},train\n' for name in names))


def test_bad_files_are_refused_with_their_reasons_when_the_folder_is_opened(tmp_path):
    sources = open_folder(bad_folder(tmp_path))
    assert sources.train.refused() == [
        Refusal('blind.mkv', 'no video'),
        Refusal('empty.mp4', 'unreadable: empty file'),
        Refusal('garbage.webm', 'unreadable: Invalid data found when processing input'),
        Refusal('gone.mp4', 'unreadable: no such file'),
        Refusal('mute.mkv', 'no audio'),
    ]
    assert sources.eval.refused() == []
    assert files(sources.train) == ['a.mp4', 'b.mp4']


def test_too_many_bad_files_stop_the_run(tmp_path):
    bad_folder(tmp_path)
    open_folder(tmp_path, max_bad_fraction=5 / 16)  # 11 clips and 5 refused files
    with pytest.raises(DataError, match='raise config.data.max_bad_fraction') as caught:
        open_folder(tmp_path, max_bad_fraction=5 / 16 - 1e-6)
    assert '5 of 16 clips in ' in str(caught.value)
    assert 'blind.mkv: no video; empty.mp4: unreadable: empty file; ' in str(caught.value)
    with pytest.raises(DataError, match='max_bad_fraction = 0:'):
        open_folder(tmp_path, max_bad_fraction=0.0)


def damaged_folder(root):
    """`b` is whole in its headers and broken in its second half; `z` is held out."""
    fill(root, a=SPRING, b=SPRING, c=NASA, z=GRID)
    damage(root / 'b.mp4')
    return write_csv(root, 'path,split\na.mp4,train\nb.mp4,train\nc.mp4,train\nz.mp4,val\n')


def test_a_clip_that_does_not_decode_is_replaced_by_the_next(tmp_path):
    source = open_folder(damaged_folder(tmp_path)).train
    assert source.refused() == []
    taken = ids(source)
    bad = [refusal.path for refusal in source.refused()]
    assert bad and set(bad) <= {f'b.mp4@{i}.000' for i in range(4)} and 'b.mp4@3.000' in bad
    wanted = [f'{name}.mp4@{i}.000' for name in 'abc' for i in range(4)]
    assert taken == [next(w for w in wanted[i:] if w not in bad) for i in range(12)]
    assert all(refusal.reason for refusal in source.refused())
    assert ids(source) == taken and len(source.refused()) == len(bad)
    # Whatever is read first, item i is the same.
    backwards = open_folder(tmp_path).train
    assert [backwards[i]['id'] for i in reversed(range(12))][::-1] == taken


def test_the_last_clips_are_replaced_by_the_first(tmp_path):
    fill(tmp_path, a=GRID, z=GRID)
    silence(tmp_path / 'b.mp4')
    write_csv(tmp_path, 'path,split,label\na.mp4,train,x\nb.mp4,train,y\nz.mp4,val,x\n')
    source = open_folder(tmp_path, max_bad_fraction=0.6).train
    assert source.factors(6) == {'label': 0}
    assert source[6]['id'] == 'a.mp4@0.000'
    assert source.refused() == [Refusal('b.mp4@3.000', 'silent')]


def test_too_many_clips_that_do_not_decode_stop_the_run(tmp_path):
    damaged_folder(tmp_path)
    tolerant = open_folder(tmp_path).train
    ids(tolerant)
    bad = len(tolerant.refused())
    strict = open_folder(tmp_path, max_bad_fraction=(bad - 0.5) / 15).train
    with pytest.raises(DataError, match=rf'{bad} of 15 clips .*b.mp4@.*raise config.data.max_bad_fraction'):
        ids(strict)


def test_nothing_usable_is_an_error_even_when_all_may_be_bad(tmp_path):
    fill(tmp_path, z=GRID)
    silence(tmp_path / 'a.mp4')
    write_csv(tmp_path, 'path,split\na.mp4,train\nz.mp4,val\n')
    source = open_folder(tmp_path, max_bad_fraction=1.0).train
    with pytest.raises(DataError, match='No clip of 4 from .* can be used: a.mp4@0.000: silent'):
        source[2]


def test_the_cache_changes_nothing_and_keeps_its_size(tmp_path, monkeypatch):
    damaged_folder(tmp_path)
    clip_bytes = 16_000 * 2 + 2 * 16 * 16 * 3
    plain = open_folder(tmp_path, cache_bytes=0).train
    cached = open_folder(tmp_path, cache_bytes=3 * clip_bytes + 1).train
    for _ in range(2):
        for i in range(len(plain)):
            assert plain[i]['id'] == cached[i]['id']
            np.testing.assert_array_equal(plain[i]['waveform'], cached[i]['waveform'])
            np.testing.assert_array_equal(plain[i]['frames'], cached[i]['frames'])

    decoded = []
    decode = DECODERS.decode
    monkeypatch.setattr(DECODERS, 'decode', lambda *args: decoded.append(args[1]) or decode(*args))
    for i in range(4):
        cached[i]
    assert decoded == [3.0]


def test_threads_get_what_one_thread_gets(tmp_path):
    alone = open_folder(damaged_folder(tmp_path), cache_bytes=0).train
    shared = open_folder(tmp_path).train
    order = [i % len(alone) for i in range(0, 7 * 24, 7)]
    expected = [alone[i] for i in order]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(shared.__getitem__, order))
    for one, other in zip(expected, got, strict=True):
        assert one['id'] == other['id']
        np.testing.assert_array_equal(one['waveform'], other['waveform'])
        np.testing.assert_array_equal(one['frames'], other['frames'])
    assert shared.refused() == alone.refused()


def test_an_index_outside_is_an_error(tmp_path):
    source = open_folder(fill(tmp_path, a=GRID, b=GRID)).train
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


def test_a_copy_in_another_process_reads_the_same_with_a_cache_of_its_own(tmp_path):
    source = open_folder(fill(tmp_path, a=GRID, b=GRID, c=SPRING)).train
    expected = [source[i] for i in range(len(source))]
    copy = pickle.loads(pickle.dumps(source))
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix('.gone'))
    assert ids(source) == [clip['id'] for clip in expected], 'from the cache'
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix('.mp4'))
    for i, clip in enumerate(expected):
        np.testing.assert_equal(copy[i], clip)
    copy._reader.decoders.close()


def test_a_sub_folder_is_a_class_where_classes_are_wanted(tmp_path):
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
    with pytest.raises(DataError, match='stray.mp4 is in no sub-folder, which is to name its class'):
        open_folder(tmp_path, folder_labels=True)


def test_sound_alone_is_enough_where_only_sound_is_wanted(tmp_path):
    for i in range(4):
        shutil.copy(MEDIA.parent / 'sounds' / 't-rex-roar.mp3', tmp_path / f'{i}.mp3')
    sources = open_folder(tmp_path, eval_fraction=0.5, modalities=('audio',))
    assert sources.train.modalities == ('audio',)
    clip = sources.train[0]
    assert 'frames' not in clip and clip['waveform'].shape == (16_000,)
    with pytest.raises(DataError, match='no video'):
        open_folder(tmp_path)
