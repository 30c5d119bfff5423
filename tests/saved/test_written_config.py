"""What a run wrote is read as one of today, and differences are listed."""

import json

import pytest

from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.saved.written_config import difference, from_saved


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


def test_a_run_of_before_is_the_same_run():
    old = to_dict(Config())
    compute = old.pop('compute')
    old['model'] |= compute | {'remat': False}
    old['batch']['parts'] = old['batch'].pop('microbatches')
    old['data'] |= {'train_split': 'train', 'path': ''}
    assert from_saved(old) == Config()
    assert difference(to_dict(from_saved(old)), to_dict(Config())) == []


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
