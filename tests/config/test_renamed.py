"""Old names of fields work for one version: in dictionaries and in what a run wrote."""

import json

import pytest

from diffmavil_jax.config.renamed import RENAMED
from diffmavil_jax.config.schema import Config, field_type, from_dict, from_saved, to_dict
from diffmavil_jax.config.tree import ConfigError, difference


def test_every_new_name_is_a_field():
    for new in RENAMED.values():
        assert field_type(f'config.{new}')


def test_dictionaries():
    config = from_dict({'model': {'dtype': 'bfloat16', 'size': 'S'}, 'finetune': {'average_decay': 0.5}})
    assert (config.compute.dtype, config.model.size, config.finetune.ema_decay) == ('bfloat16', 'S', 0.5)


@pytest.mark.parametrize(('old', 'new'), RENAMED.items())
def test_two_values_of_one_field_are_refused(old, new):
    (old_section, old_name), (section, name) = old.split('.'), new.split('.')
    here = to_dict(Config())[section][name]
    assert from_dict({old_section: {old_name: here}} | {section: {name: here}}) == Config()
    both = {old_section: {old_name: 'x'}}
    both.setdefault(section, {})[name] = here
    with pytest.raises(
        ConfigError, match=f"config.{old} = 'x': must be {here!r}, as config.{new}: it is the old"
    ):
        from_dict(both)


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
