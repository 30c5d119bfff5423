"""`hf://ORG/NAME` against a Hub on this machine: what is read, what is pushed, and how it fails."""

import json

import huggingface_hub.constants
import numpy as np
import pytest
import yaml

from diffmavil_jax import cli
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.weights import write_description, write_params
from diffmavil_jax.storage import hub
from diffmavil_jax.storage.paths import open_path
from tests.hub import TOKEN

WHERE = 'hf://lab/net'
CARD = {
    'parts': ['encoder_audio'],
    'samples_seen': 7,
    'training_data': {'source': 'generated'},
    'scores': {'retrieval': {'r10': 0.51234}},
    'remarks': ['It knows little.'],
}


@pytest.fixture
def network(tiny, tmp_path, fake_hub):
    """An export with one encoder at `hf://lab/net`; returns its folder on this machine."""
    root = tmp_path / 'net'
    root.mkdir()
    write_params(root, {'encoder_audio': {'positions': np.ones((1, 4, 8), np.float32)}})
    write_description(root, tiny(), CARD)
    fake_hub.files['lab/net'] = {path.name: path.read_bytes() for path in root.iterdir()}
    fake_hub.files['lab/net']['readme.txt'] = b'not read'
    return root


def read(path=WHERE):
    """The parameters as a new process would read them."""
    hub.fetched.cache_clear()
    return open_network(path).params['encoder_audio']['positions']


def test_a_path_has_a_repository_a_revision_and_a_folder():
    assert hub.Address.of('hf://lab/net') == hub.Address('lab/net', None, '')
    assert hub.Address.of('hf://lab/net.v1@v2/runs/a/') == hub.Address('lab/net.v1', 'v2', 'runs/a')
    for wrong in ('hf://net', 'hf://', 'hf://datasets/lab/net', 'hf:///lab/net'):
        with pytest.raises(ConfigError, match='must be hf://ORG/NAME, a repository of models'):
            hub.Address.of(wrong)


def test_a_network_is_read_from_the_hub_once(network, fake_hub):
    opened = open_network(WHERE)
    np.testing.assert_array_equal(opened.params['encoder_audio']['positions'], np.ones((1, 4, 8)))
    assert opened.samples_seen == 7 and opened.lacking(['encoder_video']) == ('encoder_video',)
    assert fake_hub.asked.count('/api/models/lab/net/revision/main') == 1
    assert not any(path.endswith('readme.txt') for path in fake_hub.asked)
    fake_hub.files['lab/net'] = {f'runs/a/{name}': data for name, data in fake_hub.files['lab/net'].items()}
    np.testing.assert_array_equal(read(f'{WHERE}/runs/a'), np.ones((1, 4, 8)))


def test_what_was_downloaded_is_used_while_the_hub_is_away(network, fake_hub, monkeypatch):
    read()
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'http://127.0.0.1:9')
    assert read().shape == (1, 4, 8)
    with pytest.raises(ConfigError, match='hf://lab/other: the Hub does not answer, and nothing whole'):
        read('hf://lab/other')


@pytest.mark.parametrize('token', ['', TOKEN])
def test_a_repository_that_is_not_there_or_private(network, fake_hub, monkeypatch, token):
    monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(ConfigError, match='hf://lab/none: there is no such repository, or') as error:
        read('hf://lab/none')
    assert ('the token may not see it' if token else 'there is no token') in str(error.value)
    fake_hub.private.add('lab/net')
    if token:
        assert read().shape == (1, 4, 8)
    else:
        with pytest.raises(ConfigError, match='there is no token'):
            read()
    with pytest.raises(ConfigError, match='hf://lab/net@v9: ' + ('.*no such branch' if token else '')):
        read(f'{WHERE}@v9')


def test_half_a_download_is_no_network_and_goes_on(network, fake_hub):
    fake_hub.cut = True
    with pytest.raises(ConfigError, match='hf://lab/net: the transfer failed'):
        read()
    fake_hub.cut = False
    assert read().shape == (1, 4, 8)


def test_an_export_is_pushed_with_its_model_card(network, tmp_path, fake_hub, monkeypatch, capsys):
    flags = ['export', str(network), f'--output={tmp_path / "out"}', f'--push={WHERE}', '--licence=CC-BY-4.0']
    assert cli.main(flags) == 2
    assert 'hf://lab/net: needs a token that may write to it' in capsys.readouterr().err
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    del fake_hub.files['lab/net']
    assert cli.main(flags) == 2
    assert 'there is no such repository' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    fake_hub.files['lab/net'] = {'old.txt': b'stays'}
    assert cli.main(flags) == 0
    assert f'{fake_hub.url}/lab/net/commit/' in capsys.readouterr().out
    files = fake_hub.files['lab/net']
    assert set(files) == {'old.txt', 'README.md', 'card.json', 'config.json', 'model.safetensors'}
    assert fake_hub.commits == ['Export at 7 clips']
    _, metadata, text = files['README.md'].decode().split('---\n', 2)
    assert yaml.safe_load(metadata) | {'tags': None} == {
        'license': 'cc-by-4.0',
        'library_name': 'diffmavil-jax',
        'pipeline_tag': 'feature-extraction',
        'tags': None,
    }
    card = json.loads(files['card.json'])
    for fact in (
        "diffmavil_jax.load('hf://lab/net')",
        f'{card["parameters"]:,} parameters',
        '| retrieval r10 | 0.5123 |',
        '- It knows little.',
    ):
        assert fact in text
    assert open_network(WHERE).samples_seen == 7
    assert open_path(WHERE).joinpath('model.safetensors').exists()
