"""The contents of a prepared dataset, which do not depend on the number of processes."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepared.format import Metadata
from tests.data.film import DATA, MEDIA, SPRING
from tests.data.prepare.datasets import examples, prepare
from tests.data.prepare.rows import SMALL, SOUND
from tests.data.shards.writing import held, parquet, tar


def test_esc10_in_process(tmp_path):
    prepared = prepare('esc10', DATA / 'esc10', tmp_path, SOUND)
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
    prepare('spoken_digit', DATA / 'fsdd', tmp_path, settings, workers=2)
    found = examples(tmp_path / 'spoken_digit' / '1.0.0')
    assert collections.Counter(e['labels'][0] for e in found['train']) == {0: 2, 1: 2, 2: 2}
    assert len(found['test']) == 6
    prepare('spoken_digit', DATA / 'fsdd', tmp_path / 'alone', settings, workers=1)
    alone = examples(tmp_path / 'alone' / 'spoken_digit' / '1.0.0')
    for split in found:
        for ours, theirs in zip(found[split], alone[split], strict=True):
            np.testing.assert_equal(ours, theirs)


def test_a_name_that_is_not_utf_8(tmp_path):
    name = os.fsdecode(b'caf\xe9.mp4')
    shutil.copy(MEDIA / SPRING, tmp_path / name)
    prepared = prepare('folder', tmp_path, tmp_path / 'out', dataclasses.replace(SMALL, seconds=4.0))
    ((example,),) = examples(prepared.folder).values()
    assert example['id'] == b'caf\\udce9.mp4@0.000'


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


def test_nothing_left_is_an_error_and_no_dataset(tmp_path):
    (tmp_path / 'list.csv').write_text('path\ngone.mp4\n')
    with pytest.raises(
        DataError, match=r'All of 1 clips were refused: 1 missing. The first is gone\.mp4@0\.000'
    ):
        prepare('csv', tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out/csv/1.0.0').exists()


@pytest.mark.parametrize('source', ['webdataset', 'parquet'])
def test_shards_become_a_dataset(tmp_path, source):
    files = sorted((DATA / 'fsdd' / 'recordings').glob('*.wav'))[:4]
    for split, names in (('train', files[:3]), ('test', files[3:])):
        if source == 'parquet':
            columns = {
                'audio': [held(f.read_bytes(), f.name) for f in names],
                'label': [f.name[0] for f in names],
            }
            parquet(tmp_path / f'in/{split}-00000-of-00001.parquet', columns)
        else:
            members = [
                (f.stem + e, d) for f in names for e, d in (('.wav', f.read_bytes()), ('.cls', f.name[0]))
            ]
            tar(tmp_path / f'in/{split}-000.tar', members)
    prepared = prepare(source, tmp_path / 'in', tmp_path / 'out', SOUND)
    found = examples(prepared.folder)
    assert {split: len(part) for split, part in found.items()} == {'train': 3, 'test': 1}
    assert prepared.report['written'] == prepared.report['listed'] == 4
    hashes = {example['source_hash'].decode() for part in found.values() for example in part}
    assert hashes == {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert prepare(source, tmp_path / 'in', tmp_path / 'out', SOUND).was_there
