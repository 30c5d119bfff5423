"""A prepared dataset that tests only read."""

import pytest


@pytest.fixture(scope='session')
def dataset(tmp_path_factory, write_prepared, example):
    folder = tmp_path_factory.mktemp('prepared')
    clips = [example(i, label=i % 2) for i in range(6)]
    write_prepared(folder, {'train': clips[:4], 'test': clips[4:]}, expected={'train': 4, 'test': 2_000})
    return folder
