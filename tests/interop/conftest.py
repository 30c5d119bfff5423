"""Networks of a directory, as the pretraining model builds them."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.saved.workdir import open_workdir
from diffmavil_jax.training.checkpoint import CheckpointStore


@pytest.fixture(scope='session')
def run_encoder():
    """Makes the tokens of an encoder of a directory, after its pool norm, from patches."""

    def run(directory, modality, patches):
        model = PretrainingModel(from_dict(read_config(directory)))

        def encode(params, patches):
            return model.apply(
                {'params': params},
                patches,
                method=lambda model, x: model.pool_norm[modality](model.encoder[modality](x)),
            )

        return np.asarray(jax.jit(encode)(load_params(directory)[0], np.asarray(patches, np.float32)))

    return run


@pytest.fixture
def save(tmp_path):
    """Writes a state dict as a .safetensors file."""

    def write(state, name='weights.safetensors'):
        path = tmp_path / name
        arrays = {key: np.ascontiguousarray(value, np.float32) for key, value in state.items()}
        safetensors.numpy.save_file(arrays, path)
        return path

    return write


@pytest.fixture(scope='session')
def make_run(tiny, make_pretrainer, tmp_path_factory):
    """Makes the workdir of a tiny run that has made no step yet, with parameters of which none is zero."""

    def make(samples=0, **changes):
        config = tiny(**changes)
        directory = open_workdir(tmp_path_factory.mktemp('run') / 'run', config, overwrite=False)
        program, _ = make_pretrainer(config, (), jax.devices()[:1])
        state, rng = program.init(), np.random.default_rng(0)
        params = jax.tree.map(lambda p: p + 0.05 * rng.normal(size=p.shape).astype(np.float32), state.params)
        store = CheckpointStore(directory.path / 'checkpoints', keep_latest=1, keep_best=0, best_metric=None)
        store.save(samples, dataclasses.replace(state, params=params), {}, block=True)
        store.close()
        return directory.path

    return make
