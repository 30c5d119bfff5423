"""The fields of --config on the command line and in a file, under their old names."""

import pytest

from diffmavil_jax.commands.config_flag import given_fields, values_of_file, with_new_names
from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (['--config.batch.parts=2'], '--config.batch.microbatches=2'),
        (['-config.batch.parts', '2'], '--config.batch.microbatches=2'),
        (['--config.finetune.average_decay=0.5'], '--config.finetune.ema_decay=0.5'),
        (['--config.model.dtype=bfloat16'], '--config.compute.dtype=bfloat16'),
        (['--config.model.remat=True'], '--config.compute.remat=full'),
        (['--config.model.remat'], '--config.compute.remat=full'),
        (['--config.model.remat=0'], '--config.compute.remat=auto'),
        (['--noconfig.model.remat'], '--config.compute.remat=auto'),
    ],
)
def test_a_flag_of_an_old_name_works_and_a_hint_says_the_new_one(old, new, capsys):
    others = ['main.py', '--config=x', '--noconfig.loss.second_view', '--config.seed', '3', '--workdir=y']
    assert with_new_names([*others[:3], *old, *others[3:]]) == [*others[:3], new, *others[3:]]
    before, after = given_fields(old), given_fields([new])
    assert capsys.readouterr().err == f'hint: config.{before.pop()} is now config.{after.pop()}.\n'


def test_old_and_new_name_may_agree_and_may_not_differ(capsys):
    assert with_new_names(['--config.batch.parts=2', '--config.batch.microbatches', '2']) == [
        '--config.batch.microbatches=2',
        '--config.batch.microbatches=2',
    ]
    with pytest.raises(
        ConfigError, match=r"config.batch.parts = '2': must be '4', as config.batch.microbatches"
    ):
        with_new_names(['--config.batch.microbatches=4', '--config.batch.parts=2'])


def test_a_file_may_use_an_old_name(capsys):
    values = to_dict(Config())
    values['model']['dtype'] = 'bfloat16'
    assert from_dict(values_of_file(values, ())).compute.dtype == 'bfloat16'
    assert capsys.readouterr().err == 'hint: config.model.dtype is now config.compute.dtype.\n'
    with pytest.raises(ConfigError, match=r'config.model.dtype .* config.compute.dtype'):
        from_dict(values_of_file(values, {'compute.dtype'}))
