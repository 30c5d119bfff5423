"""The rows of Parquet files as Hugging Face publishes them, their labels and splits, and the errors."""

import pyarrow as pa
import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings import parquet as parquet_listing
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request
from tests.data.prepare.rows import InProcess
from tests.data.shards.writing import held, parquet

CLASSES = {'_type': 'ClassLabel', 'names': ['b', 'a']}
AUDIO = [held(b'A', 'audio/a.flac'), held(b'B', None), held(None)]
ONTOLOGY = 'index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Male speech, man"\n2,/m/3,Gush\n'


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    class Pool(InProcess):
        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

    monkeypatch.setattr(parquet_listing, 'DecodePool', Pool)


def rows(given, **changes):
    return SOURCES['parquet'].read(Request(epath.Path(given), **changes))


def test_rows_have_their_places_and_names(tmp_path):
    parquet(tmp_path / 'data/train-00000-of-00001.parquet', {'audio': AUDIO}, row_group_size=2)
    parquet(tmp_path / 'data/test-00000-of-00001.parquet', {'audio': AUDIO[:1]})
    listing = rows(tmp_path)
    test, *train = listing.rows
    assert test.split == 'test' and [row.split for row in train] == ['train'] * 3
    assert train[0].name == 'data/train-00000-of-00001.parquet/0'
    assert [row.file.rpartition('/')[2] for row in train] == ['a.flac', '1', 'x.wav']
    assert [(p.begin, p.column, p.stretch) for row in train for p in row.inside] == [
        (0, 'audio', 0), (1, 'audio', 0), (2, 'audio', 1),
    ]  # fmt: skip
    assert not listing.class_names and listing.notes == ('media are from audio',)
    assert SOURCES['parquet'].default_modalities(Request(epath.Path(tmp_path))) == ('audio',)


@pytest.mark.parametrize(
    ('column', 'values', 'feature', 'names', 'labels', 'several'),
    [
        ('label', [1, 0, -1], CLASSES, ('b', 'a'), [(1,), (0,), ()], False),
        ('label', [2, None, 0], None, ('0', '1', '2'), [(2,), (), (0,)], False),
        ('label', ['dog', 'cat', None], None, ('cat', 'dog'), [(1,), (0,), ()], False),
        ('labels', [['dog', 'cat'], [], ['dog']], None, ('cat', 'dog'), [(0, 1), (), (1,)], True),
        (
            'labels', [[1], [1, 0], []],
            {'_type': 'Sequence', 'feature': {'_type': 'ClassLabel', 'names': ['b', 'a']}},
            ('b', 'a'), [(1,), (0, 1), ()], True,
        ),
        ('kind', [1, 0, 1], CLASSES, ('b', 'a'), [(1,), (0,), (1,)], False),
        ('kind', ['x', 'y', 'z'], None, (), [(), (), ()], False),
    ],
)  # fmt: skip
def test_labels(tmp_path, column, values, feature, names, labels, several):
    path = parquet(tmp_path / 'x.parquet', {'audio': AUDIO, column: values}, features={column: feature})
    listing = rows(path)
    assert (listing.class_names, listing.multi_label) == (names, several)
    assert [row.labels for row in listing.rows] == labels


def test_audioset_as_hugging_face_has_it(tmp_path):
    (tmp_path / 'class_labels_indices.csv').write_text(ONTOLOGY)
    columns = {
        'video_id': ['--PJHxphWEs', '--aE2O5G5WE'],
        'audio': [held(b'A', 'audio/bal_train/--PJHxphWEs.flac'), held(b'B', 'audio/bal_train/x.flac')],
        'labels': [['/m/3', '/m/1'], ['/m/2']],
        'human_labels': [['Gush', 'Speech'], ['Male speech, man']],
    }
    parquet(tmp_path / 'data/bal_train/00.parquet', columns, features={'audio': {'_type': 'Audio'}})
    parquet(tmp_path / 'data/eval/00.parquet', columns)
    for column in ('', 'human_labels'):
        classes = epath.Path(tmp_path / 'class_labels_indices.csv')
        listing = rows(tmp_path, labels=classes, label_column=column)
        assert listing.class_names == ('Speech', 'Male speech, man', 'Gush') and listing.multi_label
        assert [row.labels for row in listing.rows] == [(0, 2), (1,)] * 2
        assert [row.split for row in listing.rows] == ['balanced_train'] * 2 + ['eval'] * 2
    assert rows(tmp_path).class_names == ('/m/1', '/m/2', '/m/3')


def test_columns_of_media(tmp_path):
    both = {'audio': AUDIO, 'video': AUDIO}
    (first, *_) = rows(parquet(tmp_path / 'a.parquet', both)).rows
    assert [place.column for place in first.inside] == ['video', 'audio']
    assert first.others == ('a.parquet/0/a.flac (audio)',)
    assert SOURCES['parquet'].default_modalities(Request(epath.Path(tmp_path))) == ('audio', 'video')
    plain = parquet(tmp_path / 'b.parquet', {'mp4': [b'A', b'B'], 'jpg': [b'', b'']})
    with pytest.raises(DataError, match='not clear which column has the media.* There are mp4, jpg'):
        rows(plain)
    assert [row.inside[0].column for row in rows(plain, media_columns=('mp4',)).rows] == ['mp4', 'mp4']
    images = {'image': AUDIO, 'sound': AUDIO}
    path = parquet(tmp_path / 'c.parquet', images, features={'image': {'_type': 'Image'}})
    assert rows(path).rows[0].inside[0].column == 'sound'


@pytest.mark.parametrize(
    ('columns', 'changes', 'message'),
    [
        ({'audio': AUDIO, 'x': [{'a': 1}] * 3}, {'label_column': 'x'}, 'no column .x. of numbers.* has none'),
        ({'audio': AUDIO, 'y': [1, 2, 3]}, {'label_column': 'x'}, '--label_column=x: .*; it has y'),
        ({'audio': AUDIO}, {'media_columns': ('sound',)}, 'no column .sound. with the bytes of media'),
        ({'y': [1]}, {}, 'There are none, of the columns y'),
    ],
)  # fmt: skip
def test_columns_that_are_not_there(tmp_path, columns, changes, message):
    with pytest.raises(DataError, match=message):
        rows(parquet(tmp_path / 'x.parquet', columns), **changes)


def test_a_class_that_has_no_name(tmp_path):
    feature = {'label': {'_type': 'ClassLabel', 'names': ['b', 'a']}}
    path = parquet(tmp_path / 'x.parquet', {'audio': AUDIO, 'label': [0, 1, 2]}, features=feature)
    with pytest.raises(DataError, match='x.parquet/2: label 2: the labels name 2 classes, 0 to 1'):
        rows(path)


def test_a_file_that_can_not_be_read_is_refused_by_name(tmp_path):
    (tmp_path / 'a.parquet').write_bytes(b'no parquet')
    with pytest.raises(DataError, match='a.parquet is no Parquet file, or is cut off or damaged'):
        rows(tmp_path)
    data = parquet(tmp_path / 'b.parquet', {'audio': AUDIO}).read_bytes()
    (tmp_path / 'c.parquet').write_bytes(data[:-20])
    listing = rows(tmp_path)
    assert [row.name for row in listing.rows if row.refused] == ['a.parquet', 'c.parquet']
    assert sum(not row.refused for row in listing.rows) == 3 and len(listing.notes) == 3
    with pytest.raises(DataError, match='d-1.parquet is missing'):
        rows(f'{parquet(tmp_path / "d-0.parquet", {"audio": AUDIO}).parent}/d-{{0..1}}.parquet')
    parquet(tmp_path / 'e.parquet', {'sound': AUDIO})
    with pytest.raises(
        DataError, match='e.parquet has no column .audio., as the first file has; its columns are sound'
    ):
        rows(tmp_path)


def test_other_arrow_types(tmp_path):
    columns = {
        'audio': pa.array([b'A', b'B'], pa.large_binary()),
        'label': pa.array(['dog', 'cat']).dictionary_encode(),
    }
    listing = rows(parquet(tmp_path / 'x.parquet', columns))
    assert listing.class_names == ('cat', 'dog') and [row.labels for row in listing.rows] == [(1,), (0,)]
