"""A small network, a few files, and the features of those files."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffmavil_jax
from diffmavil_jax.objectives.pretraining import PretrainingObjective, TokenCounts
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.saved.weights import write_description, write_params
from diffmavil_jax.tasks.pretraining import clip_shapes
from tests.data.film import grey, tone_from, write


@pytest.fixture(scope='session')
def config(tiny):
    """The spectrogram is longer than a clip, so that the front end pads: the demo's before it normalises."""
    return tiny(audio={'num_frames': 112})


@pytest.fixture(scope='session')
def run(config, tmp_path_factory):
    """The directory of a network with random parameters, as an import or an export is."""
    objective = PretrainingObjective(config)
    batch = {
        name: jnp.zeros((1, *shape), dtype)
        for name, (shape, dtype) in clip_shapes(config, ('audio', 'video')).items()
    }
    counts = {'audio': TokenCounts(1, 1), 'video': TokenCounts(1, 1)}
    rng = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(lambda: objective.init(jax.random.key(0), batch, counts)))['params']

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        scales = path[-1].key == 'scale'
        return np.ones_like(noise) if scales else 0 * noise if 'norm' in path[0].key else 0.05 * noise

    root = tmp_path_factory.mktemp('pretrained')
    write_params(root, jax.tree_util.tree_map_with_path(draw, shapes))
    write_description(root, config, {'parts': list(shapes)})
    return str(root)


@pytest.fixture(scope='session')
def model(run):
    return diffmavil_jax.load(run)


@pytest.fixture(scope='session')
def params(run):
    return load_params(run)[0]


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """A film of 2.5 s, a sound of 1 s, pictures of 1 s without sound, and a file that is no film."""
    root = tmp_path_factory.mktemp('media')
    write(root / 'film.mkv', [grey(i % 20) for i in range(20)], tone_from(0, 2.5))
    write(root / 'sound.mkv', sound=tone_from(0.2, 1.0))
    write(root / 'pictures.mkv', [grey(i) for i in range(8)])
    (root / 'zbroken.mp4').write_text('no film')
    return root


@pytest.fixture(scope='session')
def files(folder):
    return [str(folder / f'{name}.mkv') for name in ('film', 'sound', 'pictures')]


@pytest.fixture(scope='session')
def embeddings(model, files):
    return model.embed(files, workers=1)
