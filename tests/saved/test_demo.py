"""The network in the package: small, described, and as good as its card says."""

import pathlib

import numpy as np
import pytest

import diffmavil_jax
from diffmavil_jax import cli
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.world import GeneratedWorld
from diffmavil_jax.saved.demo import DEMO_FOLDER
from diffmavil_jax.saved.inherit import read_card

CLIPS = 64


@pytest.fixture(scope='module')
def model():
    return diffmavil_jax.load('demo')


def test_it_is_small_and_its_card_says_what_it_can_not_do():
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir() if path.is_file()) < 5_000_000
    card = read_card(DEMO_FOLDER)
    assert card['licence'] == 'Apache-2.0' and card['training_data']['source'].startswith('generated')
    assert any('nothing real' in remark for remark in card['remarks'])
    assert card['scores']['esc10']['top1'] > card['scores']['esc10']['chance']


def test_it_finds_the_picture_of_a_sound(model):
    """Among 64 clips of a seed of their own; chance is 10 / 64."""
    world = GeneratedWorld(ClipSpec.of(model.config.data), seed=77, length=CLIPS, difficulty='easy')
    clips = [world[i] for i in range(CLIPS)]
    found = model.embed({name: np.stack([clip[name] for clip in clips]) for name in ('waveform', 'frames')})
    audio, video = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found.audio, found.video))
    similar = audio @ video.T
    rank = (similar > np.diag(similar)[:, None]).sum(1)
    assert (rank < 10).mean() > 0.8


def test_a_file_is_embedded_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    film = pathlib.Path(__file__).parents[1] / 'data' / 'media' / 'nasajwst_0000.mp4'
    assert cli.main(['embed', str(film), '--workers=1']) == 0
    assert 'features.npz: 2 windows of 1 files' in capsys.readouterr().out
    found = np.load('features.npz')
    assert found['audio'].shape == found['video'].shape == (2, 128) and found['fused'].shape == (2, 256)


def test_a_folder_of_that_name_is_not_shadowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'demo').mkdir()
    with pytest.raises(ConfigError, match="'demo': must be the workdir of a run"):
        diffmavil_jax.load('demo')
