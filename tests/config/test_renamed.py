"""Old names of fields work for one version: in dictionaries."""

import pytest

from diffmavil_jax.config.renamed import RENAMED
from diffmavil_jax.config.schema import Config, field_type, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError


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
