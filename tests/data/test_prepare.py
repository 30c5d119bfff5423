"""What `prepare` makes of real files, refuses, reports, and takes up again after a kill."""

import collections
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec, DataError
from diffmavil_jax.data.listings.row import Listing, Request, Row
from diffmavil_jax.data.prepare import clips, encode, lock, work
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.prepare.summary import Summary
from diffmavil_jax.data.prepared.format import Metadata
from diffmavil_jax.data.sandbox import DecodePool

builder = pytest.importorskip(
    'diffmavil_jax.data.prepare.builder', reason='needs apache-beam, the extra build'
)
run = pytest.importorskip('diffmavil_jax.data.prepare.run', reason='needs apache-beam, the extra build')

HERE = pathlib.Path(__file__).parent
MEDIA = HERE / 'media'
SPRING, NASA, GRID, TOS = 'spring_0004.mp4', 'nasajwst_0000.mp4', 'grid-brbk7n_0000.mp4', 'tos_battle.webm'
SMALL = Settings(seconds=1.0, frames=2, frame_size=32, keep=('still',))
SOUND = Settings(modalities=('audio',), seconds=None)


class InProcess:
    """A DecodePool without processes, for speed; tests of datasets use the real one."""

    def probe(self, source):
        return media.probe(source)

    def call(self, function, *args):
        return function(*args)


def of_rows(rows, settings=SMALL, root=MEDIA):
    return list(clips.Clips(work.Job(str(root), settings), InProcess()).of_rows(rows))


def row(path, **changes):
    return dataclasses.replace(Row(path, 'train', path), **changes)


def reasons(found):
    return [(outcome.id, outcome.reason) for outcome, _ in found]


def prepare(source, root, output, settings=SMALL, *, workers=1, lines=None, **changes):
    request = Request(epath.Path(root), eval_fraction=changes.pop('eval_fraction', 0.1))
    return run.prepare(
        source,
        request,
        settings,
        output=epath.Path(output),
        name=changes.pop('name', source),
        runner=builder.Runner(workers=workers),
        say=(lines if lines is not None else []).append,
        **changes,
    )


def examples(folder):
    """Everything in a prepared dataset: split -> list of examples."""
    reader = tfds.builder_from_directory(str(folder))
    return {split: list(reader.as_data_source(split)) for split in reader.info.splits}


def write_film(path, seconds=2, *, frames=None, sound=None, size=64, rate=8):
    """A small film; frames(i) gives picture i, sound is the amplitude of a tone, None: no such stream."""
    with av.open(str(path), 'w') as container:
        video = container.add_stream('mpeg4', rate=rate) if frames else None
        audio = container.add_stream('aac', rate=16_000, layout='mono') if sound is not None else None
        if video:
            video.width = video.height = size
            video.pix_fmt = 'yuv420p'
            for i in range(seconds * rate):
                container.mux(video.encode(av.VideoFrame.from_ndarray(frames(i), format='rgb24')))
            container.mux(video.encode(None))
        if audio:
            tone = sound * np.sin(np.arange(seconds * 16_000, dtype=np.float32) / 10)[None]
            frame = av.AudioFrame.from_ndarray(tone.astype(np.float32), format='fltp', layout='mono')
            frame.sample_rate = 16_000
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def picture(seed, size=64):
    return np.kron(
        np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8),
        np.ones((size // 8, size // 8, 1), np.uint8),
    )


# ---- One clip ------------------------------------------------------------------------


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
    ((_, example),) = of_rows([row(file)], SOUND, HERE / 'esc10')
    with av.open(str(HERE / 'esc10' / file)) as container:
        expected = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    np.testing.assert_array_equal(example['audio'], expected)
    assert len(example['frames']) == 0


def test_one_modality_is_enough_where_one_is_asked_for(tmp_path):
    write_film(tmp_path / 'mute.mp4', frames=picture)
    write_film(tmp_path / 'dark.m4a', sound=0.5)
    rows = [row('mute.mp4', start_s=0.0), row('dark.m4a', start_s=0.0)]
    ask = lambda *modalities: of_rows(rows, dataclasses.replace(SMALL, modalities=modalities), tmp_path)  # noqa: E731
    (_, sound), (_, film) = ask('audio')[1], ask('video')[0]
    assert len(sound['frames']) == 0 and len(sound['audio']) == 16_000
    assert len(film['frames']) == 2 and len(film['audio']) == 0
    assert [outcome.reason for outcome, _ in ask('audio', 'video')] == ['no audio', 'no video']
    assert [outcome.reason for outcome, _ in ask('audio')] == ['no audio', '']
    assert [outcome.reason for outcome, _ in ask('video')] == ['', 'no video']


def test_every_reason(tmp_path):
    shutil.copy(MEDIA / SPRING, tmp_path / 'good.mp4')
    (tmp_path / 'broken.mp4').write_bytes((MEDIA / SPRING).read_bytes()[:3000])
    write_film(tmp_path / 'mute.mp4', frames=picture)
    write_film(tmp_path / 'dark.m4a', sound=0.5)
    write_film(tmp_path / 'silent.mp4', frames=picture, sound=0.0)
    write_film(tmp_path / 'still.mp4', frames=lambda _: picture(0), sound=0.5)
    names = ['good.mp4', 'broken.mp4', 'mute.mp4', 'dark.m4a', 'silent.mp4', 'still.mp4', 'gone.mp4']
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


def test_a_name_that_is_not_utf_8(tmp_path):
    name = os.fsdecode(b'caf\xe9.mp4')
    shutil.copy(MEDIA / SPRING, tmp_path / name)
    prepared = prepare('folder', tmp_path, tmp_path / 'out', dataclasses.replace(SMALL, seconds=4.0))
    ((example,),) = examples(prepared.folder).values()
    assert example['id'] == b'caf\\udce9.mp4@0.000'


def test_silent_and_still_clips_can_be_kept(tmp_path):
    write_film(tmp_path / 'silent.mp4', frames=picture, sound=0.0)
    write_film(tmp_path / 'still.mp4', frames=lambda _: picture(0), sound=0.5)
    rows = [row('silent.mp4', start_s=0.0), row('still.mp4', start_s=0.0)]
    (_, silent), (_, still) = of_rows(rows, dataclasses.replace(SMALL, keep=('silent', 'still')), tmp_path)
    assert not silent['audio'].any() and silent['audio'].shape == (16_000,) and len(silent['frames']) == 2
    assert still['audio'].any()
    ((outcome, _), _) = of_rows(rows, dataclasses.replace(SMALL, keep=('still',)), tmp_path)
    assert outcome.reason == 'silent'


@pytest.mark.parametrize('size', [16, 64, 100, 256])
def test_a_still_picture_is_one_but_for_noise(size):
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(40, 200, (1, size, size, 3), np.uint8), 4, 0)
    noise = rng.normal(0, 4 if size >= 64 else 1, still.shape)
    assert encode.is_still(still) and encode.is_still((still + noise).astype(np.uint8))
    moving = still.copy()
    moving[2, : size // 8, : size // 8] += 30  # a 64th of the picture
    assert not encode.is_still(moving)
    assert not encode.is_still(still[:1])  # of one frame nothing can be said


def test_slow_films_are_not_still():
    for name in (SPRING, NASA, GRID, TOS):
        _, frames = media.decode(MEDIA / name, 0.0, ClipSpec(16_000, 2.0, 8, 64), ['video'])
        assert not encode.is_still(frames)


def test_wrong_settings_are_named():
    for field, value in [
        ('seconds', 0.0), ('frames', 0), ('frame_size', 8), ('jpeg_quality', 101), ('keep', ('loud',)),
        ('modalities', ()), ('modalities', ('smell',)), ('shard_clips', 0),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f'--{field}='):
            Settings(**{field: value})


# ---- Shards and counts ---------------------------------------------------------------


def open_work(folder, rows, **changes):
    job = work.Job(str(MEDIA), dataclasses.replace(SMALL, **changes))
    return work.Work.open(epath.Path(folder), Listing(rows), job)


def test_rows_are_divided_among_shards_and_come_back(tmp_path):
    rows = [Row(f'{i}.mp4', f's{i % 2}', f'{i}.mp4', 0.5 * i, None, (i,)) for i in range(50)]
    plan = open_work(tmp_path, rows, shard_clips=8)
    shards = [plan.rows(i) for i in range(plan.num_shards)]
    assert plan.num_shards == 8 and plan.num_done() == 0
    assert sorted(sum(shards, []), key=lambda r: r.labels) == rows
    assert all(len({r.split for r in shard}) == 1 for shard in shards)
    assert [r.labels for r in shards[0]] != sorted(r.labels for r in shards[0])  # shuffled
    again = open_work(tmp_path / 'again', rows[::-1], shard_clips=8)
    assert [again.rows(i) for i in range(8)] == shards


@pytest.mark.parametrize(('clips_listed', 'shards'), [(10, 1), (100, 7), (2_048, 64), (20_480, 80)])
def test_small_datasets_have_many_small_shards(tmp_path, clips_listed, shards):
    rows = [row(f'{i}.mp4', start_s=0.0) for i in range(clips_listed)]
    assert open_work(tmp_path, rows).num_shards == shards


def test_rows_of_a_file_stay_together(tmp_path):
    rows = [row(f'{i}.mp4', start_s=float(start)) for start in range(5) for i in range(10)]
    plan = open_work(tmp_path, rows, shard_clips=7)
    for i in range(plan.num_shards):
        files = [r.file for r in plan.rows(i)]
        assert len(files) == 10 and len(set(files)) == 2 and files == sorted(files, key=files.index)


def test_long_files_make_small_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(work, '_SHARD_SOURCE_BYTES', 50_000)
    rows = [row(name) for name in (SPRING, NASA, GRID, TOS)]
    assert open_work(tmp_path / 'a', rows).num_shards == 2
    assert open_work(tmp_path / 'b', [dataclasses.replace(r, start_s=0.0) for r in rows]).num_shards == 1


def test_the_identity_changes_with_what_changes_the_dataset():
    listing, job = Listing([row(SPRING)]), work.Job('in', SMALL)
    keys = {
        work.identity(listing, job, 'csv'),
        work.identity(listing, job, 'folder'),
        work.identity(listing, work.Job('in2', SMALL), 'csv'),
        work.identity(listing, work.Job('in', dataclasses.replace(SMALL, frames=3)), 'csv'),
        work.identity(Listing([row(SPRING, labels=(1,))]), job, 'csv'),
        work.identity(Listing([row(SPRING)], ('a',)), job, 'csv'),
    }
    assert len(keys) == 6 and work.identity(Listing([row(SPRING)]), job, 'csv') in keys


def test_the_summary_counts():
    summary, outcome = (
        Summary(),
        work.Outcome('a@0', 'a', 'train', seconds=2.0, num_bytes=5, source_hash='0' * 64),
    )
    for change in [
        {},
        {'id': 'a@2'},  # another clip of the same file is no copy
        {'id': 'b@0', 'file': 'b'},
        {'id': 'c@0', 'file': 'c', 'split': 'test'},
        {'id': 'd@0', 'file': 'd', 'split': 'test', 'source_hash': '1' * 64, 'note': 'odd'},
        {'id': 'e@0', 'reason': 'too short: 1 s'},
        {'id': 'f@0', 'reason': 'too short: 2 s'},
    ]:
        summary.add(dataclasses.replace(outcome, **change))
    report = summary.to_dict()
    assert (report['listed'], report['written'], report['seconds'], report['bytes']) == (7, 5, 10.0, 25)
    assert report['refused'] == {'too short': 2}
    assert report['refused_examples']['too short'][1] == {
        'id': 'f@0',
        'split': 'train',
        'reason': 'too short: 2 s',
    }
    assert report['splits']['train']['written'] == 3 and summary.expected == {'train': 5, 'test': 2}
    assert report['duplicates']['files'] == 2 and report['duplicates']['across_splits'] == 1
    assert [place['file'] for place in report['duplicates']['examples'][0]] == ['a', 'b', 'c']
    assert report['warnings'] == ['1 files are, byte for byte, in more than one split: the evaluation leaks']
    assert report['notes'] == ['1 clips: odd']


# ---- Datasets ------------------------------------------------------------------------


def test_esc10_in_process(tmp_path):
    prepared = prepare('esc10', HERE / 'esc10', tmp_path, SOUND)
    folder = tmp_path / 'esc10' / '1.0.0'
    assert pathlib.Path(prepared.folder) == folder and not prepared.was_there
    found = examples(folder)
    assert {split: len(part) for split, part in found.items()} == {
        'fold1': 2,
        'fold2': 1,
        'fold3': 1,
        'fold4': 2,
    }
    metadata = Metadata.from_dict(json.loads((folder / 'metadata.json').read_text()))
    assert metadata == Metadata(
        source='esc10',
        modalities=('audio',),
        class_names=metadata.class_names,
        expected={'fold1': 2, 'fold2': 1, 'fold3': 1, 'fold4': 2},
    )
    classes = {e['id'].decode(): metadata.class_names[e['labels'][0]] for e in found['fold4']}
    assert classes == {
        'audio/4-156843-A-21.flac@0.000': 'sneezing',
        'audio/4-188033-A-38.flac@0.000': 'clock_tick',
    }
    assert all(e['audio'].shape == (80_016,) and e['audio'].dtype == np.int16 for e in found['fold1'])
    assert not (tmp_path / '.work').exists()
    manifest = [json.loads(line) for line in (folder / 'manifest.jsonl').read_text().splitlines()]
    assert {line['id']: line['source_hash'] for line in manifest} == {
        e['id'].decode(): e['source_hash'].decode() for part in found.values() for e in part
    }


def test_spoken_digits_in_many_processes(tmp_path):
    settings = dataclasses.replace(SOUND, shard_clips=2)
    prepare('spoken_digit', HERE / 'fsdd', tmp_path, settings, workers=2)
    found = examples(tmp_path / 'spoken_digit' / '1.0.0')
    assert collections.Counter(e['labels'][0] for e in found['train']) == {0: 2, 1: 2, 2: 2}
    assert len(found['test']) == 6
    prepare('spoken_digit', HERE / 'fsdd', tmp_path / 'alone', settings, workers=1)
    alone = examples(tmp_path / 'alone' / 'spoken_digit' / '1.0.0')
    for split in found:
        for ours, theirs in zip(found[split], alone[split], strict=True):
            np.testing.assert_equal(ours, theirs)


def test_a_dataset_that_is_there_is_left_alone(tmp_path):
    first = prepare('folder', MEDIA, tmp_path, eval_fraction=0.5)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'folder/1.0.0').iterdir()}
    again = prepare('folder', MEDIA, tmp_path, eval_fraction=0.5)
    assert again.was_there and again.report == first.report
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'folder/1.0.0').iterdir()}
    other = dataclasses.replace(SMALL, frames=3)
    with pytest.raises(DataError, match='other clips or other settings'):
        prepare('folder', MEDIA, tmp_path, other, eval_fraction=0.5)
    prepare('folder', MEDIA, tmp_path, other, eval_fraction=0.5, overwrite=True)
    assert len(examples(tmp_path / 'folder/1.0.0')['train'][0]['frames']) == 3


def test_splits_and_shards_without_a_clip_are_left_out(tmp_path):
    table = f'path,split,start_s\n{SPRING},train,0\ngone.mp4,train,0\nlost.mp4,test,0\n'
    root = tmp_path / 'in'
    root.mkdir()
    shutil.copy(MEDIA / SPRING, root)
    (root / 'list.csv').write_text(table)
    prepared = prepare('csv', root, tmp_path / 'out', dataclasses.replace(SMALL, shard_clips=1))
    assert {split: len(part) for split, part in examples(prepared.folder).items()} == {'train': 1}
    metadata = json.loads((tmp_path / 'out/csv/1.0.0/metadata.json').read_text())
    assert metadata['expected'] == {'train': 2, 'test': 1}
    assert prepared.report['refused'] == {'missing': 2}


def test_a_run_that_fails_while_it_publishes_loses_nothing(tmp_path, monkeypatch):
    settings = dataclasses.replace(SOUND, shard_clips=2)
    with monkeypatch.context() as patch:
        patch.setattr(builder, 'link_or_copy', lambda source, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare('spoken_digit', HERE / 'fsdd', tmp_path, settings)
    leftover = tmp_path / 'spoken_digit' / 'incomplete.ABCDEF_1.0.0'  # as kill -9 leaves it
    leftover.mkdir(parents=True)
    monkeypatch.setattr(DecodePool, 'call', lambda *args: 1 / 0)
    prepared = prepare('spoken_digit', HERE / 'fsdd', tmp_path, settings)
    assert prepared.report['shards_of_an_earlier_run'] == prepared.report['shards'] == 6
    assert sum(map(len, examples(prepared.folder).values())) == 12
    assert [path.name for path in (tmp_path / 'spoken_digit').iterdir()] == ['1.0.0']


def test_nothing_left_is_an_error_and_no_dataset(tmp_path):
    (tmp_path / 'list.csv').write_text('path\ngone.mp4\n')
    with pytest.raises(
        DataError, match=r'All of 1 clips were refused: 1 missing. The first is gone\.mp4@0\.000'
    ):
        prepare('csv', tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out/csv/1.0.0').exists()


def test_a_lock_is_of_one_run_and_leaves_nothing(tmp_path):
    path, lines = epath.Path(tmp_path / '.work' / 'mine.lock'), []
    with lock.locked(path, 'mine', lines.append):
        with pytest.raises(
            DataError, match=f'mine is being prepared by another run, process {os.getpid()} on'
        ):
            lock.locked(path, 'mine', lines.append).__enter__()
        with lock.locked(path.parent / 'other.lock', 'other', lines.append):
            pass
    assert lines == [] and list(tmp_path.iterdir()) == []
    with lock.locked(path, 'mine', lines.append):
        (path.parent / 'mine-1').mkdir()  # the unfinished work of another list
    assert [other.name for other in path.parent.iterdir()] == ['mine-1']


def test_a_lock_that_its_owner_has_just_removed_is_taken_anew(tmp_path, monkeypatch):
    path, flock, calls = epath.Path(tmp_path / 'mine.lock'), fcntl.flock, []

    def late(*args):
        if not calls:
            path.unlink()
        calls.append(args)
        flock(*args)

    monkeypatch.setattr(fcntl, 'flock', late)
    with lock.locked(path, 'mine', print):
        assert len(calls) == 2 and path.exists()


def test_where_there_can_be_no_lock_it_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError('No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    for path, reason in (('gs://bucket/mine.lock', 'it is remote'), (tmp_path / 'x', 'No locks available')):
        lines = []
        with lock.locked(epath.Path(path), 'mine', lines.append):
            pass
        assert f"mine can't be locked ({reason})" in lines[0]


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    root, output = tmp_path / 'in', tmp_path / 'out'
    root.mkdir()
    for i in range(16):
        shutil.copy(MEDIA / TOS, root / f'{i}.webm')
    settings = Settings(seconds=2.0, frame_size=128, shard_clips=1)
    command = [
        sys.executable, '-m', 'diffmavil_jax.cli', 'prepare', '--source=folder', f'--input={root}',
        f'--output={output}', '--workers=1', '--seconds=2', '--frame_size=128', '--shard_clips=1',
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    done = lambda: {p: p.read_bytes() for p in (output / '.work').glob('*/*.done.jsonl')}  # noqa: E731
    deadline = time.monotonic() + 300
    while len(done()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    with pytest.raises(DataError, match=f'folder is being prepared by another run, process {process.pid} on'):
        prepare('folder', root, output, settings)
    os.killpg(process.pid, signal.SIGKILL)
    message = process.communicate()[1].decode()
    before = done()
    assert 3 <= len(before) < 16, message
    assert not (output / 'folder' / '1.0.0').exists()

    called = []
    call = DecodePool.call
    monkeypatch.setattr(DecodePool, 'call', lambda self, *args: called.append(args) or call(self, *args))
    lines = []
    prepared = prepare('folder', root, output, settings, lines=lines)
    finished = {json.loads(p.splitlines()[1])[1] for p in before.values()}
    assert f'{len(before)} shards are done already' in lines
    decoded = [args[1].name for args in called if args[0] is not media.probe]
    assert set(decoded) == {f'{i}.webm' for i in range(16)} - finished
    assert len(decoded) == 3 * (16 - len(before))
    assert prepared.report['written'] == 48 and prepared.report['duplicates']['files'] == 15
    found = examples(prepared.folder)
    assert sorted(e['id'].decode() for part in found.values() for e in part) == sorted(
        f'{i}.webm@{start}.000' for i in range(16) for start in (0, 2, 4)
    )
    assert sorted(p.name for p in output.iterdir()) == ['folder']
