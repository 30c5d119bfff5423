"""The suite on an untrained network and the generated world: names, and batches with padding."""

import types

import flax.linen as nn
import jax
import numpy as np
import pytest

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.world import GeneratedWorld
from diffmavil_jax.evaluation.held_out import Network, batches, extract, spread
from diffmavil_jax.evaluation.readout import retrieve_both_ways
from diffmavil_jax.evaluation.suite import Suite, flatten, galleries_of
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.plan.buckets import counts_at

FEATURES = ('audio', 'video', 'fused')
FACTORS = {'hue', 'size', 'pitch', 'impacts', 'shape', 'material'}
RETRIEVAL = {'r1', 'r5', 'r10', 'median_rank', 'clips'}


@pytest.fixture(scope='module')
def config(tiny):
    return tiny(evaluation={'batch_size': 8, 'retrieval_clips': 12, 'reconstruction_clips': 5})


@pytest.fixture(scope='module')
def worlds(config):
    data = config.data
    spec = ClipSpec(data.sample_rate, data.seconds, data.frames, data.frame_size)
    return GeneratedWorld(spec, seed=0, length=64), GeneratedWorld(spec, seed=1, length=48)


@pytest.fixture(scope='module')
def networks(config):
    """Two sets of parameters and the compiled functions."""
    counts = {
        name: TokenCounts(*pair) for name, pair in counts_at(config, config.evaluation.mask_ratio).items()
    }
    objective = PretrainingObjective(config)
    data = config.data
    batch = {
        'waveform': np.zeros((1, data.num_samples), np.int16),
        'frames': np.zeros((1, data.frames, data.frame_size, data.frame_size, 3), np.uint8),
        'position': np.zeros(1, np.int32),
    }
    init = jax.jit(lambda key: nn.unbox(objective.init(key, batch, counts)['params']))
    return Network(config, objective, counts), init(jax.random.key(0)), init(jax.random.key(1))


@pytest.fixture(scope='module')
def suite(networks, worlds):
    return Suite(networks[0], *worlds)


@pytest.fixture(scope='module')
def full(suite, networks):
    return suite.full(networks[1], networks[2])


def test_retrieval_is_the_mean_over_galleries_of_different_clips(networks, worlds, tiny):
    network, params, _ = networks
    evaluation = {'batch_size': 8, 'retrieval_clips': 12, 'retrieval_galleries': 3}
    config = tiny(data={'eval_clips': 48}, evaluation=evaluation)
    several = types.SimpleNamespace(config=config, features=network.features, predicts_patches=False)
    suite = Suite(several, *worlds)
    clips = galleries_of(48, 12, 3)
    assert [len(set(gallery)) for gallery in clips] == [12, 12, 12] and len({*sum(clips, [])}) == 36
    each = [retrieve_both_ways(suite.features(params, gallery))['retrieval'] for gallery in clips]
    found = suite.retrieval(params)['retrieval']
    for direction in ('a2v', 'v2a'):
        assert set(found[direction]) == RETRIEVAL | {'galleries'}
        assert found[direction]['galleries'] == 3 and found[direction]['clips'] == 12
        for name in ('r5', 'median_rank'):
            mean = np.mean([gallery[direction][name] for gallery in each])
            assert found[direction][name] == pytest.approx(mean)


def test_there_are_as_many_galleries_as_the_clips_suffice_for():
    assert galleries_of(30, 12, 16)[1:] == [galleries_of(30, 12, 2)[1]]
    assert galleries_of(5, 12, 16) == [list(range(5))]
    assert galleries_of(100, 12, 1) == [spread(100, 12)]


def test_the_full_evaluation_has_the_stable_names(full):
    for network in (full, full['untrained'], full['raw']):
        for name in ('probe', 'knn'):
            assert set(network[name]) == set(FEATURES)
            assert all(0 <= network[name][feature]['top1'] <= 1 for feature in FEATURES)
        assert set(network['world']['factors']) == set(FEATURES)
        assert all(set(factors) == FACTORS for factors in network['world']['factors'].values())
        for direction in ('a2v', 'v2a'):
            values = network['retrieval'][direction]
            assert set(values) == RETRIEVAL
            assert values['r1'] <= values['r5'] <= values['r10']
            assert values['clips'] == 12
    for network in (full, full['untrained']):
        assert {m: set(bands) for m, bands in network['reconstruction'].items()} == {
            'audio': {'low', 'high'},
            'video': {'low', 'high'},
        }
    assert set(full['raw']) >= {'pca', 'statistics'}
    assert full['chance']['retrieval']['a2v']['r1'] == pytest.approx(1 / 12)
    assert all(np.isfinite(value) for value in flatten(full).values())


def test_trained_and_untrained_are_not_the_same_network(full, suite, networks):
    assert full['reconstruction'] != full['untrained']['reconstruction']
    assert flatten(suite.reconstruction(networks[2])) == flatten(
        {'reconstruction': full['untrained']['reconstruction']}
    )


def test_raw_is_the_better_of_two_descriptions(full):
    raw = full['raw']
    for feature in FEATURES:
        both = [raw[kind]['probe'][feature]['top1'] for kind in ('pca', 'statistics')]
        assert raw['probe'][feature]['top1'] == max(both)


def test_in_the_loop_names_are_flat_and_say_the_same(full, suite, networks):
    values = suite(networks[1])
    assert set(values) == {f'retrieval/{d}/{name}' for d in ('a2v', 'v2a') for name in RETRIEVAL} | {
        f'reconstruction/{m}/{band}' for m in ('audio', 'video') for band in ('low', 'high')
    }
    assert values == flatten({name: full[name] for name in ('retrieval', 'reconstruction')})
    assert all(type(value) is float for value in values.values())


def test_features_do_not_depend_on_the_batch_or_its_padding(networks, worlds):
    network, params, _ = networks
    indices = [3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 7]  # a full batch of 8 and a padded one of 3
    functions = {'n': lambda batch: network.features(params, batch)}
    many = extract(functions, worlds[1], indices, batch_size=8, threads=2)['n']
    for row in (0, 7, 8, 10):
        one = extract(functions, worlds[1], [indices[row]], batch_size=1, threads=2)['n']
        for feature in FEATURES:
            np.testing.assert_allclose(many[feature][row], one[feature][0], atol=1e-5)
    assert many['fused'].shape == (11, 256)
    assert np.abs(many['audio'][0] - many['audio'][1]).max() > 1e-3


def test_batches_fill_up_the_last_with_its_last_clip(worlds):
    parts = list(batches(worlds[1], [5, 6, 7], 2, 2))
    assert [[clip['id'] for clip in clips] for _, clips in parts] == [
        ['generated/1/5', 'generated/1/6'],
        ['generated/1/7'],
    ]
    (_, _), (last, _) = parts
    np.testing.assert_array_equal(last['frames'][0], last['frames'][1])
    np.testing.assert_array_equal(last['position'], [2, 3])


def test_spread_covers_a_source_evenly():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 9) == [0, 1, 2]
    assert len(set(spread(1_000_000, 2_048))) == 2_048
