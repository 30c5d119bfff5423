"""Files of other projects: which are read, and which are refused."""

import argparse
import builtins
import hashlib

import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.state_dict import StateDict

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def torch():
    return pytest.importorskip('torch', reason='writes the files that are read here')


def test_a_safetensors_file_is_read_and_what_is_taken_is_remembered(save):
    path = save({'a.weight': WEIGHT, 'b.0.bias': WEIGHT[0], 'b.1.bias': WEIGHT[1], 'bb.0.bias': WEIGHT[0]})
    file = StateDict(path)
    np.testing.assert_array_equal(file.take('a.weight'), WEIGHT)
    assert file.take('a.weight').dtype == np.float32
    assert file.count('b') == 2 and file.count('c') == 0
    assert file.taken() == ['a.weight'] and file.left_out() == ['b.0.bias', 'b.1.bias', 'bb.0.bias']
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=r'has no b.2.bias; it has 4 parameters such as a.weight, '):
        file.take('b.2.bias')


def test_it_needs_no_torch(save, monkeypatch):
    forbid_torch(monkeypatch)
    assert 'a' in StateDict(save({'a': WEIGHT}))


def test_without_torch_other_files_say_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / 'weights.pth').touch()
    forbid_torch(monkeypatch)
    with pytest.raises(ConfigError, match=r"weights.pth: needs PyTorch .* pip install -e '.\[torch\]'"):
        StateDict(tmp_path / 'weights.pth')


def forbid_torch(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == 'torch':
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, '__import__', without)


def test_a_checkpoint_of_training_is_read_and_its_other_entries_are_listed(torch, tmp_path):
    model = {'module.a': torch.from_numpy(WEIGHT).to(torch.bfloat16), 'module.b': torch.ones(2)}
    saved = {'model': model, 'epoch': 3, 'args': argparse.Namespace(lr=0.1), 'optimizer': {'state': {}}}
    torch.save(saved, tmp_path / 'checkpoint.pth')
    file = StateDict(tmp_path / 'checkpoint.pth')
    np.testing.assert_array_equal(file.take('a'), WEIGHT)
    assert file.left_out() == ['b', 'epoch', 'args', 'optimizer']


def test_a_bare_state_dict_of_a_data_parallel_model_is_read(torch, tmp_path):
    torch.save({'module.a': torch.ones(2, requires_grad=True)}, tmp_path / 'bare.pt')
    np.testing.assert_array_equal(StateDict(tmp_path / 'bare.pt').take('a'), [1, 1])


class Anything:
    """A class whose pickle could run code."""


def test_a_pickle_that_is_not_plain_tensors_is_refused(torch, tmp_path):
    torch.save({'model': {'a': torch.ones(2)}, 'extra': Anything()}, tmp_path / 'pickle.pth')
    with pytest.raises(ConfigError, match='pickle.pth: holds something other than plain tensors'):
        StateDict(tmp_path / 'pickle.pth')


@pytest.mark.parametrize('name', ['broken.safetensors', 'broken.pth'])
def test_a_broken_file_is_named(name, tmp_path):
    if name.endswith('.pth'):
        pytest.importorskip('torch', reason='reads it')
    (tmp_path / name).write_bytes(b'\x80\x02not weights')
    with pytest.raises(ConfigError, match=f'{name}: '):
        StateDict(tmp_path / name)
    with pytest.raises(ConfigError, match='can not be read'):
        StateDict(tmp_path / 'nowhere.safetensors')


def test_a_list_is_not_parameters(torch, tmp_path):
    torch.save([torch.ones(2)], tmp_path / 'list.pth')
    with pytest.raises(ConfigError, match='can not be read as parameters .* a list, not parameters by name'):
        StateDict(tmp_path / 'list.pth')
