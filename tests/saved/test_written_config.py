"""What a run wrote is read as one of today, and differences are listed."""

import json

import pytest

from diffmavil_jax.config.schema import Config, from_dict, to_dict, to_flags
from diffmavil_jax.saved.written_config import as_begun, changes, difference, from_saved


@pytest.mark.parametrize(
    ('text', 'value'), [('', ()), ('a', ('a',)), ('a,b', ('a', 'b')), ('x, y', ('x', ' y'))]
)
def test_lists_that_were_texts(text, value):
    """A path may have spaces and commas of its own."""
    written = to_dict(Config())
    written['data']['path'] = text
    config = from_saved(written)
    assert (config.data.path, config.data.folder) == (value, text)
    assert from_saved(json.loads(json.dumps(to_dict(config)))) == config
    assert changes(written, config) == []


def test_weights_that_were_a_text_are_the_same_numbers():
    written = to_dict(Config())
    written['data'] |= {'source': 'tfds', 'path': 'a, b', 'weights': '2.0, .5'}
    assert changes(written, from_dict({'data': {'source': 'tfds', 'path': 'a, b', 'weights': '2,0.5'}})) == []
    other = from_dict({'data': {'source': 'tfds', 'path': 'a, b', 'weights': (2.0, 0.25)}})
    assert changes(written, other) == ["config.data.weights: '2,0.5' -> '2,0.25'"]


def test_a_field_that_is_not_known_here_is_a_difference():
    assert changes(to_dict(Config()) | {'temper': 3}, Config()) == ["config.temper: 3 -> 'absent'"]


@pytest.mark.parametrize('unroll', [1, 4])
def test_a_run_of_before_is_the_same_run(unroll):
    old = to_dict(Config())
    compute = old.pop('compute')
    old['model'] |= compute | {'remat': False, 'scan_unroll': unroll}
    old['batch']['parts'] = old['batch'].pop('microbatches')
    old['data'] |= {'train_split': 'train', 'path': ''}
    assert from_saved(old) == Config()
    assert changes(old, Config()) == []


def test_difference_lists_each_field_once():
    old = to_dict(Config())
    new = to_dict(from_dict({'seed': 3, 'batch': {'size': 64}, 'model': {'size': 'S'}}))
    assert difference(old, new) == [
        'config.batch.size: 512 -> 64',
        "config.model.size: 'B' -> 'S'",
        'config.seed: 0 -> 3',
    ]
    assert difference(old, old) == []


def test_difference_takes_a_list_for_a_tuple_and_names_what_is_absent():
    old = to_dict(Config())
    assert difference(json.loads(json.dumps(old)), old) == []
    assert difference({'a': 1}, {'b': {'c': None}}) == [
        "config.a: 1 -> 'absent'",
        "config.b: 'absent' -> {'c': None}",
    ]
    assert difference({}, {'c': None}) == ["config.c: 'absent' -> None"]


def test_a_run_of_before_goes_on_without_what_its_preset_has_since(tmp_path):
    written = to_dict(Config())
    written['finetune'] |= {'roll': True, 'gain_db': 0.0}
    del written['augmentation'], written['data']['video_seconds'], written['finetune']['spec_augment_fill']
    (tmp_path / 'fold1').mkdir()
    (tmp_path / 'fold1' / 'config.json').write_text(json.dumps(written))
    preset = to_flags(Config())
    preset['augmentation'] |= {'roll': True, 'gain': True, 'flip': 0.5}
    preset['data'] |= {'video_seconds': 1.0, 'frames': 4}
    preset['finetune'] |= {'folds': 'fold1,fold2', 'spec_augment_fill': 'zero'}
    values, kept = as_begun(preset, {'augmentation.flip'}, tmp_path)
    assert kept == ['data.video_seconds', 'augmentation.gain', 'finetune.spec_augment_fill']
    assert values['augmentation'] == to_flags(Config())['augmentation'] | {'roll': True, 'flip': 0.5}
    assert values['data']['frames'] == 4, 'a field that the run knows is compared, not changed'
    assert as_begun(preset, (), tmp_path / 'new') == (preset, [])
    (tmp_path / 'config.json').write_text('{broken')
    assert as_begun(preset, (), tmp_path) == (preset, [])
