"""Each bucket is compiled once, ahead of time, by a thread that may fail or be left behind."""

import threading
import time

import jax
import pytest

from diffmavil_jax.training import background
from diffmavil_jax.training.compiled_steps import CompiledSteps

COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture
def compiled():
    """Names of the functions that XLA compiled."""
    names = []

    def listen(event, duration, **details):
        if event == COMPILED:
            names.append(details.get('fun_name', ''))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


class Fake:
    """Stands for a lowered step."""

    def __init__(self, compile):
        self.compile = compile


def test_a_run_over_two_buckets_compiles_the_step_twice(make_toy, compiled, tmp_path):
    toy = make_toy()
    state, timings = toy.run(tmp_path)
    assert int(state.samples_seen) == toy.plan.total_samples == 72
    assert compiled.count('jit(step)') == 2
    assert timings.compilations == len(toy.plan.buckets) == 2


def test_preparing_again_and_getting_twice_compiles_once():
    calls = []

    def lower(index):
        calls.append(index)
        return Fake(lambda: f'step {index}')

    steps = CompiledSteps(lower, 2)
    steps.prepare(1)
    steps.prepare(1)
    assert steps.get(1, lambda: False) == 'step 1'
    assert steps.get(1, lambda: False) == 'step 1'
    assert steps.get(0, lambda: False) == 'step 0'
    assert calls == [1, 0]


def test_there_is_nothing_to_prepare_after_the_last_bucket():
    steps = CompiledSteps(lambda index: pytest.fail(f'asked for {index}'), 1)
    steps.prepare(1)
    assert threading.active_count() >= 1
    assert not [thread for thread in threading.enumerate() if thread.name == 'compile' and thread.is_alive()]


def test_the_next_bucket_compiles_while_the_caller_goes_on():
    begun, go = threading.Event(), threading.Event()

    def compile():
        begun.set()
        assert go.wait(10)
        return 'done'

    steps = CompiledSteps(lambda index: Fake(compile), 2)
    steps.prepare(1)
    assert begun.wait(10)
    go.set()
    assert steps.get(1, lambda: False) == 'done'


@pytest.mark.parametrize('where', ['lower', 'compile'])
def test_an_error_of_the_compile_thread_is_raised_where_it_is_waited_for(where):
    def fail():
        raise ValueError(f'in {where}')

    steps = CompiledSteps(lambda index: fail() if where == 'lower' else Fake(fail), 1)
    steps.prepare(0)
    with pytest.raises(ValueError, match=f'in {where}'):
        steps.get(0, lambda: False)


def test_waiting_is_said(monkeypatch):
    monkeypatch.setattr(background, 'WAITING_EVERY_S', 0.05)
    go, said = threading.Event(), []

    def say(text):
        said.append(text)
        go.set()

    steps = CompiledSteps(lambda index: Fake(lambda: go.wait(60)), 3, say=say)
    assert steps.get(1, lambda: False)
    assert said and said[0].startswith('Compiling the step of bucket 2 of 3: ') and 's so far' in said[0]


def test_told_to_stop_while_waiting_it_returns_none():
    go = threading.Event()
    steps = CompiledSteps(lambda index: Fake(lambda: go.wait(60)), 1)
    begin = time.monotonic()
    assert steps.get(0, lambda: True) is None
    assert time.monotonic() - begin < 10
    go.set()


def test_a_released_step_is_forgotten():
    calls = []

    def lower(index):
        calls.append(index)
        return Fake(object)

    steps = CompiledSteps(lower, 1)
    first = steps.get(0, lambda: False)
    steps.release(0)
    assert steps.get(0, lambda: False) is not first
    assert calls == [0, 0]
    steps.release(5)


@pytest.mark.parametrize('rehearse', [False, True])
def test_a_rehearsed_step_has_been_executed_on_zeros(rehearse):
    seen = []

    def step(state, batch):
        jax.debug.callback(lambda x: seen.append(x.tolist()), batch['x'])
        return state + batch['x'].sum()

    shapes = jax.ShapeDtypeStruct((), 'float32'), {'x': jax.ShapeDtypeStruct((2,), 'int16')}
    steps = CompiledSteps(lambda index: jax.jit(step, donate_argnums=0).lower(*shapes), 1, rehearse=rehearse)
    compiled = steps.get(0, lambda: False)
    jax.effects_barrier()
    assert seen == [[0, 0]] * rehearse
    state = jax.numpy.float32(1)
    assert compiled(state, {'x': jax.numpy.array([2, 3], 'int16')}) == 6
