"""What the doctor finds, and what it does where something is broken."""

import re

import av
import pytest

from diffmavil_jax import cli
from diffmavil_jax.commands import doctor
from diffmavil_jax.plan.buckets import make_plan


def test_it_tells_versions_devices_decoders_and_room(capsys):
    assert cli.main(['doctor', '--no-step']) == 0
    printed = capsys.readouterr().out
    assert re.search(r'- version jax: \d+\.\d+', printed)
    assert '- devices: 8 x cpu (cpu)' in printed
    assert '- attention in bfloat16: xla: cuDNN has none for bfloat16 on cpu' in printed
    assert re.search(r'- codecs: h264, .*aac', printed)
    assert re.search(r'- free disk here: [\d.,]+ [GMT]iB', printed)
    assert '## A step of the demo' not in printed


def test_a_check_that_fails_is_said_and_ends_no_other(capsys, monkeypatch):
    monkeypatch.delattr(av, 'codecs_available')
    assert cli.main(['doctor', '--no-step']) == 1
    printed = capsys.readouterr().out
    assert '- FAILED: AttributeError' in printed
    assert '- free disk here' in printed


@pytest.mark.slow
def test_the_first_bucket_is_run_and_timed_and_no_other(tiny):
    config = tiny()
    found = doctor.time_steps(config)
    steps = make_plan(config).buckets[0].steps  # a fraction of a second
    assert re.fullmatch(rf'\d+\.\d+ at first, \d+\.\d+ after {steps} steps', found['loss'])
    assert re.fullmatch(r'[\d,]+ clips/s in batches of 16', found['speed'])
