"""How a prepared dataset is found, and whether its clips fit what is wanted."""

import dataclasses
import pathlib
import sys

import pytest

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepared.dataset import open_prepared
from tests.data.prepared.opening import SPEC, open_source


@pytest.mark.parametrize('seconds, frames', [(1.0, 9), (0.5, 5)])
def test_more_pictures_than_there_are_is_an_error(dataset, seconds, frames):
    spec = dataclasses.replace(SPEC, seconds=seconds, frames=frames)
    with pytest.raises(
        DataError, match=rf'tiny has {frames - 1} pictures in the first .*config.data.frames = {frames}'
    ):
        open_prepared(dataset).remarks(spec)


def test_another_sample_rate_is_an_error(dataset):
    with pytest.raises(DataError, match='tiny has sound at 16000 Hz: config.data.sample_rate = 8000'):
        open_prepared(dataset).remarks(dataclasses.replace(SPEC, sample_rate=8_000))


def test_padding_and_enlarging_are_remarked_upon(dataset):
    remarks = open_prepared(dataset).remarks(dataclasses.replace(SPEC, seconds=2.0, frame_size=64))
    assert remarks == [
        'tiny: clips of 1 s are padded with silence to 2 s',
        'tiny: pictures of 32 pixels are enlarged to 64',
    ]
    assert open_prepared(dataset).remarks(SPEC) == []


@pytest.mark.parametrize('below', ['', 'tiny', 'tiny/1.0.0'])
def test_finds_the_only_dataset_in_a_folder(dataset, below):
    found = open_prepared(dataset / below)
    assert found.path.endswith('tiny/1.0.0') and set(found.splits) == {'train', 'test'}


def test_no_dataset_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(DataError, match='is not a prepared dataset.*diffmavil prepare'):
            open_prepared(path)


def test_storage_without_its_package_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    with pytest.raises(DataError, match="gs://bucket/set can't be reached.*gcsfs"):
        open_prepared('gs://bucket/set')


def test_several_datasets_are_an_error_that_names_them(tmp_path, write_prepared, example):
    paths = [write_prepared(tmp_path, {'train': [example()]}, name=name) for name in ('one', 'two')]
    with pytest.raises(DataError, match=f'several prepared datasets.*{paths[0]}, {paths[1]}'):
        open_prepared(tmp_path)


def test_a_missing_shard_is_an_error(tmp_path, write_prepared, example):
    path = pathlib.Path(write_prepared(tmp_path, {'train': [example()]}))
    next(path.glob('*train*')).unlink()
    with pytest.raises(DataError, match='not complete: 1 of its shards are missing, the first is tiny-train'):
        open_prepared(path)


def test_metadata_of_something_else_is_an_error(tmp_path, write_prepared, example):
    path = pathlib.Path(write_prepared(tmp_path, {'train': [example()]}))
    (path / 'metadata.json').write_text('{"colour": "blue"}')
    with pytest.raises(DataError, match="can't be read as a prepared dataset: not the metadata"):
        open_prepared(path)


@pytest.mark.parametrize('splits, what', [(['fold1'], "no split 'fold1'"), ([], 'no clip')])
def test_a_split_that_is_not_there_is_an_error_that_lists_those_that_are(dataset, splits, what):
    with pytest.raises(DataError, match=rf'{what}.*splits are train \(4 clips\), test \(2 clips\)'):
        open_source(dataset, splits)


def test_pictures_of_a_part_of_the_sound_need_to_be_stored_more_densely(
    dataset, tmp_path, write_prepared, example
):
    spec = dataclasses.replace(SPEC, frames=8, video_seconds=0.5)
    with pytest.raises(
        DataError, match=r'4 pictures in 0.5 s of a clip .*--frames=16\).*config.data.video_seconds=0'
    ):
        open_prepared(dataset).remarks(spec)
    assert open_prepared(dataset).remarks(dataclasses.replace(spec, frames=4)) == []
    varied = write_prepared(tmp_path, {'train': [example()]}, seconds=None, frame_seconds=None)
    with pytest.raises(DataError, match='different lengths .*video_seconds = 0.5 must be 0'):
        open_prepared(varied).remarks(dataclasses.replace(spec, frames=4))
