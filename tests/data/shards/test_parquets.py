"""The bytes of rows come out of Parquet by batches, and damages are named."""

import pyarrow as pa
import pytest

from diffmavil_jax.data.shards import parquets
from tests.data.shards.writing import held, parquet

DATA = [bytes([i]) * (i + 1) for i in range(50)]


def take(path, row, target, column='audio'):
    assert parquets.take_out(str(path), column, row, str(target))
    return target.read_bytes()


@pytest.mark.parametrize('values', [[held(data) for data in DATA], pa.array(DATA, pa.large_binary())])
def test_rows_in_any_order(tmp_path, values):
    path = parquet(tmp_path / 'x.parquet', {'audio': values}, row_group_size=20)
    for row in (0, 1, 7, 8, 45, 46, 3, 19, 20, 49):
        assert take(path, row, tmp_path / 'out') == DATA[row]
    with pytest.raises(parquets.ParquetError, match='has 50 rows, and no row 50'):
        take(path, 50, tmp_path / 'out')


def test_passing_over_many_rows_takes_several_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(parquets, '_CALL_S', 0.0)
    path = parquet(tmp_path / 'x.parquet', {'audio': [held(data) for data in DATA]})
    done = [parquets.take_out(str(path), 'audio', 30, str(tmp_path / 'out')) for _ in range(8)]
    assert done[0] is False and done[-1] is True
    assert (tmp_path / 'out').read_bytes() == DATA[30]


def test_a_row_without_bytes(tmp_path):
    path = parquet(tmp_path / 'x.parquet', {'audio': [held(b'A'), held(None), None]})
    for row in (1, 2):
        with pytest.raises(parquets.ParquetError, match=f'row {row} has no bytes in its column audio'):
            take(path, row, tmp_path / 'out')


def test_the_footer(tmp_path):
    columns = {'audio': [held(data) for data in DATA], 'labels': [['a']] * 50, 'when': [{'x': 1}] * 50}
    path = parquet(tmp_path / 'x.parquet', columns, row_group_size=20, features={'audio': {'_type': 'Audio'}})
    table = parquets.describe(str(path))
    assert table.kinds == {'audio': 'media', 'labels': 'labels', 'when': 'other'}
    assert table.groups == [20, 20, 10] and list(table.with_path) == ['audio']
    assert table.features == {'audio': {'_type': 'Audio'}} and len(table.row_bytes['audio']) == 3
    values = parquets.read_columns(str(path), ['labels', 'audio.path'])
    assert values == {'labels': [['a']] * 50, 'audio.path': ['x.wav'] * 50}


def test_damaged_pages_are_named(tmp_path):
    path = parquet(tmp_path / 'x.parquet', {'audio': [held(b'A' * 1000)] * 20}, compression='gzip')
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 3] = b'\xff' * (len(data) // 3 - 4)
    path.write_bytes(data)
    with pytest.raises(parquets.ParquetError, match='cut off or damaged'):
        take(path, 3, tmp_path / 'out')
