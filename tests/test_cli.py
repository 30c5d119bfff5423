"""The `diffmavil` command: its help, its errors, and a dataset from end to end."""

import argparse
import atexit
import json
import pathlib
import subprocess
import sys

import pytest

from diffmavil_jax import cli
from diffmavil_jax.commands.command import Command, run_command
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError

DATA = pathlib.Path(__file__).parent / 'data'


def prepare(*flags):
    return cli.main(['prepare', *flags])


def test_help_names_the_commands_the_sources_and_the_flags(capsys):
    with pytest.raises(SystemExit, match='0'):
        cli.main(['--help'])
    assert 'prepare' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='0'):
        cli.main(['prepare', '--help'])
    out = capsys.readouterr().out
    sources = ('folder', 'csv', 'audioset', 'vggsound', 'esc50', 'esc10', 'speech_commands', 'spoken_digit')
    assert all(f'\n  {source} ' in out for source in sources)
    assert '--runner' in out and '--labels' in out and '(default: 256)' in out


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ([], 'required: COMMAND'),
        (['prepar'], "invalid choice: 'prepar'"),
        (['prepare', '--source=esc10'], 'required: --input, --output'),
        (['prepare', '--source=esc', '--input=x', '--output=y'], "invalid choice: 'esc'"),
        (['prepare', '--source=esc10', '--input=x', '--output=y', '--fraems=8'], 'arguments: --fraems=8'),
        (
            ['prepare', '--source=esc10', '--input=x', '--output=y', '--frames=many'],
            "invalid int value: 'many'",
        ),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys, flags, message):
    with pytest.raises(SystemExit) as error:
        cli.main(flags)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith('error: ') and message in line and line.count('\n') == 1


def test_help_loads_nothing_heavy():
    code = (
        'import sys\nfrom diffmavil_jax import cli\n'
        'try: cli.main(["prepare", "--help"])\nexcept SystemExit: pass\n'
        'heavy = {"jax", "apache_beam", "tensorflow_datasets", "matplotlib"} & set(sys.modules)\n'
        'sys.exit(f"loads {heavy}" if heavy else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (ConfigError('config.x = 1:\n  must be 2'), 2, 'error: config.x = 1: must be 2\n'),
        (DataError('a  b.mp4 is empty'), 2, 'error: a  b.mp4 is empty\n'),
        (KeyboardInterrupt(), 130, 'error: stopped; it goes on\n'),
    ],
)
def test_a_command_that_raises_ends_with_one_line_and_an_exit_code(capsys, monkeypatch, error, code, line):
    def run(flags):
        raise error

    monkeypatch.setattr(atexit, 'register', lambda *_: None)
    command = Command('', lambda parser: None, run, when_stopped='stopped; it goes on')
    assert run_command(command, argparse.Namespace()) == code
    assert capsys.readouterr().err == line


class TestWithBeam:
    @pytest.fixture(autouse=True)
    def beam(self):
        pytest.importorskip('apache_beam', reason='diffmavil prepare needs apache-beam, the extra build')

    @pytest.mark.parametrize(
        ('flags', 'message'),
        [
            (['--source=folder', '--input=nowhere'], 'nowhere is not a folder'),
            (['--source=folder', f'--input={DATA / "golden"}'], 'No media in'),
            (
                ['--source=esc10', f'--input={DATA / "esc10"}', '--seconds=long'],
                '--seconds=long: must be from',
            ),
            (['--source=esc10', f'--input={DATA / "esc10"}', '--keep=loud'], '--keep=loud: must be silent'),
            (
                ['--source=esc10', f'--input={DATA / "esc10"}', '--name=My set'],
                '--name=My set: must be lower',
            ),
            (
                ['--source=esc10', f'--input={DATA / "esc10"}', '--modalities=video'],
                'All of 6 clips were refused',
            ),
        ],
    )
    def test_a_wrong_input_is_one_line_and_exit_code_2(self, tmp_path, capsys, flags, message):
        assert prepare(*flags, f'--output={tmp_path}', '--workers=1') == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith('error: ') and message in line

    def test_a_dataset_from_end_to_end(self, tmp_path, capsys):
        flags = [
            '--source=csv', f'--input={tmp_path}', f'--output={tmp_path / "out"}', '--name=mine',
            '--workers=1', '--seconds=1', '--frames=2', '--frame_size=64', '--jpeg_quality=80',
            '--shard_clips=4', '--keep=still',
        ]  # fmt: skip
        (tmp_path / 'media').symlink_to(DATA / 'media')
        rows = [
            'media/spring_0004.mp4,train,film',
            'media/<i>gone.mp4,test,film',
            'media/tos_battle.webm,test,a&b',
        ]
        (tmp_path / 'list.csv').write_text('\n'.join(['path,split,label', *rows]))
        assert prepare(*flags) == 0
        folder = tmp_path / 'out' / 'mine' / '1.0.0'
        out = capsys.readouterr().out
        assert f'{folder}: 10 of 11 clips. Report: {folder}/prepare_report.html' in out
        assert 'refused 1: missing' in out
        report = json.loads((folder / 'prepare_report.json').read_text())
        assert report['written'] == 10 and report['refused'] == {'missing': 1}
        assert report['settings']['jpeg_quality'] == 80 and report['settings']['shard_clips'] == 4
        page = (folder / 'prepare_report.html').read_text()
        assert 'of 11 clips written' in page and '&lt;i&gt;gone.mp4' in page and '<i>' not in page
        assert json.loads((folder / 'metadata.json').read_text())['class_names'] == ['a&b', 'film']
        (folder / 'prepare_report.html').unlink()
        assert prepare(*flags) == 0
        assert 'was there already, 10 of 11 clips' in capsys.readouterr().out
        assert (folder / 'prepare_report.html').read_text() == page

    def test_another_runner_of_beam_with_flags_of_its_own(self, tmp_path):
        flags = ['--source=spoken_digit', f'--input={DATA / "fsdd"}', f'--output={tmp_path}']
        beam_flags = ['--job_endpoint=embed', '--environment_type=LOOPBACK']
        assert prepare(*flags, '--runner=PortableRunner', '--', *beam_flags) == 0
        report = json.loads((tmp_path / 'spoken_digit' / '1.0.0' / 'prepare_report.json').read_text())
        assert report['written'] == 12 and report['runner'] == 'PortableRunner'
