"""Traces of a few steps."""

import gzip
import json

import pytest

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.training.profiling import StepProfiler


def test_a_run_traces_the_steps_that_are_asked_for(make_toy, tmp_path, capsys):
    make_toy().run(tmp_path, profile_steps='2:4')
    assert 'A trace of steps 2 to 3 is in' in capsys.readouterr().out
    (perfetto,) = tmp_path.glob('profile/plugins/profile/*/perfetto_trace.json.gz')
    (_,) = tmp_path.glob('profile/plugins/profile/*/*.xplane.pb')
    names = [
        event.get('name', '') for event in json.loads(gzip.decompress(perfetto.read_bytes()))['traceEvents']
    ]
    assert sum('PjitFunction' in name or 'Execute' in name for name in names) > 0


def test_a_run_that_ends_within_them_writes_what_it_has(make_toy, tmp_path, capsys):
    make_toy().run(tmp_path, profile_steps='4:100')
    assert 'A trace of steps 4 to 5 is in' in capsys.readouterr().out


def test_without_steps_nothing_is_traced(tmp_path):
    profiler = StepProfiler('', tmp_path / 'profile', tmp_path / 'profile')
    profiler.before_step(None)
    profiler.end()
    assert not (tmp_path / 'profile').exists()


@pytest.mark.parametrize('steps', ['5', '5:', '5:5', '7:5', '-1:5', 'a:b'])
def test_what_is_no_range_is_refused(steps):
    with pytest.raises(ConfigError, match='START:STOP'):
        from_dict({'train': {'profile_steps': steps}})
