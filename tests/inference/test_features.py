"""Files of features have what was computed, and a file that can't be written is an error."""

import dataclasses

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


def test_a_file_that_came_meanwhile_is_not_replaced(embeddings, tmp_path):
    (tmp_path / 'x.npz').write_bytes(b'mine')
    with pytest.raises(ConfigError, match='File exists'):
        embeddings.save(tmp_path / 'x.npz', overwrite=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'mine']


@pytest.mark.parametrize(
    ('name', 'message'), [('x.csv', 'must end in .npz or .parquet'), ('no/x.npz', 'that exists')]
)
def test_another_file_is_an_error(embeddings, tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        embeddings.save(tmp_path / name)


def test_a_window_whose_features_are_not_finite_is_refused(embeddings):
    fused = embeddings.fused.copy()
    fused[1, 3] = np.inf
    audio = embeddings.audio.copy()
    audio[3, 0] = np.nan
    bad = dataclasses.replace(embeddings, fused=fused, audio=audio).only_finite()
    assert bad.ids == [embeddings.ids[i] for i in (0, 2, 4)] and len(bad.start_s) == 3
    np.testing.assert_array_equal(bad.video, embeddings.video[[0, 2, 4]])
    assert [refusal.path for refusal in bad.refused] == [embeddings.ids[1], embeddings.ids[3]]
    assert 'not finite' in bad.refused[0].reason
    assert embeddings.only_finite() is embeddings


def test_if_no_feature_is_finite_there_are_no_rows(embeddings):
    arrays = {kind: np.full_like(getattr(embeddings, kind), np.nan) for kind in KINDS}
    none = dataclasses.replace(embeddings, **arrays).only_finite()
    assert len(none) == 0 and none.audio is None and len(none.refused) == 5
