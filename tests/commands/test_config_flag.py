"""The fields of --config on the command line and in a file, under their old names."""

import pytest

from diffmavil_jax.commands import config_flag
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


@pytest.mark.parametrize('name', ['diffmavil', 'mavil', 'diffmavil_cross', 'diffmavil_fast', 'finetune'])
def test_a_preset_has_a_name_and_a_path_stays(name):
    path = config_flag.presets()[name]
    assert path.name == f'{name}.py' and path.parent.name == 'configs'
    arguments = ['main.py', f'--config={name}:help', '--config', name, '--config.name=mavil', '--plan', name]
    expected = ['main.py', f'--config={path}:help', '--config', str(path), *arguments[4:]]
    assert config_flag.with_paths(arguments) == expected
    same = [f'--config=configs/{name}.py:help', f'-config={name}.py', '--config=./x.py:a']
    assert config_flag.with_paths(same) == same


def test_a_preset_that_is_not_there_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match=r'--config=mvil:demo: must be a preset \(diffmavil, .*, mavil\)'):
        config_flag.with_paths(['--config=mvil:demo'])
