"""`open_network`: one way to open what was saved, whoever opens it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.inference import embed, reconstruct
from diffmavil_jax.models import attention
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.tasks.stage2 import make_objective


@pytest.fixture(scope='module')
def run(make_run):
    return make_run(samples=48)


def set_compute(run, **changes):
    path = run / 'config.json'
    values = json.loads(path.read_text())
    values['compute'] |= changes
    path.write_text(json.dumps(values))


def test_it_has_the_config_and_the_parameters(run):
    network = open_network(run)
    assert (network.stored.name, network.config.compute.attention, network.card) == ('tiny', 'xla', None)
    assert (network.samples_seen, network.lacking(['encoder_audio', 'fusion'])) == (48, ())
    jax.tree.map(np.testing.assert_array_equal, network.params, load_params(run)[0])


@pytest.mark.parametrize(('stored', 'dtype'), [('auto', 'float32'), ('cudnn', 'bfloat16')])
def test_attention_is_chosen_for_this_machine_by_whoever_opens_it(run, tiny, monkeypatch, stored, dtype):
    """A run that was trained on a GPU with cuDNN's attention opens on a CPU."""
    asked = []
    choose = attention.choose
    monkeypatch.setattr(attention, 'choose', lambda *args: asked.append(args) or choose(*args))
    set_compute(run, attention=stored, dtype=dtype)
    openers = [
        lambda: embed.load(run).config,
        lambda: reconstruct.Reconstructor(run, reconstruct.Options()).config,
        lambda: make_objective(tiny(objective='stage2', teacher=str(run))).teacher.config,
    ]
    for number, opener in enumerate(openers, 1):
        assert opener().compute.attention == 'xla'
        assert asked == [('auto', dtype)] * number
    network = open_network(run)
    assert 'cuDNN' in network.attention_reason
    assert network.stored == dataclasses.replace(
        network.config, compute=dataclasses.replace(network.config.compute, attention=stored)
    )


def test_parameters_are_read_when_they_are_used(run, monkeypatch):
    network = open_network(run)
    monkeypatch.setattr('diffmavil_jax.saved.network.load_params', lambda path: ({}, 7))
    assert (network.params, network.samples_seen) == ({}, 7)


def test_a_directory_without_a_network_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match='must be the workdir of a run'):
        open_network(tmp_path)
