"""Two processes that agree: one answer for both, and the same branch where the disk of one fails."""

import json
import pathlib
import subprocess
import sys

import pytest

from diffmavil_jax.parallel import agreement
from tests.parallel.test_hosts import environment, free_port

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT_S = 600


@pytest.fixture(scope='module')
def saw(tmp_path_factory):
    """What each of two processes saw: see pair.py."""
    directory, port = tmp_path_factory.mktemp('pair'), free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, '-m', 'tests.parallel.pair', str(number), str(port), str(directory)],
            cwd=ROOT,
            env=environment(devices=1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads((directory / f'{number}.json').read_text()) for number in range(2)]


def both(saw, name):
    assert saw[0][name] == saw[1][name]
    return saw[0][name]


def test_all_get_the_values_of_all_the_first_or_whether_any_is_true(saw):
    assert both(saw, 'gather') == [{'number': 0}, {'number': 1}]
    assert both(saw, 'first') is True
    assert both(saw, 'any') == [True, False]


def test_an_error_of_one_is_raised_by_all_which_then_go_on_together(saw):
    assert saw[1]['together'] == 'its folder is gone'
    assert saw[0]['together'].startswith('Process 1, on ')
    assert saw[0]['together'].endswith(': its folder is gone')
    assert both(saw, 'after') == 'went on'


def test_a_checkpoint_that_one_host_can_not_read_is_stepped_over_by_all(saw):
    assert both(saw, 'restored') == [8, 8.0]
    assert both(saw, 'aside') == 1
    assert both(saw, 'best') == 16  # the new one: its score is .5, and that of 8 is 1/8


def test_a_checkpoint_that_one_host_can_not_write_is_missing_on_all_and_written_later(saw):
    assert both(saw, 'refused')
    assert both(saw, 'steps') == [8, 16]
    assert both(saw, 'written') == ['', [8, 16, 24]]
    assert both(saw, 'at last') == 240


def test_alone_it_is_the_own_value():
    assert agreement.gather('x', {'a': (1, 2)}) == [{'a': (1, 2)}]
    assert agreement.first('x', 3) == 3
    assert agreement.any_of('x', True) and not agreement.any_of('x', False)
    with pytest.raises(KeyError), agreement.together('x', KeyError):
        raise KeyError
