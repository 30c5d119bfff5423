"""Files of other projects: which are read, and which are refused."""

import argparse
import builtins
import hashlib

import numpy as np
import pytest
import safetensors.numpy

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop import state_dict
from diffmavil_jax.interop.reading import Unreadable
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
    (tmp_path / 'weights.pth').write_bytes(b'PK')
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
    assert (file.left_out(), file.others()) == (['b'], ['epoch', 'args', 'optimizer'])


@pytest.mark.parametrize('entry', ['model_state_dict', 'net'])
def test_the_entry_of_the_network_is_found(torch, tmp_path, entry):
    saved = {entry: {'a': torch.ones(2)}, 'epoch': 3, 'optimizer': {'state': {0: {'step': torch.ones(())}}}}
    torch.save(saved, tmp_path / 'file.pth')
    file = StateDict(tmp_path / 'file.pth')
    assert file.left_out() == ['a'] and file.others() == ['epoch', 'optimizer']


def test_two_networks_are_not_guessed_between(torch, tmp_path):
    networks = {'teacher': {'a': torch.ones(2)}, 'student': {'a': torch.ones(2), 'b': torch.ones(2)}}
    torch.save(networks, tmp_path / 'two.pth')
    with pytest.raises(
        ConfigError, match=r'several entries with tensors, teacher \(1\), student \(2\), .*save'
    ):
        StateDict(tmp_path / 'two.pth')
    torch.save({'epoch': 3, 'lr': 0.1}, tmp_path / 'none.pth')
    with pytest.raises(ConfigError, match='has no tensors; its entries are epoch, lr'):
        StateDict(tmp_path / 'none.pth')


def test_wrappers_are_no_part_of_a_name_in_any_order(save):
    names = {
        'module._orig_mod.a': 'a',
        '_orig_mod.module.b': 'b',
        'module.module.c': 'c',
        'blocks.0._orig_mod.d': 'blocks.0.d',
        '_fsdp_wrapped_module.blocks.1._checkpoint_wrapped_module.e': 'blocks.1.e',
        'head.module.f': 'head.module.f',
    }
    assert sorted(StateDict(save(dict.fromkeys(names, WEIGHT))).left_out()) == sorted(names.values())
    with pytest.raises(ConfigError, match='has a twice, once as module.a'):
        StateDict(save({'a': WEIGHT, 'module.a': WEIGHT}))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(save, value):
    weight = WEIGHT.copy()
    weight[1, 2] = value
    file = StateDict(save({'a': weight, 'b': WEIGHT}))
    file.take('b')
    with pytest.raises(ConfigError, match='weights.safetensors: 1 of the 6 values of a are not finite'):
        file.take('a')


def test_a_type_that_is_no_float_is_an_error(tmp_path):
    safetensors.numpy.save_file(
        {'a': np.ones(2, np.int8), 'b': np.ones(2, np.float16)}, tmp_path / 'x.safetensors'
    )
    file = StateDict(tmp_path / 'x.safetensors')
    assert file.take('b').dtype == np.float32
    with pytest.raises(ConfigError, match='a is int8, and must be one of float64, .*quantised'):
        file.take('a')


def test_a_type_that_numpy_lacks_is_an_error(monkeypatch, save):
    monkeypatch.setattr(state_dict, 'read', lambda path: {'a': Unreadable('F8_E4M3', (2,))})
    with pytest.raises(ConfigError, match='a is F8_E4M3, and must be one of'):
        StateDict(save({'a': WEIGHT})).take('a')


def test_another_shape_is_an_error(save):
    file = StateDict(save({'a': WEIGHT}))
    assert file.take('a', [None, 3]).shape == (2, 3)
    for shape, needed in (([3, 3], '3, 3'), ([None], 'any'), ([2, 3, None], '2, 3, any')):
        with pytest.raises(ConfigError, match=rf'a has shape \[2, 3\], and \[{needed}\] is needed'):
            file.take('a', shape)


def test_a_bare_state_dict_of_a_data_parallel_model_is_read(torch, tmp_path):
    torch.save({'module.a': torch.ones(2, requires_grad=True)}, tmp_path / 'bare.pt')
    np.testing.assert_array_equal(StateDict(tmp_path / 'bare.pt').take('a'), [1, 1])


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
    with pytest.raises(ConfigError, match='list.pth: holds a list, and must hold parameters by name'):
        StateDict(tmp_path / 'list.pth')
