"""`experiments.pareto`: what is declared, how it is tuned, what differences allow to say."""

import copy
import json

import numpy as np
import pytest
from scipy import stats

from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.data.sources import open_sources
from experiments import cells, pareto, pareto_page
from experiments.pareto import Choice
from experiments.verdicts import by_pretraining, interval, verdict

SMALL = {
    'clips': 64,
    'reference': 'a',
    'primary': {'title': 'R@10', 'numbers': ['there', 'back'], 'margin': 1.0},
    'secondary': [{'title': 'probe', 'numbers': ['probe'], 'margin': 1.5}],
    'tuning': {'rates': [1e-3, 2e-3], 'batches': [8, 16], 'seeds': [100, 101], 'galleries': 1},
    'report_seeds': [0, 1, 2],
    'arms': {'a': {'preset': 'mavil'}, 'b': {'preset': 'diffmavil'}, 'c': {'preset': 'diffmavil_fast'}},
}


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time; their numbers follow from rate, batch and seed. Lists them."""
    done = []

    def pretrain(config, folder):
        done.append(
            (config.diffusion.enabled, config.optimizer.learning_rate, config.batch.size, config.seed)
        )
        value = (
            0.5 + config.optimizer.learning_rate * (1 if config.diffusion.enabled else -1) + config.seed / 1e3
        )
        folder.mkdir(exist_ok=True)
        (folder / 'numbers.json').write_text('{}')
        return {'there': value, 'back': value, 'probe': value / 2, 'macs': 4e9, 'clips': 64.0}

    monkeypatch.setattr(cells, 'pretrain', pretrain)
    return done


def test_the_declaration_is_whole_and_its_arms_are_equipped_as_they_say():
    protocol = pareto.read_protocol()
    configs = {arm: pareto.config_of(protocol, arm, Choice(1e-3, 24), seed=3) for arm in protocol.arms}
    assert len({json.dumps(to_dict(config)) for config in configs.values()}) == len(configs)
    for config in configs.values():
        assert (config.seed, config.train.samples, config.batch.size) == (3, protocol.clips, 24)
        assert config.optimizer.learning_rate == 1e-3 and config.evaluation.retrieval_galleries == 16
    tuned = pareto.config_of(protocol, 'fast', Choice(1e-3, 24), protocol.tuning_seeds[0])
    assert tuned.evaluation.retrieval_galleries == protocol.values['tuning']['galleries']
    plain, equipped = configs['MAViL, 0.8'], configs['MAViL, 0.8, equipped']
    assert plain.masking.end_ratio == equipped.masking.end_ratio == 0.8
    assert (plain.model.class_token, equipped.model.class_token) == (True, False)
    assert (plain.masking.contrast_power, equipped.masking.contrast_power) == (0.0, 1.0)
    assert not configs['fast without diffusion'].diffusion.enabled
    rising, fast = configs['fast, rising ratio'].masking, configs['fast'].masking
    assert (rising.start_ratio, rising.end_ratio) == pytest.approx((fast.end_ratio, fast.start_ratio))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'report_seeds': [0, 100]}, 'seeds .100. are tuned on and reported'),
        ({'reference': 'd'}, "the reference 'd' must be one of the arms"),
        ({'tuning': {'rates': [], 'batches': [8], 'seeds': [9]}}, 'must have rates, batches and seeds'),
    ],
)
def test_a_declaration_that_compares_nothing_is_an_error(tmp_path, changes, message):
    path = tmp_path / 'pareto.json'
    path.write_text(json.dumps(SMALL | changes))
    with pytest.raises(ValueError, match=message):
        pareto.read_protocol(path)


def test_seeds_have_clips_of_their_own():
    protocol = pareto.read_protocol()
    seeds = (protocol.tuning_seeds[0], protocol.report_seeds[0])
    configs = [pareto.config_of(protocol, 'fast', Choice(1e-3, 24), seed) for seed in seeds]
    tuning, report = (open_sources(config) for config in configs)
    for ours, theirs in ((tuning.train, report.train), (tuning.held_out, report.held_out)):
        assert not np.array_equal(ours[0]['waveform'], theirs[0]['waveform'])


def test_each_arm_is_tuned_on_the_same_grid_and_reported_with_its_choice(trained, tmp_path):
    runs = pareto.Runs(pareto.Protocol(SMALL), tmp_path / 'out', minutes=1)
    found = list(runs.report(['a', 'b']))
    tuned = [run for run in trained if run[3] >= 100]
    for is_b in (False, True):
        grid = [(rate, batch, seed) for of_b, rate, batch, seed in tuned if of_b == is_b]
        assert grid == [(r, b, s) for r in (1e-3, 2e-3) for b in (8, 16) for s in (100, 101)]
    assert [(arm, choice.rate, seed) for arm, choice, seed, _ in found] == [
        (arm, rate, seed) for seed in (0, 1, 2) for arm, rate in (('a', 1e-3), ('b', 2e-3))
    ]


def test_what_the_time_does_not_suffice_for_is_not_run(trained, tmp_path):
    protocol = pareto.Protocol(SMALL)
    assert list(pareto.Runs(protocol, tmp_path / 'out', minutes=0).report(['a'])) == []
    list(pareto.Runs(protocol, tmp_path / 'out', minutes=1).report(['a']))
    # What is finished is read without time; the second arm is not begun.
    again = list(pareto.Runs(protocol, tmp_path / 'out', minutes=0).report(['a', 'b']))
    assert [arm for arm, *_ in again] == ['a'] * 3
    other = copy.deepcopy(SMALL) | {'clips': 65}
    with pytest.raises(ValueError, match='results of another declaration'):
        pareto.Runs(pareto.Protocol(other), tmp_path / 'out', minutes=1)


@pytest.mark.parametrize(
    'ends, said',
    [
        ((-0.9, 0.9), 'within the margin'),
        ((0.1, 0.9), 'within the margin'),
        ((0.1, 1.1), 'better'),
        ((-3.0, -0.1), 'worse'),
        ((-0.5, 1.5), 'undecided'),
        ((-np.inf, np.inf), 'undecided'),
    ],
)
def test_verdicts(ends, said):
    assert verdict(*ends, margin=1.0) == said


def test_intervals_are_students_and_bonferronis():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high))
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 3)
    assert interval(values, comparisons=3) == pytest.approx((expected.low, expected.high))
    assert interval(values[:1]) == (-np.inf, np.inf)


def test_the_interval_holds_for_nested_scores_where_a_pooled_one_does_not():
    """400 simulated comparisons: 5 pretrainings of 4 folds of 3 fine-tunings; the true difference is 0."""
    rng = np.random.default_rng(0)
    covered = {'nested': 0, 'pooled': 0}
    for _ in range(400):
        scores = rng.normal(0, 1.0, (5, 1, 1)) + rng.normal(0, 0.3, (5, 4, 1)) + rng.normal(0, 0.3, (5, 4, 3))
        nested = [{f'fold{i}': list(fold) for i, fold in enumerate(run)} for run in scores]
        for name, values in (('nested', by_pretraining(nested)), ('pooled', scores.ravel())):
            low, high = interval(values)
            covered[name] += low < 0 < high
    assert covered['nested'] >= 370  # 380 are expected, with a standard deviation of 4.4
    assert covered['pooled'] < 300


def test_the_table_pairs_by_seed_and_names_what_was_not_run():
    def arm(values, macs, ms):
        seeds = {
            str(seed): {'there': value, 'back': value, 'probe': value / 2, 'macs': macs, 'clips': 2.0}
            for seed, value in values.items()
        }
        return {'rate': 2e-3, 'batch': 8, 'ms_per_clip': ms, 'seeds': seeds}

    results = {
        'a': arm({0: 0.50, 1: 0.60, 2: 0.70}, macs=8.0, ms=4.0),
        'b': arm({1: 0.62, 2: 0.72}, macs=2.0, ms=None),
    }
    _, a, b, c = pareto_page.rows(SMALL, results)
    assert a[4:6] == ['60.0 ± 24.8', 'the reference, n = 3'] and c[1] == 'not run'
    assert b[1:4] == ['0.002, 8 (edge of the grid)', '75.0 %', '-']
    assert b[5] == '+2.0 (+2.0 to +2.0), n = 2: better' and b[6] == '+1.0 (+1.0 to +1.0)'
    assert pareto_page.picture(SMALL, results).startswith(b'\x89PNG')
