"""`diffmavil train` from what an installation has, in a folder that is no checkout."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The packages as a wheel has them."""
    folder = tmp_path_factory.mktemp('installed')
    build = [
        sys.executable,
        'setup.py',
        '-q',
        'build',
        f'--build-base={folder}',
        f'--build-lib={folder / "lib"}',
    ]
    egg = ['egg_info', f'--egg-base={folder}']
    subprocess.run([*build[:3], *egg, *build[3:]], cwd=ROOT, check=True, capture_output=True)
    return folder / 'lib'


@pytest.fixture
def train(installed, tmp_path):
    def run(*flags):
        return subprocess.run(
            [sys.executable, '-m', 'diffmavil_jax.cli', 'train', *flags],
            cwd=tmp_path,
            env=os.environ | {'PYTHONPATH': str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_wheel_has_one_package_with_the_presets(installed):
    assert [path.name for path in installed.iterdir()] == ['diffmavil_jax']
    presets = {path.name for path in (installed / 'diffmavil_jax' / 'configs').iterdir()}
    assert presets == {path.name for path in (ROOT / 'configs').glob('*.py')}


def test_a_config_file_may_build_on_a_preset(train, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from diffmavil_jax.configs import diffmavil\n'
        'def get_config():\n'
        "    config = diffmavil.get_config('demo')\n"
        "    config.name = 'mine'\n"
        '    return config\n'
    )
    done = train('--config', 'mine.py', '--plan')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('mine: 2 buckets')


def test_help_and_mistakes(train):
    done = train('--help')
    assert done.returncode == 0 and '--workdir' in done.stdout and ':audioset' in done.stdout
    done = train('--config=finetune:esc50', '--config.batch.sise=3')
    assert done.returncode == 2 and 'config.batch.size' in done.stderr and 'Traceback' not in done.stderr
