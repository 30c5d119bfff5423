"""State dicts on disk, and the encoders of imports and exports."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.saved.params import load_params


@pytest.fixture(scope='session')
def run_encoder():
    """Runs an encoder of a saved network on patches; returns its tokens after the pool norm."""

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
