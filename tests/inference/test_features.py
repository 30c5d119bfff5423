"""Files of features have what was computed, and a file that can't be written is an error."""

import numpy as np
import pyarrow.parquet
import pytest

from diffmavil_jax.config.tree import ConfigError

KINDS = ('audio', 'video', 'fused')


def test_npz(embeddings, tmp_path):
    embeddings.save(tmp_path / 'x.npz')
    saved = np.load(tmp_path / 'x.npz', allow_pickle=False)
    assert set(saved) == {'ids', 'start_s', 'end_s', 'has_audio', 'has_video', *KINDS}
    assert saved['ids'].tolist() == embeddings.ids
    for name in ('start_s', 'end_s', 'has_audio', 'has_video', *KINDS):
        np.testing.assert_array_equal(saved[name], getattr(embeddings, name))
        assert np.isfinite(saved[name]).all()
    assert [path.name for path in tmp_path.iterdir()] == ['x.npz']


@pytest.mark.parametrize('pool', ['mean', 'tokens'])
def test_parquet(model, files, pool, tmp_path):
    embeddings = model.embed(files, pool=pool, workers=1)
    embeddings.save(tmp_path / 'x.parquet')
    table = pyarrow.parquet.read_table(tmp_path / 'x.parquet').to_pydict()
    assert table['ids'] == embeddings.ids and table['has_video'] == embeddings.has_video.tolist()
    for kind in KINDS:
        there = embeddings.has(kind)
        assert [row is not None for row in table[kind]] == there.tolist()
        rows = np.array([row for row in table[kind] if row is not None], np.float32)
        np.testing.assert_array_equal(rows, getattr(embeddings, kind)[there])


def test_what_no_row_has_is_left_out(model, files, tmp_path):
    model.embed(files[1], workers=1).save(tmp_path / 'x.npz')
    assert set(np.load(tmp_path / 'x.npz')) == {
        'ids', 'start_s', 'end_s', 'has_audio', 'has_video', 'audio',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'message'), [('x.csv', 'must end in .npz or .parquet'), ('no/x.npz', 'that exists')]
)
def test_another_file_is_an_error(embeddings, tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        embeddings.save(tmp_path / name)
