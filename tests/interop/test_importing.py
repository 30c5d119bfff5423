"""`diffmavil import` on the command line."""

import json

import pytest

from diffmavil_jax.cli import main
from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.saved.inherit import inherit, read_card, read_config
from diffmavil_jax.saved.params import load_params
from tests.interop import reference


@pytest.fixture
def file(save):
    return str(save(reference.cavmae(), 'cavmae.safetensors'))


def test_it_says_what_it_made_and_what_it_left_out(file, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main(['import', '--layout=cavmae', file, f'--output={out}', '--licence=BSD-2-Clause']) == 0
    said = capsys.readouterr().out
    assert 'audio_pool_norm, encoder_audio, encoder_video, video_pool_norm; demo, 128 wide, 4 layers' in said
    card = read_card(out)
    used, left_out = card['source']['keys_used'], card['source']['keys_left_out']
    assert f'{len(used)} keys of the file are used, {len(left_out)} are left out: ' in said
    assert 'Layer norms add 1e-6 to the variance, where CAV-MAE adds 1e-5.' in said
    assert (card['licence'], card['source']['file']) == ('BSD-2-Clause', 'cavmae.safetensors')
    assert len(card['source']['sha256']) == 64 and card['scores'] == {}
    assert card['parameters'] == sum(x.size for part in load_params(out)[0].values() for x in _leaves(part))


def _leaves(tree):
    return [leaf for part in tree.values() for leaf in _leaves(part)] if isinstance(tree, dict) else [tree]


def test_a_paper_config_takes_over_what_the_network_needs(file, tmp_path):
    assert main(['import', '--layout=cavmae', file, f'--output={tmp_path / "out"}', '--frames=2']) == 0
    values = json.loads(json.dumps(to_dict(Config()))) | {'init': str(tmp_path / 'out')}
    config = from_dict(inherit(values, set()))
    assert (config.model.positions, config.model.class_token) == ('stored', False)
    assert (config.audio.front_end, config.audio.num_mel_bins, config.audio.patch) == ('cavmae', 128, 16)
    assert (config.video.patch, config.video.patch_frames, config.data.frame_size) == (8, 1, 16)
    assert read_config(tmp_path / 'out')['data']['frames'] == 2


@pytest.mark.parametrize(
    ('flags', 'error'),
    [
        (['--layout=audiomae', '--encoder=video'], '--encoder=video: --layout=audiomae has audio only.'),
        (['--layout=mae'], 'has no patch_embed.proj.weight'),
        (['--layout=cavmae', '--frames=3', '--patch_frames=2'], '--frames=3: must be a multiple of the 2'),
        (['--layout=cavmae', '--frames=0'], '0: must be at least 1'),
        (['--layout=ast'], "invalid choice: 'ast'"),
    ],
)
def test_what_is_wrong_is_named(file, tmp_path, capsys, flags, error):
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(['import', file, f'--output={tmp_path / "out"}', *flags]))
    assert stop.value.code == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_the_file_is_never_moved_away(tmp_path, capsys):
    (tmp_path / 'mae.pth').write_bytes(b'weights')
    command = ['import', '--layout=mae', str(tmp_path / 'mae.pth'), f'--output={tmp_path}', '--overwrite']
    assert main(command) == 2
    assert f'is, or holds, the input {tmp_path / "mae.pth"}' in capsys.readouterr().err
    assert (tmp_path / 'mae.pth').read_bytes() == b'weights'


def test_nothing_is_overwritten_without_the_flag(file, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'notes.txt').touch()
    command = ['import', '--layout=cavmae', file, f'--output={tmp_path / "out"}']
    assert main(command) == 2
    assert 'is not empty; give another, or --overwrite' in capsys.readouterr().err
    assert main([*command, '--overwrite']) == 0
    assert (tmp_path / 'out.old-1' / 'notes.txt').exists()
    assert not (tmp_path / 'out' / 'notes.txt').exists()
