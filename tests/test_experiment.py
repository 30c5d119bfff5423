"""What the processes of a run check before they start together, and a run in a bucket."""

import dataclasses
import time
import types

import chex
import orbax.checkpoint as ocp
import pytest

from diffmavil_jax import experiment
from diffmavil_jax.config.schema import to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage import run_files
from diffmavil_jax.training.checkpoint import CheckpointStore
from diffmavil_jax.training.metrics import read_metrics
from tests import bucket as bucket_module


class Source(list):
    label_names = ('cat', 'dog')


def clips(count):
    """Sources with so many training clips."""
    return types.SimpleNamespace(train=Source(range(count)), held_out=Source(range(1)))


@pytest.fixture
def first(monkeypatch):
    """Says what process 0 has."""

    def say(config, count):
        theirs = {
            'config': to_dict(config),
            'clips': {'training': count, 'held out': 1, 'classes': ['cat', 'dog']},
        }
        monkeypatch.setattr(experiment.agreement, 'first', lambda name, value: theirs)

    return say


def test_another_config_or_other_clips_than_those_of_the_first_process_are_refused(first, tiny):
    first(tiny(seed=3), 8)
    message = r'unlike process 0, there is\n  clips.training: 8 -> 7\n  config.seed: 3 -> 0'
    with pytest.raises(ConfigError, match=message):
        experiment._check_alike(tiny(), clips(7))


def test_what_belongs_to_a_host_may_differ(first, tiny):
    config = tiny()
    first(config, 8)
    own = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, threads=7),
        parallel=dataclasses.replace(config.parallel, process=1),
    )
    experiment._check_alike(own, clips(8))


def test_where_hosts_differ_in_attention_all_take_what_all_have(monkeypatch, tiny):
    monkeypatch.setattr(experiment.agreement, 'gather', lambda name, value: [value, value and 'cudnn'])
    assert experiment._attention(tiny())[0] == 'xla'
    monkeypatch.setattr(experiment.agreement, 'gather', lambda name, value: [value, value])
    chosen, reason = experiment._attention(tiny())
    assert (chosen, reason) == experiment.choose(tiny().compute.attention, tiny().compute.dtype)


@pytest.fixture(scope='module')
def short(tiny):
    """A run of six steps."""
    return tiny(
        masking={'buckets': 1},
        batch={'rule': 'fixed'},
        train={'samples': 48, 'log_every_samples': 8},
        checkpoint={'every_samples': 16, 'keep_latest': 20},
        evaluation={'every_samples': 48},
    )


def run(config, workdir):
    experiment.run_experiment(
        config, workdir=str(workdir), overwrite=False, command='test', started=time.time()
    )


def arrays(folder, samples):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder / 'checkpoints' / str(samples) / 'state')


def lines(folder):
    """Lines of metrics without what depends on the time."""
    return [{k: v for k, v in line.items() if k != 'clips_per_second'} for line in read_metrics(folder)]


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing is closed that a kill would not close."""


@pytest.mark.slow
def test_a_run_in_a_bucket_that_is_killed_and_resumed_is_the_one_of_a_directory(
    short, one_device, bucket, tmp_path, monkeypatch, capsys
):
    run(short, f'file://{tmp_path}/local')
    save = CheckpointStore.save

    def killed_before(store, samples, *args, **named):
        if samples == 32:
            monkeypatch.setattr(run_files.Copied, 'close', lambda files: None)
            raise Killed
        return save(store, samples, *args, **named)

    monkeypatch.setattr(CheckpointStore, 'save', killed_before)
    with pytest.raises(Killed):
        run(short, 'gs://bucket/run')
    monkeypatch.undo()
    folder = bucket_module.install(monkeypatch, tmp_path / 'buckets') / 'run'
    assert [line['samples'] for line in lines(folder)] == [8, 16, 24, 32]
    assert not (folder / 'report').exists()

    capsys.readouterr()
    run(short, 'gs://bucket/run')
    printed = capsys.readouterr().out
    assert 'Resuming at clip 16.' in printed and 'Report: gs://bucket/run/report/index.html' in printed
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / 'local').iterdir()}
    assert lines(folder) == lines(tmp_path / 'local')
    assert len((folder / 'environment.jsonl').read_text().splitlines()) == 2
    ours, theirs = arrays(folder, 48), arrays(tmp_path / 'local', 48)
    chex.assert_trees_all_equal(ours, theirs)
    names = [sorted(p.name for p in (root / 'report').iterdir()) for root in (folder, tmp_path / 'local')]
    assert names[0] == names[1]

    run(short, 'gs://bucket/run')
    assert 'The run is complete; its report is gs://bucket/run/report/index.html' in capsys.readouterr().out
    with pytest.raises(ConfigError, match='holds a run of another config'):
        run(dataclasses.replace(short, seed=5), 'gs://bucket/run')


def test_a_bucket_that_takes_no_checkpoints_is_refused_before_anything(tiny, monkeypatch):
    monkeypatch.setattr(experiment, 'open_sources', None)
    with pytest.raises(ConfigError, match='--workdir=s3://bucket/run: must be a directory, or begin with gs'):
        run(tiny(), 's3://bucket/run')
