"""Retrieval with what has both encoders; tests/saved/test_network.py has how a run is opened."""

import io

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from diffmavil_jax import cli
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.inference.retrieve import retrieve
from diffmavil_jax.interop.importing import Options, import_weights
from tests.interop import reference


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, write_prepared):
    """A prepared dataset: noise."""
    rng = np.random.default_rng(0)

    def example(i):
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(picture, 'JPEG')
        return {
            'id': f'{i}@0.000',
            'start_s': 0.0,
            'audio': rng.integers(-9_000, 9_000, 16_000).astype(np.int16),
            'frames': [picture.getvalue()] * 8,
            'labels': [i % 2],
            'source_hash': '',
        }

    examples = {'test': [example(i) for i in range(8)]}
    return write_prepared(tmp_path_factory.mktemp('noise'), examples, 'noise', frames=8, frame_size=16)


def imported(folder, layout, state, **options):
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in state.items()}
    safetensors.numpy.save_file(arrays, folder / 'file.safetensors')
    import_weights(layout, folder / 'file.safetensors', folder / layout, Options(**options), overwrite=False)
    return folder / layout


def test_an_import_with_two_encoders_needs_no_fusion(dataset, tmp_path, capsys):
    network = imported(tmp_path, 'cavmae', reference.cavmae(), frames=4, patch_frames=2)
    flags = [f'--run={network}', f'--data={dataset}', '--clips_per_class=0']
    assert cli.main(['retrieve', *flags]) == 0
    said = capsys.readouterr().out
    assert said.startswith('sound to picture') and 'of 8' in said


def test_one_encoder_and_a_network_without_decoders_are_refused(dataset, tmp_path, capsys):
    state = reference.vit(channels=3, patch=8, count=9)
    network = imported(tmp_path, 'mae', state, modalities=('video',), frames=4)
    with pytest.raises(ConfigError, match='must have both encoders; it has no encoder_audio'):
        retrieve(network, str(dataset), 'test', clips_per_class=0)
    film = tmp_path / 'film.mp4'
    film.touch()
    assert cli.main(['reconstruct', str(film), f'--run={network}', f'--output={tmp_path / "out"}']) == 2
    assert 'has no encoder_audio, audio_pool_norm, fusion, fusion_norm, decoder_' in capsys.readouterr().err
