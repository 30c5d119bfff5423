"""Paths of file systems and buckets; what is in a bucket is read as what is in a folder."""

import pathlib

import numpy as np
import pytest

from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.weights import write_description, write_params
from diffmavil_jax.storage.outputs import OutputDirectory
from diffmavil_jax.storage.paths import is_remote, local_path, open_path


def test_a_path_leads_where_its_beginning_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_path('a') == open_path(tmp_path / 'a') == open_path(f'file://{tmp_path}/a') == tmp_path / 'a'
    assert open_path(f'file://{tmp_path}/a%20b') == tmp_path / 'a b'
    assert str(open_path('gs://bucket/run') / 'x') == 'gs://bucket/run/x'
    assert is_remote('s3://bucket/a') and not is_remote(tmp_path) and not is_remote('file:///a')
    with pytest.raises(ConfigError, match='http://x: must be a path, or begin with file:// or gs://'):
        open_path('http://x')


def test_outputs_are_files_of_a_file_system(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match='--output=gs://bucket/x: must be in a file system'):
        OutputDirectory('gs://bucket/x', [], overwrite=False).open()
    with pytest.raises(ConfigError, match='-o: must be in a file system'):
        local_path('gs://bucket/x.npz', '-o')
    assert not list(tmp_path.iterdir())
    assert OutputDirectory(f'file://{tmp_path}/x', [], overwrite=False).open() == tmp_path / 'x'


def test_a_network_is_read_from_a_bucket(tiny, tmp_path, bucket):
    params = {'encoder_audio': {'positions': np.ones((1, 4, 8), np.float32)}}
    write_params(tmp_path, params)
    write_description(tmp_path, tiny(), {'parts': ['encoder_audio']})
    (bucket / 'net').mkdir()
    for path in filter(pathlib.Path.is_file, tmp_path.iterdir()):
        (bucket / 'net' / path.name).write_bytes(path.read_bytes())
    network = open_network('gs://bucket/net')
    assert to_dict(network.stored) == to_dict(tiny())
    np.testing.assert_array_equal(network.params['encoder_audio']['positions'], np.ones((1, 4, 8)))
    assert network.lacking(['encoder_audio', 'encoder_video']) == ('encoder_video',)
    with pytest.raises(ConfigError, match="'gs://bucket/none': must be the workdir of a run"):
        open_network('gs://bucket/none')
