"""Exports: their parts, their card, and that they are the network of the run."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from diffmavil_jax.cli import main
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.exporting import export
from diffmavil_jax.models.patches import patchify_video
from diffmavil_jax.saved.inherit import read_card, read_config
from diffmavil_jax.saved.params import load_params
from tests.interop import reference

PARTS = {'encoder_audio', 'encoder_video', 'audio_pool_norm', 'video_pool_norm', 'fusion', 'fusion_norm'}


@pytest.fixture(scope='module')
def run(make_run):
    return make_run(samples=96)


def written_report(run, tmp_path, **summary):
    """A copy of the run with a report whose summary has these entries."""
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    (copy / 'report').mkdir()
    (copy / 'report' / 'summary.json').write_text(json.dumps(summary))
    return copy


@pytest.mark.parametrize('form', ['safetensors', 'jax'])
def test_an_export_is_loaded_as_the_run_without_its_decoders(run, tmp_path, form):
    export(run, tmp_path / 'out', form, licence='', overwrite=False)
    theirs, samples = load_params(run)
    ours, ours_samples = load_params(tmp_path / 'out')
    assert set(ours) == PARTS == set(theirs) - {'decoder_audio', 'decoder_video'}
    jax.tree.map(np.testing.assert_array_equal, ours, {part: theirs[part] for part in PARTS})
    assert ours_samples == samples == 96
    assert read_config(tmp_path / 'out') == read_config(run)
    assert (tmp_path / 'out' / 'model.safetensors').exists() == (form == 'safetensors')


def test_an_export_of_an_export_is_the_same(run, tmp_path):
    first = export(run, tmp_path / '1', 'jax', licence='CC-BY-4.0', overwrite=False)
    second = export(tmp_path / '1', tmp_path / '2', 'safetensors', licence='', overwrite=False)
    jax.tree.map(
        np.testing.assert_array_equal, load_params(tmp_path / '1')[0], load_params(tmp_path / '2')[0]
    )
    assert second == first | {'format': 'safetensors'}


def test_the_card_says_what_it_is_and_where_it_is_from(run, tmp_path):
    scores = {'retrieval': {'a2v': {'r10': 0.5}}, 'coverage': ''}
    copy = written_report(run, tmp_path, clips_seen=96, time={'total_s': 1.0}, seed=0, **scores)
    export(copy, tmp_path / 'out', 'safetensors', licence='MIT', overwrite=False)
    card = read_card(tmp_path / 'out')
    assert set(card['parts']) == PARTS and card['licence'] == 'MIT'
    assert card['size'] == {'name': 'demo', 'width': 128, 'depth': 4, 'heads': 4}
    assert (card['positions'], card['class_token'], card['fusion_layers']) == ('sincos', True, 1)
    assert card['audio']['normalization']['mean'] == -7.748
    assert card['audio']['grid (time, frequency)'] == [2, 2]
    assert card['video']['grid (time, height, width)'] == [2, 2, 2]
    assert card['training_data'] == {'source': 'generated', 'path': '', 'splits': ''}
    assert (card['samples_seen'], card['objective']) == (96, 'pretraining')
    assert card['scores'] == scores | {'clips_seen': 96}
    leaves = jax.tree.leaves(load_params(tmp_path / 'out')[0])
    assert card['parameters'] == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize(
    ('summary', 'remark'),
    [({}, 'the run has no report'), ({'clips_seen': 48}, 'the report is of another checkpoint, at 48 clips')],
)
def test_scores_of_other_parameters_are_not_taken(run, tmp_path, summary, remark):
    copy = written_report(run, tmp_path, **summary) if summary else run
    card = export(copy, tmp_path / 'out', 'safetensors', licence='', overwrite=False)
    assert card['scores'] == {} and card['remarks'] == [f'No scores: {remark}.']
    assert card['licence'] == 'not stated'


def test_nothing_is_overwritten_without_the_flag(run, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main(['export', str(run), f'--output={out}']) == 0
    assert 'encoder_audio, encoder_video, fusion, fusion_norm' in capsys.readouterr().out
    assert main(['export', str(run), f'--output={out}']) == 2
    assert f'error: --output={out}: is not empty' in capsys.readouterr().err
    assert main(['export', str(run), f'--output={out}', '--format=jax', '--overwrite']) == 0
    assert (tmp_path / 'out.old-1' / 'model.safetensors').exists()
    assert not (out / 'model.safetensors').exists() and set(load_params(out)[0]) == PARTS


@pytest.mark.parametrize('output', ['run', '.'])
def test_the_run_is_never_moved_away(run, tmp_path, capsys, output):
    copy = written_report(run, tmp_path)
    assert main(['export', str(copy), f'--output={tmp_path / output}', '--overwrite']) == 2
    assert f'is, or holds, the input {copy}' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['run']


def test_no_run_is_an_error(tmp_path, capsys):
    assert main(['export', str(tmp_path), f'--output={tmp_path / "out"}']) == 2
    assert 'must be the workdir of a run' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_broken_file_is_named(run, tmp_path):
    export(run, tmp_path / 'out', 'safetensors', licence='', overwrite=False)
    (tmp_path / 'out' / 'model.safetensors').write_bytes(b'broken')
    with pytest.raises(ConfigError, match='model.safetensors: can not be read'):
        load_params(tmp_path / 'out')


@pytest.mark.parametrize('class_token', [True, False])
def test_the_files_for_timm_hold_the_same_network(make_run, run_encoder, tmp_path, class_token):
    """Computed in NumPy as timm does; test_timm.py compares with timm itself."""
    run = make_run(model={'class_token': class_token})
    export(run, tmp_path / 'timm', 'timm', licence='', overwrite=False)
    frames = np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    ours = run_encoder(run, 'video', patchify_video(frames, 2, 8))
    state = safetensors.numpy.load_file(tmp_path / 'timm' / 'video.safetensors')
    arguments = json.loads((tmp_path / 'timm' / 'video.json').read_text())
    # The colours of two frames are channels; the second tubelet is below the first.
    picture = np.concatenate(
        [np.concatenate([frames[:, t], frames[:, t + 1]], axis=-1) for t in (0, 2)], axis=1
    )
    assert picture.shape[1:] == (*arguments['img_size'], arguments['in_chans'])
    x = reference.embedded(state, 'patch_embed.proj', np.moveaxis(picture, -1, 1)) + state['pos_embed']
    if class_token:
        x = np.concatenate([np.broadcast_to(state['cls_token'], (2, 1, reference.WIDTH)), x], axis=1)
    for i in range(reference.LAYERS):
        x = reference.block(state, f'blocks.{i}', x)
    np.testing.assert_allclose(reference.normed(state, 'norm', x), ours, atol=1e-4)
