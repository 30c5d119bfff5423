"""metrics.jsonl and TensorBoard through crashes and resumes."""

import json
import math

import numpy as np
import pytest

from diffmavil_jax.training.metrics import MetricsWriter, read_metrics


def tensorboard_bytes(workdir) -> bytes:
    return b''.join(f.read_bytes() for f in sorted((workdir / 'tensorboard').iterdir()))


def test_each_line_is_an_object_that_starts_with_samples(tmp_path):
    writer = MetricsWriter(tmp_path / 'new')
    assert writer.write(0, {'loss': 2.0})
    assert writer.write(128, {'loss': np.float32(1.5), 'lr': 1e-4})
    writer.close()
    text = (tmp_path / 'new' / 'metrics.jsonl').read_text()
    assert text == '{"samples": 0, "loss": 2.0}\n{"samples": 128, "loss": 1.5, "lr": 0.0001}\n'


def test_a_line_is_on_disk_without_close(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {'loss': 1.0})
    assert read_metrics(tmp_path) == [{'samples': 1, 'loss': 1.0}]
    assert b'loss' in tensorboard_bytes(tmp_path)
    writer.close()


def test_a_resume_never_repeats_or_goes_back(tmp_path):
    writer = MetricsWriter(tmp_path)
    for samples in (100, 200, 300):
        writer.write(samples, {'loss': 1.0})
    writer.close()
    writer = MetricsWriter(tmp_path)  # from a checkpoint at 100
    assert [writer.write(samples, {'loss': 1.0}) for samples in (200, 300, 400)] == [False, False, True]
    assert not writer.write(400, {'loss': 9.0})
    writer.close()
    assert [line['samples'] for line in read_metrics(tmp_path)] == [100, 200, 300, 400]


@pytest.mark.parametrize(
    'torn', [b'{"samples": 300, "lo', b'{"samples": 300, "loss": 1.0}', b'\x00\x00\x00\n', b'{}\n']
)
def test_a_torn_last_line_is_cut_off_and_said(tmp_path, caplog, torn):
    path = tmp_path / 'metrics.jsonl'
    whole = b'{"samples": 100, "loss": 1.0}\n{"samples": 200, "loss": 1.0}\n'
    path.write_bytes(whole + torn)
    writer = MetricsWriter(tmp_path)
    assert path.read_bytes() == whole
    assert 'torn' in caplog.text
    assert not writer.write(200, {'loss': 0.5})
    assert writer.write(300, {'loss': 0.5})
    writer.close()
    assert read_metrics(tmp_path)[-1] == {'samples': 300, 'loss': 0.5}


def test_a_first_line_can_be_torn(tmp_path):
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"sam')
    writer = MetricsWriter(tmp_path)
    assert writer.write(0, {'loss': 1.0})
    writer.close()


def test_another_file_is_not_eaten(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(b'step,loss\n1,2\n3,4\n')
    with pytest.raises(ValueError, match='line 2 is not a JSON object with samples'):
        MetricsWriter(tmp_path)
    assert path.read_bytes().startswith(b'step,loss\n1,2\n')


def test_nonfinite_numbers_are_null_and_named(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {'a': math.nan, 'b': 1.0, 'c': -math.inf})
    writer.close()
    text = (tmp_path / 'metrics.jsonl').read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f'{constant} is not JSON')

    line = json.loads(text, parse_constant=refuse)
    assert line == {'samples': 1, 'a': None, 'b': 1.0, 'c': None, 'nonfinite': ['a', 'c']}


def test_reserved_names_are_refused(tmp_path):
    writer = MetricsWriter(tmp_path)
    with pytest.raises(ValueError, match="'samples'"):
        writer.write(1, {'samples': 2.0})
    writer.close()


def test_reading_metrics_skips_an_unfinished_line(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"samples": 1}\n{"sam')
    assert read_metrics(tmp_path) == [{'samples': 1}]
