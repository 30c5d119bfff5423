"""Classification as users run it: from a run, from scratch, over folds, and with what is wrong."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from diffmavil_jax import experiment
from diffmavil_jax.config.schema import from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.pipeline import stack
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.inference.retrieve import retrieve
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.saved.inherit import inherit
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.tasks.classification import classification_task

pytestmark = pytest.mark.usefixtures('one_device')

RATE = 16_000
FOLDS = ('fold1', 'fold2', 'fold3')


def clip(number, label, seed):
    """A low tone and a dark picture, or a high tone and a bright one, in noise."""
    rng = np.random.default_rng([seed, number])
    tone = np.sin(2 * np.pi * (300, 3_000)[label] * np.arange(RATE) / RATE + rng.uniform(0, 6))
    pixels = (40 + 150 * label + rng.integers(0, 30, (16, 16, 3))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG')
    return {
        'id': f'{number}.mp4@0.000',
        'start_s': 0.0,
        'audio': (8_000 * tone + 900 * rng.standard_normal(RATE)).astype(np.int16),
        'frames': [file.getvalue()] * 4,
        'labels': [label],
        'source_hash': '',
    }


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, write_prepared):
    """Two classes in three folds of 20 clips, and a test split."""
    examples = {name: [clip(i, i % 2, k) for i in range(20)] for k, name in enumerate((*FOLDS, 'test'))}
    folder = tmp_path_factory.mktemp('tones')
    return write_prepared(folder, examples, 'tones', frames=4, frame_size=16)


@pytest.fixture(scope='module')
def pretrained(make_run):
    return str(make_run())


def run(config, workdir):
    experiment.run_experiment(config, workdir=str(workdir), overwrite=False, command='a test', started=0.0)


def finetuning(tiny, dataset, **changes):
    """Two dozen steps of 8 clips on the first two folds, tested on the split `test`."""
    settings = {
        'name': 'finetune_tiny',
        'objective': 'classification',
        'data': {'source': 'tfds', 'path': dataset, 'train_split': 'fold1,fold2', 'eval_split': 'test'},
        'batch': {'size': 8, 'max_size': 8},
        'optimizer': {'learning_rate': 3e-3, 'warmup_samples': 16},
        'train': {'samples': 192, 'log_every_samples': 64},
        'evaluation': {'every_samples': 96},
        'checkpoint': {'every_samples': 96},
        'finetune': {'drop_path': 0.0, 'time_mask': 0.0, 'frequency_mask': 0.0, 'video_mask': 0.0},
    }
    for name, change in changes.items():
        old = settings.get(name, {})
        settings[name] = old | change if isinstance(change, dict) else change
    return tiny(**settings)


def summary_of(workdir):
    return json.loads((pathlib.Path(workdir) / 'report' / 'summary.json').read_text())


def test_a_pretrained_network_learns_classes(tiny, dataset, pretrained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiment, 'make_mesh', lambda parallel: make_mesh(parallel, jax.devices()[:2]))
    config = finetuning(
        tiny, dataset, init=pretrained, finetune={'ema_decay': 0.9, 'select': 'best', 'mixup_rate': 0.2}
    )
    run(config, tmp_path)
    said = capsys.readouterr().out
    assert '36 training, 4 validation and 20 test clips of 2 classes' in said
    assert 'one crop of 1 s with 4 pictures of each' in said
    assert 'validation: top1' in said and 'test: top1' in said
    summary = summary_of(tmp_path)
    assert summary['test']['top1']['value'] >= 0.9
    assert (
        summary['test']['top1']['low'] <= summary['test']['top1']['value'] <= summary['test']['top1']['high']
    )
    assert set(summary['classes']) == {'cat', 'dog'} and summary['init'] == pretrained
    assert summary['clips'] == {'validation': 4, 'test': 20}
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert 'Top-1 accuracy, test' in page and 'Confusions' in page
    assert 'jackknife over clips; n = 4 validation clips, 20 test clips' in page
    assert 'jackknife interval over 20 clips' in page
    run(config, tmp_path)
    assert 'The run is complete' in capsys.readouterr().out


def test_training_begins_with_the_runs_parameters(tiny, dataset, pretrained, tmp_path, capsys):
    config = finetuning(
        tiny,
        dataset,
        init=pretrained,
        finetune={'probe': 'linear', 'modality': 'audio'},
        train={'samples': 8},
        optimizer={'warmup_samples': 0},
        audio={'front_end': 'audiomae_esc50'},  # the run has `generated`
    )
    run(config, tmp_path)
    ours, theirs = load_params(tmp_path)[0], load_params(pretrained)[0]
    jax.tree.map(np.testing.assert_array_equal, ours['encoder_audio'], theirs['encoder_audio'])
    assert 'encoder_video' not in ours and 'fusion' not in ours
    assert np.abs(ours['head']['kernel']).max() > 0
    task = classification_task(config, make_plan(config), open_sources(config), tmp_path)
    clips = stack([task.source[i] for i in range(len(task.source))])
    features = jax.jit(task.objective.features)(ours, clips)
    np.testing.assert_allclose(ours['feature_moments']['mean'], features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(ours['feature_moments']['deviation'], features.std(axis=0), rtol=1e-3)
    said = capsys.readouterr().out
    assert "config.audio.front_end = 'audiomae_esc50' (mean -6.627" in said
    assert 'trained on labels' not in said

    again = finetuning(tiny, dataset, init=str(tmp_path), finetune={'modality': 'audio'})
    notes = classification_task(again, make_plan(again), open_sources(again), tmp_path).notes
    assert any(f'{tmp_path} was itself trained on labels' in note for note in notes)


def test_from_scratch_it_is_the_network_of_the_run_with_other_parameters(tiny, dataset, pretrained, tmp_path):
    config = finetuning(
        tiny,
        dataset,
        init=pretrained,
        seed=1,
        finetune={'probe': 'linear', 'modality': 'audio', 'scratch': True},
        train={'samples': 8},
        optimizer={'warmup_samples': 0},
    )
    run(config, tmp_path)
    ours, theirs = (load_params(path)[0]['encoder_audio'] for path in (tmp_path, pretrained))
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), ours, theirs))) > 0.01
    assert summary_of(tmp_path)['init'] == ''


def test_a_run_that_is_stopped_goes_on_to_the_same_parameters(tiny, dataset, tmp_path):
    whole = finetuning(
        tiny,
        dataset,
        finetune={'class_balanced': True, 'ema_decay': 0.9, 'modality': 'audio'},
        train={'samples': 64},
        evaluation={'every_samples': 32},
        checkpoint={'every_samples': 32},
    )
    run(whole, tmp_path / 'run')
    expected, _ = load_params(tmp_path / 'run')
    (tmp_path / 'run' / 'checkpoints' / '64').rename(tmp_path / 'aside')
    (tmp_path / 'run' / 'report' / 'index.html').unlink()
    run(whole, tmp_path / 'run')
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path / 'run')[0], expected)


def test_every_fold_is_tested_once(tiny, dataset, tmp_path, capsys):
    config = finetuning(
        tiny,
        dataset,
        finetune={'folds': ','.join(FOLDS), 'validation_fraction': 0.0, 'modality': 'audio'},
        train={'samples': 16},
        data={'train_split': 'train', 'eval_split': ''},
    )
    run(config, tmp_path)
    summary = summary_of(tmp_path)
    folds = [summary_of(tmp_path / name)['test']['top1']['value'] for name in FOLDS]
    assert summary['test']['top1']['folds'] == folds
    assert summary['test']['top1']['mean'] == pytest.approx(np.mean(folds))
    assert summary['test']['top1']['std'] == pytest.approx(np.std(folds, ddof=1))
    assert 'top1: mean' in capsys.readouterr().out
    assert 'n = 3 folds' in (tmp_path / 'report' / 'index.html').read_text()
    saved = json.loads((tmp_path / 'fold2' / 'config.json').read_text())
    assert (saved['data']['train_split'], saved['data']['eval_split']) == (['fold1', 'fold3'], ['fold2'])


def test_retrieval_takes_some_clips_of_each_class(dataset, pretrained):
    result = retrieve(pretrained, dataset, 'test', clips_per_class=5)
    assert result['a2v']['num_candidates'] == 10 == result['chance']['num_candidates']
    assert retrieve(pretrained, dataset, 'test', clips_per_class=0)['v2a']['num_candidates'] == 20
    with pytest.raises(DataError, match="no split 'val'"):
        retrieve(pretrained, dataset, 'val', clips_per_class=5)


def test_clips_per_class_limits_what_is_trained_on(tiny, dataset, tmp_path, capsys):
    config = finetuning(
        tiny, dataset, finetune={'clips_per_class': 3, 'modality': 'audio'}, train={'samples': 16}
    )
    run(config, tmp_path)
    assert '6 training, 4 validation and 20 test clips' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('changes', 'error'),
    [
        ({'init': 'nowhere'}, "'nowhere': must be the workdir of a run"),
        ({'data': {'source': 'generated'}, 'finetune': {'folds': 'a,b'}}, 'config.finetune.folds'),
        ({'data': {'train_split': 'fold9'}}, "train_split = 'fold9'"),
        ({'finetune': {'folds': 'fold1,fold9'}}, r'config.finetune.folds = .* which has .* and no fold9'),
        (
            {'finetune': {'scratch': True}},
            'config.finetune.scratch = True: must be false',
        ),
    ],
)
def test_what_is_wrong_is_named(tiny, dataset, tmp_path, changes, error):
    with pytest.raises((ConfigError, DataError), match=error):
        run(finetuning(tiny, dataset, **changes), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_run_of_another_network_is_refused(tiny, dataset, pretrained, tmp_path):
    config = finetuning(tiny, dataset, init=pretrained, model={'size': 'Ti'})
    with pytest.raises(ConfigError, match=r"config.model.size = 'Ti': must be 'demo'"):
        run(config, tmp_path)
    inherited = from_dict(inherit(json.loads(json.dumps(to_dict(config))), set()))
    assert inherited.model.size == 'demo'


def test_a_class_with_one_clip_is_named(tiny, tmp_path, write_prepared):
    examples = {
        'train': [clip(i, int(i == 0), 0) for i in range(6)],
        'test': [clip(i, 0, 1) for i in range(2)],
    }
    path = write_prepared(tmp_path / 'data', examples, 'rare', frames=4, frame_size=16)
    config = finetuning(tiny, path, data={'train_split': 'train'})
    with pytest.raises(DataError, match=r"fewer than 2 clips to train on: 'dog' \(1\)"):
        run(config, tmp_path / 'run')
