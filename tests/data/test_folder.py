"""The clips of a folder: what is in them, what replaces bad ones, and what the cache keeps."""

import concurrent.futures
import pickle
import shutil

import av
import numpy as np
import pytest

from diffmavil_jax.data.clip import NO_LABEL, ClipSpec, DataError, Refusal
from diffmavil_jax.data.take import Take
from tests.data.film import DATA, GRID, MEDIA, NASA, SPRING, grey, shown, tone_from, write
from tests.data.folders import files, fill, ids, write_csv, write_silence


def damage(path):
    """Overwrites the second half of the media data with zeros, and leaves the headers as they are."""
    data = bytearray(path.read_bytes())
    headers, begin = data.index(b'moov'), data.index(b'mdat') + 4
    end = headers if headers > begin else len(data)
    middle = (begin + end) // 2
    data[middle:end] = bytes(end - middle)
    path.write_bytes(data)


def test_a_clip_has_the_promised_shapes_and_is_read_only(tmp_path, open_folder):
    clip = open_folder(fill(tmp_path, a=SPRING, b=NASA)).train[0]
    assert clip['waveform'].shape == (16_000,) and clip['waveform'].dtype == np.int16
    assert clip['frames'].shape == (2, 16, 16, 3) and clip['frames'].dtype == np.uint8
    assert clip['label'] == NO_LABEL
    with pytest.raises(ValueError, match='read-only'):
        clip['frames'][:] = 0


def test_consecutive_clips_are_consecutive(tmp_path, open_folder):
    short, long = (ClipSpec(16_000, seconds, 2, 16) for seconds in (1.0, 3.0))
    fill(tmp_path, a=SPRING, b=NASA)
    pieces = open_folder(tmp_path, short).train
    whole = open_folder(tmp_path, long).train
    joined = np.concatenate([pieces[i]['waveform'] for i in range(3)])
    np.testing.assert_allclose(joined.astype(int), whole[0]['waveform'], atol=2)


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


def test_bad_files_are_refused_with_their_reasons_when_the_folder_is_opened(tmp_path, open_folder):
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


def test_too_many_bad_files_stop_the_run(tmp_path, open_folder):
    bad_folder(tmp_path)
    open_folder(tmp_path, max_bad_fraction=5 / 16)  # 11 clips and 5 refused files
    with pytest.raises(DataError, match='raise config.data.max_bad_fraction') as caught:
        open_folder(tmp_path, max_bad_fraction=5 / 16 - 1e-6)
    assert '5 of 16 clips in ' in str(caught.value)
    assert 'blind.mkv: no video; empty.mp4: unreadable: empty file; ' in str(caught.value)
    with pytest.raises(DataError, match='max_bad_fraction = 0:'):
        open_folder(tmp_path, max_bad_fraction=0.0)


def damaged_folder(root):
    """`b` has good headers and a broken second half; `z` is held out."""
    fill(root, a=SPRING, b=SPRING, c=NASA, z=GRID)
    damage(root / 'b.mp4')
    return write_csv(root, 'path,split\na.mp4,train\nb.mp4,train\nc.mp4,train\nz.mp4,val\n')


def test_a_clip_that_does_not_decode_is_replaced_by_the_next(tmp_path, open_folder):
    source = open_folder(damaged_folder(tmp_path)).train
    assert source.refused() == []
    taken = ids(source)
    bad = [refusal.path for refusal in source.refused()]
    assert bad and set(bad) <= {f'b.mp4@{i}.000' for i in range(4)} and 'b.mp4@3.000' in bad
    wanted = [f'{name}.mp4@{i}.000' for name in 'abc' for i in range(4)]
    assert taken == [next(w for w in wanted[i:] if w not in bad) for i in range(12)]
    assert all(refusal.reason for refusal in source.refused())
    assert ids(source) == taken and len(source.refused()) == len(bad)
    # Item i is the same, whatever is read first.
    backwards = open_folder(tmp_path).train
    assert [backwards[i]['id'] for i in reversed(range(12))][::-1] == taken


def test_the_last_clips_are_replaced_by_the_first(tmp_path, open_folder):
    fill(tmp_path, a=GRID, z=GRID)
    write_silence(tmp_path / 'b.mp4')
    write_csv(tmp_path, 'path,split,label\na.mp4,train,x\nb.mp4,train,y\nz.mp4,val,x\n')
    source = open_folder(tmp_path, max_bad_fraction=0.6).train
    assert source.factors(6) == {'label': 0}
    assert source[6]['id'] == 'a.mp4@0.000'
    assert source.refused() == [Refusal('b.mp4@3.000', 'silent')]


def test_too_many_clips_that_do_not_decode_stop_the_run(tmp_path, open_folder):
    damaged_folder(tmp_path)
    tolerant = open_folder(tmp_path).train
    ids(tolerant)
    bad = len(tolerant.refused())
    strict = open_folder(tmp_path, max_bad_fraction=(bad - 0.5) / 15).train
    with pytest.raises(DataError, match=rf'{bad} of 15 clips .*b.mp4@.*raise config.data.max_bad_fraction'):
        ids(strict)


def test_nothing_usable_is_an_error_even_when_all_may_be_bad(tmp_path, open_folder):
    fill(tmp_path, z=GRID)
    write_silence(tmp_path / 'a.mp4')
    write_csv(tmp_path, 'path,split\na.mp4,train\nz.mp4,val\n')
    source = open_folder(tmp_path, max_bad_fraction=1.0).train
    with pytest.raises(DataError, match='No clip of 4 from .* can be used: a.mp4@0.000: silent'):
        source[2]


def test_the_cache_changes_nothing_and_keeps_its_size(tmp_path, open_folder, monkeypatch):
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
    decoders = cached._reader.decoders
    decode = decoders.decode
    monkeypatch.setattr(decoders, 'decode', lambda *args: decoded.append(args[1]) or decode(*args))
    for i in range(4):
        cached[i]
    assert decoded == [3.0]


def test_threads_get_what_one_thread_gets(tmp_path, open_folder):
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


def test_an_index_outside_is_an_error(tmp_path, open_folder):
    source = open_folder(fill(tmp_path, a=GRID, b=GRID)).train
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


def test_a_copy_in_another_process_reads_the_same_with_a_cache_of_its_own(tmp_path, open_folder):
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


def test_sound_alone_is_enough_where_only_sound_is_wanted(tmp_path, open_folder):
    for i in range(4):
        shutil.copy(DATA / 'sounds' / 't-rex-roar.mp3', tmp_path / f'{i}.mp3')
    sources = open_folder(tmp_path, eval_fraction=0.5, modalities=('audio',))
    assert sources.train.modalities == ('audio',)
    clip = sources.train[0]
    assert 'frames' not in clip and clip['waveform'].shape == (16_000,)
    with pytest.raises(DataError, match='no video'):
        open_folder(tmp_path)


def test_a_random_start_is_within_the_file_and_that_of_sound_and_pictures(tmp_path, open_folder):
    for name in 'ab':
        write(
            tmp_path / f'{name}.mkv',
            [grey(i) for i in range(32)],
            tone_from(2.0, 4) // 2 + tone_from(0, 4) // 9,
        )
    write_csv(tmp_path, 'path,split\na.mkv,train\nb.mkv,val\n')
    spec = ClipSpec(16_000, 1.5, 2, 16, video_seconds=0.5)
    source = open_folder(tmp_path, spec).train
    assert [source[i]['id'] for i in range(2)] == ['a.mkv@0.000', 'a.mkv@1.500']
    assert shown(source[0]['frames']) == [5, 7]  # at 0.625 and 0.875 s: the middle half second
    for i in range(2):
        for start, video in ((0.0, 0.0), (0.4, 1.0), (1.0, 0.5)):
            begin = 1.25 * (i + start)  # of 2.5 s that are spare, a half each
            clip = source.read(i, Take(start, video))
            times = begin + video + np.array([0.125, 0.375])
            assert shown(clip['frames']) == np.floor(8 * times).astype(int).tolist()
            loud = np.abs(clip['waveform'].astype(int)) > 3_000
            if begin < 2 < begin + 1.5:
                assert np.argmax(loud) / 16_000 == pytest.approx(2 - begin, abs=0.003)
            assert clip['id'] == source[i]['id']


def test_a_random_take_that_is_silent_gives_way_to_the_fixed_one(tmp_path, open_folder):
    sound = tone_from(0, 4) * (np.arange(4 * 48_000) < 48_000)
    for name in 'ab':
        write(tmp_path / f'{name}.mkv', [grey(i) for i in range(32)], sound.astype(np.int16))
    write_csv(tmp_path, 'path,split,start_s,duration_s\na.mkv,train,0,2\nb.mkv,val,0,2\n')
    source = open_folder(tmp_path, ClipSpec(16_000, 1.5, 2, 16)).train
    fixed = source[0]
    np.testing.assert_array_equal(
        source.read(0, Take(start=1.0))['waveform'][:8_000], fixed['waveform'][8_000:16_000]
    )
    late = open_folder(tmp_path, ClipSpec(16_000, 0.75, 2, 16)).train
    assert len(late) == 2 and source.refused() == []
    np.testing.assert_array_equal(late.read(1, Take(start=1.0))['waveform'], late[1]['waveform'])
