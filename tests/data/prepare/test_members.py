"""Media of shards are taken out one at a time, and the clips are those of the same files in a folder."""

import dataclasses
import sys
import tempfile

import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.listings.registry import SOURCES
from diffmavil_jax.data.listings.row import Request, Row
from diffmavil_jax.data.prepare.members import Members
from diffmavil_jax.data.shards import parquets
from diffmavil_jax.data.shards.inside import Inside
from tests.data.film import GRID, MEDIA, SPRING, TOS, moving, tone_from, write
from tests.data.prepare.rows import SMALL, SOUND, InProcess, of_rows
from tests.data.shards.writing import held, parquet, tar


def listing(source, given, **changes):
    return SOURCES[source].read(Request(epath.Path(given), **changes))


def contents(found):
    return [
        (o.id.rpartition('@')[2], o.reason, o.source_hash, e and (bytes(e['audio']), list(e['frames'])))
        for o, e in found
    ]


@pytest.mark.parametrize('suffix', ['tar', 'tar.gz'])
def test_clips_of_a_tar_are_those_of_its_files(tmp_path, suffix):
    names = [SPRING, TOS, GRID]
    path = tar(
        tmp_path / f'x.{suffix}', [(n, (MEDIA / n).read_bytes()) for n in names], mode=f'w:{suffix[4:]}'
    )
    rows = listing('webdataset', path).rows
    loose = [dataclasses.replace(row, file=name, inside=()) for row, name in zip(rows, names, strict=True)]
    found = of_rows(rows, root=tmp_path)
    assert contents(found) == contents(of_rows(loose))
    assert [outcome.file for outcome, _ in found[:1]] == [f'x.{suffix}/{SPRING}']


def test_one_file_at_a_time_lies_on_the_disk(tmp_path, monkeypatch):
    path = tar(tmp_path / 'x.tar', [(f'{i}.wav', b'x' * (i + 1)) for i in range(3)])
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    sizes = []
    with Members(str(tmp_path), InProcess()) as members:
        for row in listing('webdataset', path).rows:
            with members.taking_out() as take_out:
                sizes.append(take_out(row.inside[0]).stat().st_size)
                assert len([p for p in (tmp_path / 'temporary').rglob('*') if p.is_file()]) == 1
            assert not list((tmp_path / 'temporary').iterdir())
    assert sizes == [1, 2, 3]


def test_the_first_file_of_a_key_that_has_what_is_wanted_is_used(tmp_path):
    (DATA := tmp_path / 'x').mkdir()
    path = tar(DATA / 'x.tar', [('a.wav', b'no sound'), ('a.mp4', (MEDIA / SPRING).read_bytes())])
    found = of_rows(listing('webdataset', path).rows, SOUND, root=DATA)
    assert [(o.file, o.reason) for o, _ in found] == [('x.tar/a.mp4', '')]


def test_what_is_refused_in_the_list_is_refused(tmp_path):
    path = tar(tmp_path / 'x.tar', [('a.json', '{}'), ('b.mp4', b'no film')])
    found = of_rows(listing('webdataset', path).rows, SMALL, root=tmp_path)
    assert [(o.id, o.reason.partition(':')[0]) for o, _ in found] == [
        ('x.tar/a@0.000', 'no media'),
        ('x.tar/b@0.000', 'unreadable'),
    ]


@pytest.mark.parametrize('suffix', ['tar', 'tar.gz'])
def test_a_shard_that_was_cut_off_since(tmp_path, suffix):
    tar(tmp_path / f'x.{suffix}', [('a.wav', b'a' * 5_000)], mode=f'w:{suffix[4:]}')
    data = (tmp_path / f'x.{suffix}').read_bytes()
    (tmp_path / f'x.{suffix}').write_bytes(data[: min(5_000, len(data) - 20)])
    with Members(str(tmp_path), InProcess()) as members, members.taking_out() as take_out:
        for place in (Inside(f'x.{suffix}', 512, 5_000), Inside(f'x.{suffix}', 512, 20_000)):
            with pytest.raises(media.MediaError, match=f'unreadable: x.{suffix}: '):
                take_out(place)
        if suffix == 'tar':
            assert take_out(Inside('x.tar', 512, 100)).read_bytes() == b'a' * 100


def test_sound_and_pictures_of_a_key_may_be_two_files(tmp_path):
    pictures = write(tmp_path / 'a.mkv', moving(24))
    sound = write(tmp_path / 'a.mov', (), tone_from(0.5, 3))
    path = tar(tmp_path / 'x.tar', [(file.name, file.read_bytes()) for file in (pictures, sound)])
    found = of_rows(listing('webdataset', path).rows, SMALL, root=tmp_path)
    heard, seen = (
        of_rows([Row(name, 'train', name)], dataclasses.replace(SMALL, modalities=(modality,)), root=tmp_path)
        for name, modality in (('a.mov', 'audio'), ('a.mkv', 'video'))
    )
    assert [o.reason for o, _ in found] == [''] * 3
    for (outcome, example), (_, sound), (_, pictures) in zip(found, heard, seen, strict=True):
        assert outcome.file == 'x.tar/a.mov + x.tar/a.mkv'
        np.testing.assert_array_equal(example['audio'], sound['audio'])
        assert list(example['frames']) == list(pictures['frames'])


def test_clips_of_parquet_are_those_of_its_files(tmp_path):
    names = [SPRING, TOS, GRID]
    values = [held((MEDIA / name).read_bytes(), name) for name in names]
    parquet(tmp_path / 'x.parquet', {'video': [*values, held(b'no film'), held(None)]}, row_group_size=2)
    rows = listing('parquet', tmp_path).rows
    loose = [dataclasses.replace(row, file=name, inside=()) for row, name in zip(rows, names, strict=False)]
    found = of_rows(rows, root=tmp_path)
    assert contents(found[:-2]) == contents(of_rows(loose))
    assert [o.reason.partition(':')[0] for o, _ in found[-2:]] == ['unreadable', 'unreadable']
    assert 'row 4 has no bytes in its column video' in found[-1][0].reason


def test_a_segment_of_audioset_is_found_in_a_tar(tmp_path):
    (tmp_path / 'vggsound.csv').write_text('--0PQM4-hqg,30,"dog, big",train\nabcdefghijk,1,cat,test\n')
    tar(tmp_path / 'v_00.tar', [('scratch/v/--0PQM4-hqg_000030.webm', (MEDIA / TOS).read_bytes())])
    found = listing('vggsound', tmp_path)
    settings = dataclasses.replace(SMALL, seconds=6.0)
    outcomes = of_rows(
        [dataclasses.replace(row, duration_s=6.0) for row in found.rows], settings, root=tmp_path
    )
    assert [(o.id, o.reason) for o, _ in outcomes] == [
        ('--0PQM4-hqg@30.000', ''),
        ('abcdefghijk@1.000', 'missing'),
    ]
    (tmp_path / 'x.webm').write_bytes(b'')
    with pytest.raises(DataError, match='None of 2 segments has a file'):
        listing('vggsound', tmp_path)
    (tmp_path / 'abcdefghijk_1.webm').write_bytes(b'')
    assert '1 tars were not looked into' in listing('vggsound', tmp_path).notes[0]


def test_shards_in_a_bucket(tmp_path, monkeypatch):
    class Bucket(MemoryFileSystem):
        protocol = 's3'

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix('s3://'))

        def unstrip_protocol(self, name):
            return f's3://{name.lstrip("/")}'

    monkeypatch.setitem(sys.modules['fsspec.registry']._registry, 's3', Bucket)
    path = tar(tmp_path / 'x.tar', [('a.mp4', (MEDIA / SPRING).read_bytes()), ('a.cls', '0')])
    for name in ('b/train-0.tar', 'b/train-1.tar'):
        Bucket().pipe_file(name, path.read_bytes())
    for given in ('s3://b', 's3://b/train-{0..1}.tar', 's3://b/train-*.tar'):
        found = listing('webdataset', given)
        assert found.root == 's3://b' and [row.labels for row in found.rows] == [(0,), (0,)]
    outcomes = of_rows(found.rows, SMALL, root=found.root)
    assert [o.id for o, _ in outcomes if not o.reason][0] == 'train-0.tar/a@0.000'


def test_a_full_disk_refuses_no_clip(tmp_path, monkeypatch):
    parquet(tmp_path / 'x.parquet', {'audio': [held(b'A')]})
    monkeypatch.setattr(
        parquets,
        'open',
        lambda *args: open('/dev/full', 'wb', buffering=0),  # noqa: SIM115 - the caller closes it
        raising=False,
    )
    with pytest.raises(DataError, match='is full: it must have room .* set TMPDIR'):
        of_rows(listing('parquet', tmp_path).rows, SOUND, root=tmp_path)
