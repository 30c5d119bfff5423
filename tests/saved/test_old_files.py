"""Runs and datasets that version 0.1.0 wrote still load, to the same numbers."""

import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest

import diffmavil_jax
from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.saved.workdir import open_workdir
from diffmavil_jax.training.checkpoint import CheckpointStore

ARCHIVE = pathlib.Path(__file__).parents[1] / 'data' / 'old_0.1.0.tar.xz'

# Features 0, 5 and 50 of the two clips below, as version 0.1.0 computed them.
FEATURES = {
    'audio': [[0.20359194, 1.22444391, 0.53928065], [0.26512429, 1.19859028, 0.65598357]],
    'video': [[-0.25105202, 1.63145041, -0.07533056], [0.15980041, 0.97593021, 0.25188085]],
    'fused': [[0.90460432, 1.63242412, 0.69168484], [1.51999903, 1.28363299, 0.87232435]],
}


@pytest.fixture(scope='module')
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp('old')
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter='data')
    return folder


def test_the_network_gives_the_same_features(old):
    model = diffmavil_jax.load(old / 'run')
    clip, rng = model.clip, np.random.default_rng(0)
    arrays = {
        'waveform': rng.integers(-3000, 3000, (2, clip.num_samples)).astype(np.int16),
        'frames': rng.integers(0, 255, (2, clip.frames, clip.frame_size, clip.frame_size, 3)).astype(
            np.uint8
        ),
    }
    embeddings = model.embed(arrays)
    for kind, expected in FEATURES.items():
        np.testing.assert_allclose(getattr(embeddings, kind)[:, [0, 5, 50]], expected, atol=1e-5)


def test_the_run_resumes_with_its_whole_state(old, make_pretrainer):
    config = from_dict(read_config(old / 'run'))
    written = json.loads((old / 'run' / 'config.json').read_text())
    assert open_workdir(old / 'run', config, overwrite=False).resumed
    assert json.loads((old / 'run' / 'config.json').read_text()) == written
    program, _ = make_pretrainer(config, (), jax.devices()[:1])
    store = CheckpointStore(old / 'run' / 'checkpoints', keep_latest=1, keep_best=0, best_metric=None)
    state, _ = store.restore(program.abstract)
    store.close()
    assert int(state.samples_seen) == 32
    for leaf in jax.tree.leaves(state.params):
        values = (np.arange(leaf.size) % 13 - 6) / 64 + (leaf.shape[-1] == leaf.size)
        np.testing.assert_array_equal(np.ravel(leaf), values.astype(np.float32))


def test_the_dataset_has_the_same_clips(old):
    dataset = open_prepared(old / 'prepared')
    spec = ClipSpec(16_000, 1.0, 4, 32)
    assert dataset.remarks(spec) == []
    source = PreparedSource(dataset, ['train'], spec, Ledger(dataset.path, 6, 0.0))
    clips = [source[i] for i in range(len(source))]
    assert len(clips) == 6
    assert {clip['id'].rpartition('@')[0] for clip in clips} == {'grid-brbk7n_0000.mp4', 'nasajwst_0000.mp4'}
    assert all(clip['waveform'].std() > 0 and clip['frames'].shape == (4, 32, 32, 3) for clip in clips)
