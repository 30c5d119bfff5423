"""`experiments.quality`, `.ablations` and `.cells`: what is compared, how it is written, what is kept."""

import argparse
import dataclasses
import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from diffmavil_jax.plan.buckets import make_plan
from experiments import ablations, cells, intervals, quality

pytestmark = pytest.mark.usefixtures('one_device')


def options(**changes):
    values = {
        'dataset': 'generated',
        'equal': 'clips',
        'samples': 2_000,
        'out': pathlib.Path('out'),
        'data': None,
    }
    return argparse.Namespace(**(values | changes))


def test_intervals_are_students():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.half_width(values) == pytest.approx((high - low) / 2)
    assert intervals.spell_difference(values, 2) == f'+2.88 ({low:+.2f} to {high:+.2f})'
    assert intervals.spell_mean(values[:1]) == '1.0'
    missing = np.array([np.nan, 1.0])
    assert intervals.spell_mean(missing) == intervals.spell_difference(missing) == '-'


@pytest.mark.parametrize('method', quality.METHODS)
def test_each_method_is_a_valid_config_of_its_own(method):
    config = quality._pretraining(options(), method, seed=3)
    assert config.seed == 3 and config.train.samples == 2_000
    assert config.diffusion.enabled == (method.partition(',')[0] != 'MAViL' and method != 'mask tokens')
    assert bool(config.teacher) == (method in quality.TEACHERS)


@pytest.mark.parametrize('method', ['DiffMAViL', 'fast'])
def test_equal_macs_means_more_clips_for_as_many(method):
    baseline = make_plan(quality._pretraining(options(), 'MAViL', 0)).macs
    plan = make_plan(quality._pretraining(options(equal='macs'), method, 0))
    assert plan.total_samples > 2_000
    assert plan.macs == pytest.approx(baseline, rel=0.02)


def test_differences_are_paired():
    a = [{'x': 0.5, 'macs': 10.0, 'clips': 7.0}, {'x': 0.7, 'macs': 10.0, 'clips': 7.0}]
    b = [{'x': 0.6, 'macs': 5.0, 'clips': 7.0}, {'x': 0.8, 'macs': 5.0, 'clips': 7.0}]
    text = quality.tables({'A': a, 'B': b}, {'x': ('the x, %', 100, 1)})
    assert '| the x, % | 60.0 ± 127.1 | 70.0 ± 127.1 |' in text
    assert '| the x, % | +10.0 (+10.0 to +10.0) |' in text
    assert '| multiply-accumulates saved against A | 0.0 % | 50.0 % |' in text


def test_each_cell_of_the_ablations_is_a_valid_config_and_differs_from_the_others():
    rows = [fields for table in ablations.TABLES.values() for fields in table.values()]
    configs = {ablations.name_of(f): ablations.make_config(f, 2_000, 0) for f in rows}
    made = [json.dumps(dataclasses.asdict(config)) for config in configs.values()]
    assert len(set(made)) == len(made)
    for table in ablations.TABLES.values():
        assert len({ablations.name_of(fields) for fields in table.values()}) == len(table)


def test_a_cell_that_the_time_did_not_suffice_for_is_a_dash():
    rows = {'here': {}, 'not': {'batch.rule': 'fixed'}}
    columns = {name: 0.5 for names, _, _ in ablations.COLUMNS.values() for name in names}
    text = ablations.table('batch', rows, {'default': [columns | {'macs': 2e12}]})
    here, missing = text.splitlines()[2:]
    assert here.startswith('| here | 1 | 2,000 | 50.0 | 50.0 | 50.0 | 0.50')
    assert missing == f'| not | 0 | {" | ".join("-" * (1 + len(ablations.COLUMNS)))} |'


@pytest.fixture(scope='module')
def finished(tiny, tmp_path_factory):
    """A cell of a tiny pretraining, and its numbers."""
    folder = tmp_path_factory.mktemp('cell') / 'pretrained'
    config = tiny(train={'samples': 16}, masking={'curriculum': 'none'}, batch={'rule': 'fixed'})
    return config, folder, cells.pretrain(config, folder)


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again(finished, monkeypatch):
    config, folder, numbers = finished
    assert numbers['clips'] == 16 and 0 <= numbers['probe/fused/top1'] <= 1
    monkeypatch.setattr(cells, '_train', None)
    assert cells.pretrain(config, folder) == numbers
    with pytest.raises(ValueError, match='holds another experiment'):
        cells.pretrain(dataclasses.replace(config, seed=9), folder)


@pytest.mark.slow
def test_a_pretrained_cell_can_be_fine_tuned(finished, tmp_path):
    config, folder, _ = finished
    labelled = dataclasses.replace(
        config,
        objective='classification',
        init=str(folder),
        data=dataclasses.replace(config.data, train_clips=256, eval_clips=32),
        finetune=dataclasses.replace(config.finetune, modality='audio', validation_fraction=0.0),
    )
    scores = cells.finetune(labelled, tmp_path)
    assert 0 <= scores['top1'] <= scores['top5'] <= 1
