"""`open_network` opens what was saved, the same way for every consumer."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.inference import embed, reconstruct
from diffmavil_jax.inference.retrieve import retrieve
from diffmavil_jax.models import attention
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.saved.start import load_for
from diffmavil_jax.tasks.stage2 import make_objective
from experiments import cells


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


@pytest.fixture
def chosen(monkeypatch):
    """What attention was chosen for, in order: (name in the config, dtype)."""
    calls = []
    choose = attention.choose
    monkeypatch.setattr(attention, 'choose', lambda *args: calls.append(args) or choose(*args))
    return calls


@pytest.mark.parametrize(('stored', 'dtype'), [('auto', 'float32'), ('cudnn', 'bfloat16')])
def test_attention_is_chosen_for_this_machine_by_every_consumer(run, tiny, chosen, stored, dtype):
    """A run that was trained on a GPU with cuDNN's attention opens on a CPU."""
    set_compute(run, attention=stored, dtype=dtype)
    consumers = [
        lambda: embed.load(run).config,
        lambda: reconstruct.Reconstructor(run, reconstruct.Options()).config,
        lambda: make_objective(tiny(objective='stage2', teacher=str(run))).teacher.config,
        lambda: cells.on_this_machine(open_network(run).stored),
    ]
    for consumer in consumers:
        chosen.clear()
        assert consumer().compute.attention == 'xla'
        assert set(chosen) == {('auto', dtype)}
    network = open_network(run)
    assert 'cuDNN' in network.attention_reason
    # How it is computed is chosen here, what is computed stays.
    assert (network.stored.compute.attention, network.config.compute.dtype) == (stored, dtype)
    assert 'auto' not in dataclasses.astuple(network.config.compute)
    assert dataclasses.replace(network.config, compute=network.stored.compute) == network.stored


def test_retrieval_and_init_open_it_too(run, tiny, tmp_path, chosen):
    set_compute(run, attention='cudnn', dtype='bfloat16')
    with pytest.raises(DataError):  # there is no dataset, which is opened after the run
        retrieve(run, str(tmp_path), 'test', clips_per_class=1)
    assert chosen == [('auto', 'bfloat16')]
    params = load_for(tiny(init=str(run)), ('audio', 'video'))
    jax.tree.map(np.testing.assert_array_equal, params, load_params(run)[0])
    assert chosen == [('auto', 'bfloat16')] * 2


def test_a_cell_of_an_experiment_is_trained_with_it(tiny, tmp_path, chosen, monkeypatch):
    def stop(config, task, plan):
        raise StopIteration(task.objective.config.compute.attention)

    monkeypatch.setattr(cells, '_train', stop)
    with pytest.raises(StopIteration, match='xla'):
        cells.pretrain(tiny(compute={'attention': 'auto'}), tmp_path)
    assert chosen == [('auto', 'float32')]


def test_parameters_are_read_when_they_are_used(run, monkeypatch):
    network = open_network(run)
    monkeypatch.setattr('diffmavil_jax.saved.network.load_params', lambda path: ({}, 7))
    assert (network.params, network.samples_seen) == ({}, 7)


def test_a_directory_without_a_network_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match='must be the workdir of a run'):
        open_network(tmp_path)
