"""`python main.py` as a user starts it: whole runs, kills, and mistakes."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.plan.table import plan_table
from diffmavil_jax.storage.lock import locked
from diffmavil_jax.storage.outputs import RUN_LOCK

ROOT = pathlib.Path(__file__).parents[1]
VARIANTS = ('demo', 'demo_plain', 'demo_long', 'folder', 'audioset', 'vggsound')
BUCKETS = 2
SAMPLES = 128
TIMEOUT_S = 900  # CI may be slow


def environment() -> dict[str, str]:
    """One device, unlike the tests of meshes; else the flags of conftest.py."""
    flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
    return os.environ | {'XLA_FLAGS': ' '.join(flags)}


def command(*flags: str, config: str = 'configs/diffmavil.py') -> list[str]:
    return [sys.executable, 'main.py', f'--config={config}', *flags]


def main(*flags: str, config: str = 'configs/diffmavil.py') -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags, config=config),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope='session')
def tiny_flags(tiny_values, tmp_path_factory):
    """A tiny run, long enough to be hit in its middle, as flags; all starts share what they compile."""
    values = tiny_values | {
        'train': {'samples': SAMPLES, 'log_every_samples': 16},
        'checkpoint': {'every_samples': 16, 'every_minutes': 60.0, 'keep_latest': 20},
        'parallel': {'compilation_cache': str(tmp_path_factory.mktemp('cache'))},
    }
    values['evaluation'] = tiny_values['evaluation'] | {'every_samples': SAMPLES // 2}
    values['loss'] = tiny_values['loss'] | {'inter_both_views': False}  # the demo's needs a second view
    return [
        f'--config.{section}.{field}={value}'
        for section, fields in values.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
    ]


@pytest.fixture(scope='session')
def finished(tiny_flags, tmp_path_factory):
    """A whole run: its directory and what it printed."""
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    return workdir, main(f'--workdir={workdir}', *tiny_flags)


def checkpoints(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit())


def arrays(workdir: pathlib.Path, samples: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by path."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(workdir / 'checkpoints' / str(samples) / 'state')
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def lookup(summary: dict, name: str):
    for part in name.split('.'):
        summary = summary[part]
    return summary


def assert_same_arrays(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    last = checkpoints(theirs)[-1]
    assert checkpoints(ours)[-1] == last
    a, b = arrays(ours, last), arrays(theirs, last)
    assert a.keys() == b.keys()
    assert len(a) > 50
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_lines_grow(workdir: pathlib.Path) -> None:
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    samples = [line['samples'] for line in lines]
    assert samples == sorted(set(samples))
    assert samples[-1] == checkpoints(workdir)[-1]


def test_a_run_writes_everything(finished):
    workdir, done = finished
    assert done.returncode == 0, done.stderr
    assert '100 %' in done.stdout
    assert str(workdir / 'report' / 'index.html') in done.stdout
    names = {p.name for p in workdir.iterdir()}
    assert names >= {
        'checkpoints',
        'metrics.jsonl',
        'tensorboard',
        'config.json',
        'environment.jsonl',
        'report',
    }
    assert any(p.stat().st_size > 1_000 for p in (workdir / 'tensorboard').iterdir())
    assert (workdir / 'report' / 'index.html').stat().st_size > 5_000
    assert json.loads((workdir / 'config.json').read_text())['batch']['size'] == 8
    (start,) = (workdir / 'environment.jsonl').read_text().splitlines()
    assert {'version jax', 'device', 'backend', 'python'} <= json.loads(start).keys()
    assert_lines_grow(workdir)
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert {'loss', 'audio', 'video', 'inter', 'mask_ratio', 'batch_size'} <= lines[0].keys()
    assert 'eval/retrieval/a2v/r10' in lines[-1]
    assert 'eval/reconstruction/audio/high' in lines[-1]


def test_the_summary_has_its_stable_names(finished):
    workdir, _ = finished
    summary = json.loads((workdir / 'report' / 'summary.json').read_text())
    for network in ('', 'untrained.', 'raw.'):
        for feature in ('audio', 'video', 'fused'):
            assert 0 <= lookup(summary, f'{network}probe.{feature}.top1') <= 1
            assert set(lookup(summary, f'{network}world.factors.{feature}')) == {
                'hue', 'size', 'pitch', 'impacts', 'shape', 'material',
            }  # fmt: skip
        for direction in ('a2v', 'v2a'):
            recalls = [lookup(summary, f'{network}retrieval.{direction}.r{k}') for k in (1, 5, 10)]
            assert recalls == sorted(recalls)
            assert 0 <= recalls[0] <= recalls[-1] <= 1
            assert 1 <= lookup(summary, f'{network}retrieval.{direction}.median_rank') <= 16
    assert lookup(summary, 'macs.saved_fraction') < 1
    assert summary['clips_seen'] == sum(b['steps'] * b['batch_size'] for b in summary['buckets']) == SAMPLES
    assert len(summary['buckets']) == summary['compilations']['train_step'] == BUCKETS
    seconds = summary['time']
    assert 0 <= seconds['data_wait_s'] <= seconds['train_s'] <= seconds['total_s']
    assert 0 < seconds['compile_s'] < seconds['total_s']


def test_a_second_start_says_that_the_run_is_complete(finished, tiny_flags):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (workdir / 'report').iterdir()}
    again = main(f'--workdir={workdir}', *tiny_flags)
    assert again.returncode == 0, again.stderr
    assert 'complete' in again.stdout
    assert {p: p.stat().st_mtime_ns for p in (workdir / 'report').iterdir()} == before


def test_another_config_in_a_used_workdir_is_refused(finished, tiny_flags):
    workdir, _ = finished
    done = main(f'--workdir={workdir}', *tiny_flags, '--config.seed=4', '--config.data.difficulty=hard')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert [line.strip() for line in done.stderr.splitlines() if line.strip().startswith('config.')] == [
        "config.data.difficulty: 'easy' -> 'hard'",
        'config.seed: 0 -> 4',
    ]


def test_a_second_start_while_a_run_is_at_work_is_refused(tiny_flags, tmp_path):
    workdir = tmp_path / 'run'
    workdir.mkdir()
    with locked(workdir / RUN_LOCK, '', '', print):
        done = main(f'--workdir={workdir}', *tiny_flags)
    assert_error(done, f'--workdir={workdir} is in use by another run, process {os.getpid()} on ', ' began ')
    assert not list(workdir.iterdir())


def start_until(condition, *flags: str) -> subprocess.Popen[str]:
    """Starts main.py and returns it as soon as the condition holds."""
    process = subprocess.Popen(
        command(*flags),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f'it ended before it could be stopped:\n{process.communicate()[0]}')
        time.sleep(0.005)
    return process


@pytest.mark.slow
def test_killed_told_to_stop_and_started_again_the_parameters_are_bit_identical(
    finished, tiny_flags, tmp_path
):
    whole, _ = finished
    workdir = tmp_path / 'run'
    flags = (f'--workdir={workdir}', *tiny_flags)
    process = start_until(lambda: len(checkpoints(workdir)) >= 2, *flags)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = checkpoints(workdir)[-1]
    assert killed_at < checkpoints(whole)[-1]

    process = start_until(lambda: checkpoints(workdir)[-1] > killed_at, *flags)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert f'Resuming at clip {killed_at:,}.' in output
    stopped_at = saved_at(output)
    assert killed_at < stopped_at == checkpoints(workdir)[-1] < checkpoints(whole)[-1]
    assert not (workdir / 'report').exists()

    done = main(*flags)
    assert done.returncode == 0, done.stderr
    assert f'Resuming at clip {stopped_at:,}.' in done.stdout
    assert_same_arrays(workdir, whole)
    assert_lines_grow(workdir)
    assert len((workdir / 'environment.jsonl').read_text().splitlines()) == 3


def saved_at(output: str) -> int:
    return int(output.split('Stopped and saved at clip ')[1].split(';')[0].replace(',', ''))


def test_ctrl_c_saves_and_exits_with_0(tiny_flags, tmp_path):
    workdir = tmp_path / 'run'
    flags = (f'--workdir={workdir}', *tiny_flags)
    process = start_until(lambda: (workdir / 'metrics.jsonl').exists() and checkpoints(workdir), *flags)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert checkpoints(workdir)[-1] == saved_at(output) < SAMPLES
    assert not (workdir / 'report').exists()


def test_told_to_stop_while_it_compiles_it_exits_with_0_at_once(tiny_flags, tmp_path):
    workdir = tmp_path / 'run'
    process = start_until(
        lambda: (workdir / 'tensorboard').exists(),
        f'--workdir={workdir}',
        *tiny_flags,
        '--config.parallel.compilation_cache=',
    )
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    # It is told either while it makes the parameters, or while it waits for the first step.
    saved = 'Stopped and saved at clip 0;' in output
    assert saved or 'Stopped before the first step: nothing to save;' in output
    assert checkpoints(workdir) == ([0] if saved else [])


@pytest.mark.parametrize('method', ['diffmavil', 'mavil'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_plans(method, variant):
    config = from_dict(importlib.import_module(f'configs.{method}').get_config(variant).to_dict())
    table = plan_table(config.name, make_plan(config), config.audio.num_tokens, config.video_tokens)
    assert table.startswith(f'{method}_{variant}: ')
    assert 'first sample' in table
    assert ' total ' in table
    rows = [line for line in table.splitlines() if line.rstrip().endswith(' %')]
    assert len(rows) >= (3 if method == 'diffmavil' else 2)
    assert 'MACs' in table


def test_a_plan_tells_memory_and_time_and_runs_nothing(tmp_path):
    workdir = tmp_path / 'run'
    done = main('--plan', f'--workdir={workdir}', config='configs/diffmavil.py')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('diffmavil_demo: 2 buckets') and 'MACs' in done.stdout
    # 2.17 M parameters, in float32, with two moments and a gradient each.
    assert 'Memory: 2.17 M parameters; 33.0 MiB of state and gradients' in done.stdout
    assert 'Time: 3.55 T operations' in done.stdout and 'v5e' in done.stdout
    assert not workdir.exists()


def test_help_lists_the_variants():
    done = main('--help')
    assert all(f':{variant}' in done.stdout for variant in VARIANTS)
    assert '--workdir' in done.stdout
    done = main(config='configs/mavil.py:help')
    assert done.returncode == 0
    assert all(f':{variant}' in done.stdout for variant in VARIANTS)


MISTAKES = {
    'unknown field': (['--config.batch.sise=3'], ['config.batch.sise', 'config.batch.size']),
    'unknown section': (['--config.bach.size=3'], ['config.bach', 'config.batch']),
    'wrong type': (['--config.batch.size=abc'], ["config.batch.size = 'abc'", 'int']),
    'number for a section': (['--config.batch=3'], ['config.batch']),
    'not a bool': (['--config.loss.second_view=maybe'], ["config.loss.second_view = 'maybe'", 'bool']),
    'short tuple': (['--config.video.mean=1'], ['config.video.mean', '3 numbers']),
    'ratio': (['--config.masking.start_ratio=1.5'], ['config.masking.start_ratio = 1.5', 'between 0 and 1']),
    'unknown flag': (['--wrkdir=x'], ['wrkdir']),
    'stray argument': (['demo'], ["'demo'", '--']),
    'no path': (['--config.data.source=folder'], ["config.data.path = ''", 'folder of media files']),
    'no dataset': (['--config.data.source=tfds'], ["config.data.path = ''", 'prepared dataset']),
    'no such chip': (['--compile_for=v9:4x4'], ["--compile_for = 'v9:4x4'", 'v5e:16x16']),
    'batch and mesh': (
        ['--config.parallel.data=3'],
        ['config.parallel', '3', '1 devices'],
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_an_error_of_a_line_or_two(mistake, tiny_flags, tmp_path):
    flags, words = MISTAKES[mistake]
    done = main(f'--workdir={tmp_path / "run"}', *tiny_flags, *flags)
    assert_error(done, *words)
    assert not (tmp_path / 'run').exists()


def assert_error(done, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(errors) <= 2
    assert errors[0].startswith('error: ')
    for word in words:
        assert word in done.stderr


def test_an_unknown_variant_a_missing_file_and_no_config_are_errors():
    assert_error(main(config='configs/diffmavil.py:imagenet'), "'imagenet'", *VARIANTS)
    assert_error(main(config='configs/nothing.py'), 'configs/nothing.py')
    done = subprocess.run(
        [sys.executable, 'main.py'], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert_error(done, '--config')


def test_a_folder_without_media_and_a_workdir_in_the_way_are_errors(tiny_flags, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'notes.txt').write_text('no media here')
    done = main(
        f'--workdir={tmp_path / "run"}',
        *tiny_flags,
        '--config.data.source=folder',
        f'--config.data.path={tmp_path / "empty"}',
    )
    assert_error(done, str(tmp_path / 'empty'))
    assert not (tmp_path / 'run').exists()
    (tmp_path / 'file').write_text('')
    assert_error(main(f'--workdir={tmp_path / "file"}', *tiny_flags), f'--workdir={tmp_path / "file"}')
