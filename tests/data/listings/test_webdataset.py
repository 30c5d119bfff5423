"""The rows of WebDataset shards, their labels and splits, and what is refused."""

import json

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request
from tests.data.shards.writing import tar

A, B = [('a.mp4', 'A'), ('a.json', '{"caption": "x"}'), ('a.cls', '2')], [('b.mp4', 'B'), ('b.cls', '0')]


def rows(given, **changes):
    return SOURCES['webdataset'].read(Request(epath.Path(given), **changes))


def refused(listing):
    return {row.name: row.refused for row in listing.rows if row.refused}


def test_the_files_of_a_key_are_a_row(tmp_path):
    tar(tmp_path / 'train-000.tar', [*A, ('a.m4a', 'AA'), ('c.mp4', 'C')])
    tar(tmp_path / 'train-001.tar', B)
    listing = rows(tmp_path)
    first, unlabelled, last = listing.rows
    assert first.name == 'train-000.tar/a' and first.split == 'train'
    assert [file.name for file in first.files] == ['train-000.tar/a.mp4', 'train-000.tar/a.m4a']
    data = (tmp_path / 'train-000.tar').read_bytes()
    assert [data[p.begin : p.begin + p.size] for p in first.inside] == [b'A', b'AA']
    assert [row.labels for row in (first, unlabelled, last)] == [(2,), (), (0,)]
    assert listing.class_names == ('0', '1', '2') and not listing.multi_label
    assert listing.notes == ('labels are from cls',)


def test_files_of_a_key_need_not_follow_each_other(tmp_path):
    tar(
        tmp_path / 'x.tar',
        [('b.cls', '1'), ('a.mp4', ''), ('b.mp4', ''), ('a.cls', '0'), ('.hidden.mp4', '')],
    )
    assert {row.name[-1]: row.labels for row in rows(tmp_path).rows} == {'a': (0,), 'b': (1,)}


@pytest.mark.parametrize(
    ('fields', 'column', 'names', 'labels', 'several'),
    [
        ([{'label': 'dog'}, {'label': 'cat'}], '', ('cat', 'dog'), [(1,), (0,)], False),
        ([{'labels': ['dog', 'cat']}, {'labels': []}], '', ('cat', 'dog'), [(0, 1), ()], True),
        ([{'kind': 1}, {'kind': 0}], 'kind', ('0', '1'), [(1,), (0,)], False),
        ([{'caption': 'x'}, {}], '', (), [(), ()], False),
    ],
)
def test_labels_of_the_json(tmp_path, fields, column, names, labels, several):
    files = [(f'{i}.{ext}', json.dumps(f)) for i, f in enumerate(fields) for ext in ('mp4', 'json')]
    listing = rows(tar(tmp_path / 'x.tar', files), label_column=column)
    assert (listing.class_names, listing.multi_label) == (names, several)
    assert [row.labels for row in listing.rows] == labels


def test_txt_is_a_caption_unless_it_is_asked_for(tmp_path):
    tar(tmp_path / 'x.tar', [('a.mp4', ''), ('a.txt', 'dog\n'), ('b.mp4', ''), ('b.txt', 'cat')])
    assert not rows(tmp_path).class_names and '--label_column=txt' in rows(tmp_path).notes[0]
    listing = rows(tmp_path, label_column='txt')
    assert listing.class_names == ('cat', 'dog') and [row.labels for row in listing.rows] == [(1,), (0,)]


def test_names_of_classes_come_from_a_list(tmp_path):
    (tmp_path / 'names').write_text('bird\ncat\ndog\n')
    assert rows(tar(tmp_path / 'x.tar', A), labels=epath.Path(tmp_path / 'names')).class_names[2] == 'dog'
    (tmp_path / 'names').write_text('bird\ncat\n')
    with pytest.raises(DataError, match=r'x.tar/a: label 2: .*names name 2 classes, 0 to 1'):
        rows(tmp_path / 'x.tar', labels=epath.Path(tmp_path / 'names'))


def test_what_can_not_be_used_is_refused_by_name(tmp_path):
    files = [*A, ('only.json', '{}'), ('a.mp4', 'again'), ('v.1.mp4', ''), ('v.2.mp4', ''), *B]
    path = tar(tmp_path / 'x.tar', files)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'b.cls') + 512])
    tar(tmp_path / 'y.tar', B)
    (tmp_path / 'z.tar').write_bytes(b'no tar')
    listing = rows(tmp_path)
    assert {name: reason.partition(':')[0] for name, reason in refused(listing).items()} == {
        'x.tar/only': 'no media',
        'x.tar/a.mp4': 'repeated',
        'x.tar/v.2.mp4': 'repeated',
        'x.tar': 'unreadable',
        'z.tar': 'unreadable',
    }
    assert 'is no tar' in refused(listing)['z.tar']
    assert {row.name for row in listing.rows if not row.refused} == {
        'x.tar/a',
        'x.tar/v',
        'y.tar/b',
        'x.tar/b',
    }
    assert any(note.startswith('x.tar ') for note in listing.notes)


def test_a_broken_json_refuses_only_what_needs_it(tmp_path):
    files = [('a.mp4', ''), ('a.json', '{'), ('b.mp4', ''), ('b.json', '{"label": "dog"}')]
    listing = rows(tar(tmp_path / 'x.tar', files))
    assert list(refused(listing)) == ['x.tar/a'] and 'unreadable: json:' in refused(listing)['x.tar/a']
    assert not refused(rows(tar(tmp_path / 'x.tar', [*files[:2], ('c.mp4', ''), ('c.cls', '0')])))


@pytest.mark.parametrize(
    ('files', 'changes', 'message'),
    [
        (A, {'label_column': 'foo'}, 'no .json has a field .foo.. There are the extensions cls, json'),
        ([*A, ('d.mp4', ''), ('d.cls', 'dog')], {}, 'x.tar/a has a number for a label and x.tar/d a name'),
        ([('d.mp4', ''), ('d.json', '{"label": {}}')], {}, r'x.tar/d: label = .\{\}.: must be a number'),
    ],
)
def test_labels_that_can_not_be_understood(tmp_path, files, changes, message):
    with pytest.raises(DataError, match=message):
        rows(tar(tmp_path / 'x.tar', files), **changes)


def test_no_shard_can_be_read(tmp_path):
    with pytest.raises(DataError, match='No shards in --input=.*: .*names that end in .tar'):
        rows(tmp_path)
    (tmp_path / 'x.tar').write_bytes(b'no tar')
    with pytest.raises(DataError, match='x.tar is no tar'):
        rows(tmp_path)
    with pytest.raises(DataError, match='y-1.tar is missing: --input must name shards'):
        rows(f'{tar(tmp_path / "y-0.tar", A).parent}/y-{{0..1}}.tar')
