"""Several processes as one run: the same numbers, one writer, a common stop, and an end if one dies."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.mesh import batch_sharding, make_mesh
from diffmavil_jax.parallel.metrics import accumulate, finalize
from diffmavil_jax.training.checkpoint import CheckpointStore

ROOT = pathlib.Path(__file__).parents[2]
SAMPLES = 320  # 40 steps
LOGGED = 40
TIMEOUT_S = 900  # CI may be slow


def free_port():
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return listener.getsockname()[1]


def environment(devices):
    """So many devices in a process. That collectives must not be concurrent is for main.py to know."""
    flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'concurrency_optimized' not in flag]
    flags = [re.sub('device_count=[0-9]+', f'device_count={devices}', flag) for flag in flags]
    return os.environ | {'XLA_FLAGS': ' '.join(flags)}


@pytest.fixture(scope='module')
def config(tiny):
    return tiny(
        masking={'curriculum': 'none', 'end_ratio': 0.5},
        train={'samples': SAMPLES, 'log_every_samples': LOGGED},
        optimizer={'learning_rate': 1e-4, 'warmup_samples': 0, 'epsilon': 1e-6},  # see test_mesh
        checkpoint={'every_samples': LOGGED},
        evaluation={'every_samples': SAMPLES},
    )


@pytest.fixture(scope='module')
def start(config):
    """Starts a run of two processes with two devices each; kills what is left of it at the end."""
    sections = {name: part for name, part in to_dict(config).items() if isinstance(part, dict)}
    flags = [
        f'--config.{section}.{name}={",".join(map(str, x)) if isinstance(x, (list, tuple)) else x}'
        for section, fields in sections.items()
        for name, x in fields.items()
    ]
    started = []

    def start(workdir):
        flags_of_all = [
            f'--workdir={workdir}', *flags, '--config.parallel.processes=2',
            f'--config.parallel.coordinator=localhost:{free_port()}', '--config.parallel.heartbeat_s=10',
        ]  # fmt: skip
        group = [
            subprocess.Popen(
                [sys.executable, 'main.py', '--config=configs/diffmavil.py', *flags_of_all]
                + [f'--config.parallel.process={process}'],
                cwd=ROOT,
                env=environment(devices=2),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for process in range(2)
        ]
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
def alone(config, make_pretrainer):
    """Four devices of this process: training from a state and a clip on, to the last state and the logs."""
    program, batches_from = make_pretrainer(config, open_sources(config).train, jax.devices()[:4])
    step = program.lower(0).compile()

    def train(state, first):
        window, logged = {}, {}
        for samples, (batch, _) in zip(range(first, SAMPLES, 8), batches_from(first), strict=False):
            state, metrics = step(state, batch)
            window = accumulate(window, metrics)
            if (samples + 8) % LOGGED == 0:
                logged[samples + 8], window = finalize(window), {}
        return jax.device_get(state), logged

    return program, train


@pytest.fixture(scope='module')
def whole(alone):
    program, train = alone
    return train(program.init(), 0)


@dataclasses.dataclass
class Interrupted:
    """A run of two processes of which one was killed; and again, until one was told to stop."""

    workdir: pathlib.Path
    killed: tuple[list[int], list[str]]  # see `codes`
    stopped: tuple[list[int], list[str]]
    resumed_after: int  # clips


@pytest.fixture(scope='module')
def interrupted(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('interrupted') / 'run'
    group = start(workdir)
    wait_for_lines(workdir, group, 2)
    group[1].kill()
    killed, before = codes(group), lines(workdir)[-1]['samples']
    group = start(workdir)
    wait_for_lines(workdir, group, before // LOGGED + 3)
    group[1].send_signal(signal.SIGTERM)
    return Interrupted(workdir, killed, codes(group), before)


@pytest.mark.slow
def test_when_one_is_killed_the_other_ends(interrupted):
    ended, said = interrupted.killed
    assert ended[0] not in (0, 2) and ended[1] == -signal.SIGKILL, said


@pytest.mark.slow
def test_the_same_command_goes_on_and_both_stop_when_one_is_told_to(interrupted):
    ended, said = interrupted.stopped
    assert ended == [0, 0], said
    assert 'Resuming at clip ' in said[0], said
    assert 'Stopped and saved' in said[0] and 'Stopped' not in said[1]
    seen = max(int(p.name) for p in (interrupted.workdir / 'checkpoints').iterdir() if p.name.isdigit())
    assert interrupted.resumed_after + 3 * LOGGED <= seen < SAMPLES
    assert lines(interrupted.workdir)[-1]['samples'] == seen


@pytest.mark.slow
def test_two_processes_compute_what_one_does(interrupted, whole):
    logged = [line for line in lines(interrupted.workdir) if line['samples'] in whole[1]]
    assert len([line for line in logged if line['samples'] > interrupted.resumed_after]) >= 3
    assert len(logged) >= 5
    for line in logged:
        for name in ('loss', 'inter', 'audio', 'video', 'gradient_norm'):
            assert line[name] == pytest.approx(whole[1][line['samples']][name], rel=1e-5), (line, name)


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(interrupted, alone, whole):
    program, train = alone
    store = CheckpointStore(interrupted.workdir / 'checkpoints', keep_latest=1, keep_best=0, best_metric='')
    state, _ = store.restore(program.abstract)
    store.close()
    resumed, logged = train(state, int(state.samples_seen))
    assert int(resumed.samples_seen) == SAMPLES
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), resumed.params, whole[0].params)
    assert logged[SAMPLES]['loss'] == pytest.approx(whole[1][SAMPLES]['loss'], rel=1e-5)


@pytest.mark.parametrize(
    ('processes', 'tensor', 'shares'),
    [
        ([0, 0, 1, 1], 1, [(0, 2), (1, 2)]),
        ([0, 1, 1, 0], 1, [(0, 2), (1, 2)]),  # a ring through a torus, and back
        ([0, 1, 2, 3], 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # two hosts hold the same clips
        ([0, 0, 0, 0, 1, 1, 1, 1], 2, [(0, 2), (1, 2)]),
    ],
)
def test_each_process_reads_the_part_that_its_devices_hold(processes, tensor, shares, monkeypatch):
    devices = [types.SimpleNamespace(process_index=process) for process in processes]
    mesh = types.SimpleNamespace(
        devices=np.reshape(np.array(devices, object), (-1, 1, tensor)), shape={'tensor': tensor}
    )
    for process, share in enumerate(shares):
        monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
        assert hosts.share_of_batch(mesh) == share


def test_alone_it_reads_whole_batches_and_fetches_what_it_put():
    mesh = make_mesh(ParallelConfig(fsdp=2, tensor=2))
    assert hosts.share_of_batch(mesh) == (0, 1)
    batch = {'x': np.arange(16.0).reshape(8, 2)}
    placed = hosts.put_batch(batch, mesh)
    assert placed['x'].sharding == batch_sharding(mesh)
    np.testing.assert_array_equal(hosts.fetch(placed)['x'], batch['x'])
    assert (hosts.is_first(), hosts.own_name('a.jsonl')) == (True, 'a.jsonl')
