"""Trackers get the lines of metrics.jsonl, a resumed run goes on as the same one, and none ends a run."""

import json
import os

import pytest

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.training import trackers
from diffmavil_jax.training.metrics import MetricsWriter, read_metrics

CONFIG = {'train': {'samples': 96}}


class Recorder:
    """A tracker that keeps what it is given."""

    known: list = []

    def __init__(self, workdir, name, config, identity):
        self.identity = identity or f'run {len(self.known)}'
        self.lines, self.closed = [], False
        self.known.append(self)

    def log(self, samples, values):
        self.lines.append((samples, values))

    def close(self):
        self.closed = True


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(Recorder, 'known', [])
    monkeypatch.setitem(trackers.TRACKERS, 'wandb', Recorder)
    return Recorder


def start(workdir, *lines, names=('wandb',)):
    """One start of a run, which writes these lines."""
    writer = MetricsWriter(workdir, trackers.open_trackers(names, workdir, 'demo', CONFIG))
    for samples, values in lines:
        writer.write(samples, values)
    writer.close()


def test_a_resumed_run_is_the_same_run_and_no_line_comes_twice(recorder, tmp_path):
    start(tmp_path, (16, {'loss': 3.0}), (32, {'loss': 2.0, 'bad': float('nan')}))
    start(tmp_path, (32, {'loss': 2.0}), (48, {'loss': 1.0}))
    first, second = recorder.known
    assert first.identity == second.identity and first.closed and second.closed
    assert first.lines + second.lines == [
        (16, {'loss': 3.0}),
        (32, {'loss': 2.0}),
        (48, {'loss': 1.0}),
    ]


def test_a_tracker_that_fails_ends_no_run(recorder, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ConnectionError('no answer')

    monkeypatch.setattr(recorder, 'log', fail)
    monkeypatch.setattr(recorder, 'close', fail)
    start(tmp_path, (16, {'loss': 3.0}))
    assert [line['loss'] for line in read_metrics(tmp_path)] == [3.0]
    assert caplog.text.count('A tracker failed: ConnectionError: no answer') == 2


def test_a_tracker_that_can_not_be_opened_or_is_not_installed_is_an_error(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError('no API key\nsecond line')

    monkeypatch.setitem(trackers.TRACKERS, 'wandb', refuse)
    with pytest.raises(ConfigError, match=r'wandb can not be opened \(PermissionError: no API key\)'):
        start(tmp_path)
    assert not (tmp_path / trackers.FILE).exists()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow needs its package: pip install -e '\.\[mlflow\]'"):
        trackers.check_trackers(['mlflow'])


def test_the_config_names_them():
    assert from_dict({'train': {'trackers': ['mlflow', 'wandb']}}).train.trackers == ('mlflow', 'wandb')
    with pytest.raises(ConfigError, match='config.train.trackers'):
        from_dict({'train': {'trackers': ['tensorboard']}})


@pytest.mark.slow
def test_mlflow_has_one_run_with_all_lines(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    start(tmp_path, (16, {'loss': 3.0, 'eval/a2v_r10': 0.5}), names=('mlflow',))
    start(tmp_path, (32, {'loss': 2.0}), names=('mlflow',))
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / 'mlruns').as_uri())
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ('demo', 'FINISHED')
    losses = client.get_metric_history(run.info.run_id, 'loss')
    assert [(metric.step, metric.value) for metric in losses] == [(16, 3.0), (32, 2.0)]
    assert run.data.metrics['eval/a2v_r10'] == 0.5
    folder = client.download_artifacts(run.info.run_id, 'config.json', str(tmp_path))
    with open(folder, encoding='utf-8') as file:
        assert json.load(file) == CONFIG


def journal(data):
    """The records of a W&B file: LevelDB's log format after a header of 7 bytes."""
    at, record = 7, b''
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:  # no header fits into the rest of a block
            at += 32_768 - at % 32_768
        size, kind = int.from_bytes(data[at + 4 : at + 6], 'little'), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b''


@pytest.mark.slow
def test_wandb_offline_keeps_all_lines_under_one_name(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv('WANDB_MODE', 'offline')
    for name in [name for name in os.environ if name.startswith('WANDB_') and name != 'WANDB_MODE']:
        monkeypatch.delenv(name)
    start(tmp_path, (16, {'loss': 3.0}))
    start(tmp_path, (32, {'loss': 2.0}))
    names, lines = set(), []
    for path in sorted(tmp_path.glob('wandb/offline-run-*/*.wandb')):
        for data in journal(path.read_bytes()):
            record = Record.FromString(data)
            if record.HasField('run'):
                names.add(record.run.run_id)
            if record.HasField('history'):
                items = {
                    item.nested_key[0] if item.nested_key else item.key: item.value_json
                    for item in record.history.item
                }
                lines.append((record.history.step.num, json.loads(items['loss'])))
    assert len(names) == 1 and names == {json.loads((tmp_path / trackers.FILE).read_text())['wandb']}
    assert lines == [(16, 3.0), (32, 2.0)]
