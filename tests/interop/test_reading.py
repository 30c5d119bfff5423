"""Which files are read, and that nothing in them can run code."""

import argparse
import collections
import datetime
import json
import pathlib
import struct

import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.reading import Unreadable, read


@pytest.fixture
def torch():
    return pytest.importorskip('torch', reason='writes the files that are read here')


def test_values_that_launchers_keep_beside_the_tensors_are_read(torch, tmp_path):
    beside = {
        'output_dir': pathlib.PosixPath('/runs/1'),
        'windows': pathlib.PureWindowsPath('C:/runs'),
        'accuracy': np.float64(83.5),
        'step': np.int64(7),
        'losses': np.arange(3.0),
        'counts': collections.defaultdict(list, a=[1]),
        'recent': collections.deque([1]),
        'epochs': range(3),
        'began': datetime.datetime(2022, 1, 1),
        'kinds': {1, 2},
    }
    saved = {'model': {'a': torch.ones(2)}, 'args': argparse.Namespace(**beside), **beside}
    torch.save(saved, tmp_path / 'run.pth')
    found = read(tmp_path / 'run.pth')
    assert found['args'].output_dir == pathlib.PosixPath('/runs/1') and found['accuracy'] == 83.5
    assert found['epochs'] == range(3) and found['counts'] == {'a': [1]}
    np.testing.assert_array_equal(found['losses'], np.arange(3.0))


class Anything:
    """A class whose pickle could run code."""


def test_what_may_run_code_is_named(torch, tmp_path):
    torch.save({'a': torch.ones(2), 'extra': Anything()}, tmp_path / 'pickle.pth')
    with pytest.raises(ConfigError, match=r'pickle.pth: holds .* and values, \S+\.Anything, and'):
        read(tmp_path / 'pickle.pth')


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'is empty'),
        (b'\n<!DOCTYPE html><html>', 'is a web page: download the file itself'),
        (b'<html lang="en">', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'is a pointer of Git LFS: get the file itself'),
    ],
)
def test_what_was_downloaded_instead_is_named(tmp_path, suffix, content, reason):
    (tmp_path / f'file.{suffix}').write_bytes(content)
    with pytest.raises(ConfigError, match=f'file.{suffix}: {reason}'):
        read(tmp_path / f'file.{suffix}')


def test_a_type_that_numpy_lacks_has_a_name(tmp_path):
    entry = {'dtype': 'F8_E4M3', 'shape': [2, 3], 'data_offsets': [0, 6]}
    header = json.dumps({'a': entry}).encode()
    (tmp_path / 'f8.safetensors').write_bytes(struct.pack('<Q', len(header)) + header + bytes(6))
    assert read(tmp_path / 'f8.safetensors') == {'a': Unreadable('F8_E4M3', (2, 3))}
