"""A run that is told to stop ends within seconds, whatever it waits for."""

import os
import signal
import threading
import time
import types

import jax
import pytest

from diffmavil_jax import experiment
from diffmavil_jax.training.checkpoint import CheckpointStore
from diffmavil_jax.training.stop import StopSignal

LONG_S = 60.0
SOON_S = 10.0


class Sleeper:
    """Says when it begins to sleep; `begun` is what the signal waits for."""

    def __init__(self):
        self.begun = threading.Event()

    def __call__(self, *arguments, **named):
        self.begun.set()
        time.sleep(LONG_S)
        raise AssertionError('it slept to its end')

    __next__ = __call__
    compile = __call__


@pytest.fixture
def run(make_toy, tmp_path, monkeypatch, tiny):
    """Runs the experiment of a toy, with some of its parts replaced, and returns what it printed."""

    def start(capsys, **replaced):
        toy = make_toy()
        task = types.SimpleNamespace(
            notes=(),
            start=lambda state: state,
            evaluate=replaced.get('evaluate', lambda params: {}),
            finish=replaced.get('finish', lambda state, init, facts: 'the report'),
            best_metric=None,
            select_best=False,
        )
        program = types.SimpleNamespace(
            abstract=toy.abstract(),
            init=replaced.get('init', toy.init),
            init_params=None,
            lower=replaced.get('lower', toy.lower),
        )
        monkeypatch.setattr(experiment, 'make_plan', lambda config: toy.plan)
        monkeypatch.setattr(experiment, 'make_task', lambda *parts: task)
        monkeypatch.setattr(experiment, 'make_program', lambda *parts: program)
        monkeypatch.setattr(experiment, 'make_batches', lambda *parts: replaced.get('batches', toy.batches))
        if 'restore' in replaced:
            monkeypatch.setattr(CheckpointStore, 'restore', replaced['restore'])
        experiment.run_experiment(
            tiny(parallel={'compilation_cache': ''}),
            workdir=str(tmp_path / 'run'),
            overwrite=False,
            command='a test',
            started=time.time(),
        )
        return capsys.readouterr().out

    return start


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'Ctrl-C'])
@pytest.mark.parametrize(
    ('moment', 'words'),
    [
        ('restore', 'Stopped before the first step'),
        ('init', 'Stopped before the first step'),
        ('lower', 'Stopped'),
        ('batches', 'Stopped and saved at clip 0'),
        ('evaluate', 'Stopped and saved at clip 48'),
        ('finish', 'Stopped: all is trained and saved'),
    ],
)
def test_a_run_that_waits_ends_soon(moment, words, number, run, capsys):
    sleeper = Sleeper()
    replaced = {'lower': lambda index: sleeper, 'batches': lambda first: sleeper}.get(moment, sleeper)
    told_at = []

    def tell():
        assert sleeper.begun.wait(LONG_S)
        told_at.append(time.monotonic())
        os.kill(os.getpid(), number)

    threading.Thread(target=tell, daemon=True).start()
    printed = run(capsys, **{moment: replaced})
    assert time.monotonic() - told_at[0] < SOON_S
    assert words in printed


def test_after_a_stop_before_the_report_the_same_command_writes_it(run, capsys):
    sleeper = Sleeper()
    tell = threading.Thread(
        target=lambda: (sleeper.begun.wait(LONG_S), os.kill(os.getpid(), signal.SIGTERM)), daemon=True
    )
    tell.start()
    run(capsys, finish=sleeper)
    printed = run(capsys)
    assert 'Resuming at clip 72' in printed
    assert 'Report: the report' in printed


def test_what_comes_is_handed_on_and_what_fails_is_raised():
    with StopSignal() as stop:
        assert stop.wait_for(lambda: 7) == 7
        with pytest.raises(StopIteration):
            stop.wait_for(lambda: next(iter(())))
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()  # outside of a wait nothing is raised
        assert stop.wait_for(lambda: 7) is None


def test_on_several_hosts_a_wait_is_not_broken_off(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    with StopSignal() as stop:
        assert stop.wait_for(lambda: (stop._event.set(), 7)[1]) == 7
