"""The watchdog, in a process of its own."""

import subprocess
import sys

import pytest

STUCK = """
import threading, time
from diffmavil_jax.training.watchdog import Watchdog

def read_a_clip():
    time.sleep({sleep})

with Watchdog({minutes}) as watchdog:
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
    done = run(minutes=0.5 / 60, sleep=30, between='')
    assert done.returncode == 1
    assert 'in read_a_clip' in done.stderr and 'Timeout' in done.stderr


@pytest.mark.parametrize(
    'values',
    [
        {'minutes': 0, 'between': ''},
        {'minutes': 0.5 / 60, 'between': 'watchdog.pause()'},
    ],
)
def test_it_bites_neither_without_a_limit_nor_while_it_is_paused(values):
    done = run(sleep=1, **values)
    assert (done.returncode, done.stdout) == (0, 'went on\n')
