"""Labels are read without a clip, and a clip is decoded once."""

import pytest
from etils import epath

from diffmavil_jax.data import labels, wrappers
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared import source as prepared_source
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.label_file import write_labels
from diffmavil_jax.data.prepared.source import PreparedSource
from tests.cases.making import film
from tests.data.folders import write_csv
from tests.data.prepared.opening import SPEC

SETS = [(0,), (1,), (), (0, 1), (1,), (0,)]


@pytest.fixture(scope='module')
def path(tmp_path_factory, write_prepared, example):
    clips = [example(i, labels=list(group)) for i, group in enumerate(SETS)]
    return write_prepared(tmp_path_factory.mktemp('labels'), {'train': clips}, multi_label=True)


@pytest.fixture(scope='module')
def sets(path):
    """The labels in the order of the records, which TFDS shuffled."""
    source = opened(path)
    return [SETS[int(source[i]['id'].partition('.')[0])] for i in range(len(source))]


@pytest.fixture
def pictures(monkeypatch):
    """Counts the pictures that are decoded."""
    decoded = []
    decode = prepared_source.decode_picture
    monkeypatch.setattr(prepared_source, 'decode_picture', lambda *args: decoded.append(1) or decode(*args))
    return decoded


def opened(path, splits=('train',), **options):
    return PreparedSource(open_prepared(path), splits, SPEC, Ledger('x', len(SETS), 1.0), **options)


def sets_of(source):
    return [tuple(group.tolist()) for group in labels.label_sets(source)]


@pytest.mark.parametrize('with_file', [False, True])
def test_labels_of_shards_are_read_without_a_clip(path, sets, pictures, monkeypatch, with_file):
    file = epath.Path(path) / 'train.labels.npz'
    if with_file:
        write_labels(epath.Path(path), 'train', sets)
        monkeypatch.setattr(PreparedSource, '_raw', None)
    try:
        assert sets_of(opened(path)) == sets
        assert sets_of(opened(path, ['train[2:5]'])) == sets[2:5]
        assert sets_of(opened(path, ['train[4:]', 'train[:1]'])) == sets[4:] + sets[:1]
    finally:
        file.unlink(missing_ok=True)
    assert not pictures


def test_labels_that_do_not_fit_the_shards_are_not_believed(path, sets):
    file = epath.Path(path) / 'train.labels.npz'
    try:
        for wrong in (sets[1:], sets + sets):
            write_labels(epath.Path(path), 'train', wrong)
            assert sets_of(opened(path)) == sets
        file.write_bytes(b'PK\3\4 no archive')
        assert sets_of(opened(path)) == sets
    finally:
        file.unlink()


def test_a_training_clip_is_decoded_once_with_its_target(path, sets, pictures):
    source = wrappers.Targets(opened(path), ('audio', 'video'))
    assert [source[i]['target'].tolist() for i in range(len(SETS))] == [
        [float(k in group) for k in range(2)] for group in sets
    ]
    assert len(pictures) == SPEC.frames * len(SETS)


def test_no_picture_is_decoded_for_sound(path, pictures):
    source = opened(path, modalities=('audio',))
    assert source.modalities == ('audio',) and set(source[0]) == {'waveform', 'label', 'labels', 'id'}
    assert 'frames' not in source[0] and not pictures


def test_a_target_is_that_of_the_clip_that_came(tmp_path, write_prepared, example, monkeypatch):
    """Clip 0 turns out to be broken when it is decoded, so that clip 1 stands in for it."""
    clips = [example(i, label=i) for i in range(2)]
    clips[0]['frames'] = clips[0]['frames'][:2]
    source = wrappers.Targets(opened(write_prepared(tmp_path, {'train': clips})), ('audio', 'video'))
    assert labels.label_sets(source)[0].tolist() == [0]
    assert source[0]['target'].tolist() == [0, 1]
    assert labels.label_sets(source)[0].tolist() == [1]


def test_labels_of_a_folder_are_read_without_a_clip(tmp_path, open_folder, monkeypatch):
    for name in 'abc':
        film(tmp_path / f'{name}.mkv', 1.0, sound_s=1.0)
    write_csv(tmp_path, 'path,split,label\na.mkv,train,x\nb.mkv,train,y\nc.mkv,val,x\n')
    train = open_folder(tmp_path, cache_bytes=0).train
    decoded, decode = [], type(train._reader).decode
    monkeypatch.setattr(
        type(train._reader),
        'decode',
        lambda reader, place, take: decoded.append(place.id) or decode(reader, place, take),
    )
    assert sets_of(train) == [(0,), (1,)] and not decoded
    targets = wrappers.Targets(train, ('audio',))
    assert targets[1]['target'].tolist() == [0, 1] and decoded == ['b.mkv@0.000']
