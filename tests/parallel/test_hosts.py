"""Several processes as one run: the same numbers, one writer, a common stop, and an end if one dies."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from diffmavil_jax.config import ParallelConfig
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.mesh import batch_sharding, make_mesh
from diffmavil_jax.pretrained import load_params

ROOT = pathlib.Path(__file__).parents[2]
SAMPLES = 320  # 40 steps
DEVICES = 4
TIMEOUT_S = 300


def free_port():
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return listener.getsockname()[1]


@pytest.fixture(scope='module')
def start(tiny_values):
    """Starts a run of some processes with four devices together; kills what is left of it at the end."""
    values = tiny_values | {
        'masking': {'curriculum': 'none', 'end_ratio': 0.5},
        'train': {'samples': SAMPLES, 'log_every_samples': 40},
        'optimizer': {'learning_rate': 2e-5, 'warmup_samples': 0},  # see test_mesh
        'checkpoint': {'every_samples': SAMPLES, 'every_minutes': 60.0},
        'evaluation': tiny_values['evaluation'] | {'every_samples': SAMPLES, 'probe_train_clips': 0},
    }
    sections = {name: fields for name, fields in values.items() if isinstance(fields, dict)}
    flags = [f'--config.{section}.{k}={v}' for section, fields in sections.items() for k, v in fields.items()]
    started = []

    def start(workdir, processes):
        parallel = f'--config.parallel.coordinator=localhost:{free_port()}'
        xla = f'--xla_force_host_platform_device_count={DEVICES // processes}'
        group = []
        for process in range(processes):
            own = [
                parallel,
                f'--config.parallel.processes={processes}',
                f'--config.parallel.process={process}',
            ]
            command = [sys.executable, 'main.py', '--config=configs/diffmavil.py', f'--workdir={workdir}']
            group.append(
                subprocess.Popen(
                    command + flags + own * (processes > 1),
                    cwd=ROOT,
                    env=os.environ | {'XLA_FLAGS': f'{xla} --xla_backend_optimization_level=0'},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        started.extend(group)
        return group

    yield start
    for process in started:
        process.kill()
        process.communicate()


def codes(group):
    """The exit codes of all, with what they said for a failed assertion to show."""
    said = [process.communicate(timeout=TIMEOUT_S)[0] for process in group]
    return [process.returncode for process in group], said


def lines(workdir):
    path = workdir / 'metrics.jsonl'
    text = path.read_text() if path.exists() else ''
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]


def wait_for_lines(workdir, group, count):
    deadline = time.monotonic() + TIMEOUT_S
    while len(lines(workdir)) < count:
        assert all(process.poll() is None for process in group), codes(group)
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope='module')
def alone(start, tmp_path_factory):
    """The workdir of one process that ran to its end."""
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    (code,), said = codes(start(workdir, 1))
    assert code == 0, said
    return workdir


@pytest.fixture(scope='module')
def stopped(start, tmp_path_factory):
    """The workdir of two processes, of which one was told to stop; and their exit codes and words."""
    workdir = tmp_path_factory.mktemp('stopped') / 'run'
    group = start(workdir, 2)
    wait_for_lines(workdir, group, 2)
    group[1].send_signal(signal.SIGTERM)
    return workdir, *codes(group)


def test_two_processes_stop_together_when_one_is_told_to(stopped):
    workdir, ended, said = stopped
    assert ended == [0, 0], said
    assert 'Stopped and saved' in said[0] and 'Stopped' not in said[1]
    seen = [int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()]
    assert len(seen) == 1 and 80 <= seen[0] < SAMPLES
    assert lines(workdir)[-1]['samples'] == seen[0]


def test_two_processes_compute_what_one_does(stopped, alone):
    ours, theirs = ({line['samples']: line for line in lines(path)} for path in (stopped[0], alone))
    for samples in (40, 80):
        for name in ('loss', 'inter', 'audio', 'video', 'gradient_norm'):
            assert ours[samples][name] == pytest.approx(theirs[samples][name], rel=1e-5), (samples, name)


def test_one_process_goes_on_where_two_stopped(stopped, alone, start):
    (code,), said = codes(start(stopped[0], 1))
    assert code == 0 and 'Resuming at clip' in said[0], said
    (ours, seen), (theirs, _) = load_params(stopped[0]), load_params(alone)
    assert seen == SAMPLES
    # Adam moves a parameter by up to 2e-5 a step; where the gradient is rounding, either way.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)
    last, expected = (lines(path)[-1] for path in (stopped[0], alone))
    assert last['samples'] == expected['samples'] == SAMPLES
    assert last['loss'] == pytest.approx(expected['loss'], rel=1e-3)


def test_when_one_is_killed_the_other_ends_with_an_error(start, tmp_path):
    group = start(tmp_path / 'run', 2)
    wait_for_lines(tmp_path / 'run', group, 1)
    group[1].kill()
    ended, said = codes(group)
    assert ended[0] != 0 and ended[1] == -signal.SIGKILL, said


def test_alone_it_reads_whole_batches_and_fetches_what_it_put():
    mesh = make_mesh(ParallelConfig(fsdp=2, tensor=2))
    assert hosts.share_of_batch(mesh) == (0, 1)
    batch = {'x': np.arange(16.0).reshape(8, 2)}
    placed = hosts.put_batch(batch, mesh)
    assert placed['x'].sharding == batch_sharding(mesh)
    np.testing.assert_array_equal(hosts.fetch(placed)['x'], batch['x'])
    assert (hosts.is_first(), hosts.agree(True), hosts.own_name('a.jsonl')) == (True, True, 'a.jsonl')
