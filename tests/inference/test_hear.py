"""HEAR's interface, by the rules of its validator."""

import numpy as np
import pytest

from diffmavil_jax.config.tree import ConfigError

torch = pytest.importorskip('torch', reason='HEAR hands over its tensors')
hear = pytest.importorskip('diffmavil_jax.hear')


@pytest.fixture(scope='module')
def network(run):
    return hear.load_model(run)


def noise(count, seconds):
    return 2 * torch.rand((count, int(seconds * 16_000)), generator=torch.Generator().manual_seed(0)) - 1


def test_the_network_says_what_it_takes_and_gives(network):
    assert isinstance(network, torch.nn.Module) and network.sample_rate == 16_000
    assert type(network.scene_embedding_size) is type(network.timestamp_embedding_size) is int
    assert not list(network.parameters())


@pytest.mark.parametrize('seconds', [1.07, 4.0])
def test_timestamps(network, seconds):
    features, times = hear.get_timestamp_embeddings(noise(2, seconds), network)
    assert features.dtype == times.dtype == torch.float32
    assert features.shape == (*times.shape, network.timestamp_embedding_size) and len(times) == 2
    steps = np.diff(times.numpy())
    assert steps.max() <= 50 and np.abs(steps - steps.mean()).max() < 1
    assert times.min() == 0 and 1_000 * seconds - 50 < times.max() <= 1_000 * seconds


def test_scenes(network):
    features = hear.get_scene_embeddings(noise(4, 2.74), network)
    assert features.dtype == torch.float32 and features.shape == (4, network.scene_embedding_size)
    assert not torch.allclose(features[0], features[1])


def test_without_a_directory_is_an_error():
    with pytest.raises(ConfigError, match='must be given the directory of a run'):
        hear.load_model()
