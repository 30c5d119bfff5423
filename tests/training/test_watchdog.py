"""The watchdog, in a process of its own."""

import subprocess
import sys

import pytest

STUCK = """
import threading, time
from diffmavil_jax.training.watchdog import Watchdog

def read_a_clip():
    time.sleep({sleep})

with Watchdog({minutes}, {pause_minutes}) as watchdog:
    for _ in range(3):
        watchdog.step()
        time.sleep(0.15)
    {between}
    read_a_clip()
print('went on')
"""


def run(**values):
    code = STUCK.format(**values)
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_step_that_hangs_ends_the_process_and_shows_where():
    done = run(minutes=0.5 / 60, pause_minutes=0, sleep=30, between='')
    assert done.returncode == 1
    assert 'in read_a_clip' in done.stderr and 'Timeout' in done.stderr


def test_a_pause_that_hangs_does_so_as_well():
    done = run(minutes=0, pause_minutes=0.5 / 60, sleep=30, between='watchdog.pause()')
    assert done.returncode == 1
    assert 'in read_a_clip' in done.stderr


@pytest.mark.parametrize(
    'values',
    [
        {'minutes': 0, 'pause_minutes': 0.1 / 60, 'between': ''},
        {'minutes': 0.5 / 60, 'pause_minutes': 0, 'between': 'watchdog.pause()'},
        {'minutes': 0.5 / 60, 'pause_minutes': 20 / 60, 'between': 'watchdog.pause()'},
        {'minutes': 20 / 60, 'pause_minutes': 0.5 / 60, 'between': 'watchdog.pause(); watchdog.step()'},
    ],
)
def test_it_bites_only_above_the_limit_of_what_is_going_on(values):
    done = run(sleep=1, **values)
    assert (done.returncode, done.stdout) == (0, 'went on\n')
