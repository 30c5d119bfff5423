"""Training that starts from an import or an export."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from diffmavil_jax.config.schema import from_dict, to_dict
from diffmavil_jax.config.training import ParallelConfig
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.interop.exporting import export
from diffmavil_jax.interop.importing import Options, import_weights
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import make_plan
from diffmavil_jax.saved.inherit import inherit
from diffmavil_jax.saved.params import load_params
from diffmavil_jax.tasks.program import make_batches, make_program
from diffmavil_jax.tasks.registry import make_task
from tests.interop import reference

NEW = 'Not in {}, and so new: '


@pytest.fixture(scope='module')
def imports(tmp_path_factory):
    """Imports of three layouts: directories by name."""
    folder = tmp_path_factory.mktemp('imports')
    for layout, state, options in (
        ('cavmae', reference.cavmae(), Options(frames=4, patch_frames=2)),
        ('mavil', reference.mavil(), Options(frames=4)),
        ('mae', reference.vit(channels=3, patch=8, count=9), Options(modalities=('video',), frames=4)),
    ):
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in state.items()}
        safetensors.numpy.save_file(arrays, folder / 'file.safetensors')
        import_weights(layout, folder / 'file.safetensors', folder / layout, options, overwrite=False)
    return {path.name: str(path) for path in folder.iterdir() if path.is_dir()}


def starting(tiny, directory, **changes):
    """The tiny config, with the fields that it takes over from the directory."""
    values = json.loads(json.dumps(to_dict(tiny(init=directory, **changes))))
    return from_dict(inherit(values, {'data.frame_size'} if 'data' in changes else set()))


@pytest.fixture
def started(noisy_state, tmp_path):
    """The task of a config, the parameters that it starts from and, with `step`, those after one step.

    New parameters are noise.
    """

    def start(config, devices=1, step=False):
        plan, mesh = make_plan(config), make_mesh(config.parallel, jax.devices()[:devices])
        task = make_task(config, plan, open_sources(config), tmp_path)
        program = make_program(config, task, plan, mesh)
        initial = noisy_state(program)
        if 'head' in initial.params:  # begins at zero, as its own initialisation has it
            initial.params['head'] = jax.tree.map(jnp.zeros_like, initial.params['head'])
        state = task.start(initial)
        before = jax.tree.map(np.asarray, state.params)
        if not step:
            return task, before
        batch, _ = next(make_batches(config, task, plan, mesh)(0))
        state, metrics = program.trace(0).lower().compile()(state, batch)
        assert np.isfinite(metrics['loss'][0])
        return task, before, jax.tree.map(np.asarray, state.params)

    return start


def test_pretraining_from_both_encoders_begins_with_new_decoders_and_fusion(tiny, imports, started):
    directory = imports['cavmae']
    config = starting(
        tiny, directory, audio={'num_mel_bins': 64}, optimizer={'warmup_samples': 0},
        parallel={'data': 2, 'fsdp': 2},
    )  # fmt: skip
    assert (config.audio.num_mel_bins, config.model.class_token) == (128, False)
    task, before = started(config, devices=4)
    alone = dataclasses.replace(config, parallel=ParallelConfig())
    _, _, after = started(alone, step=True)
    assert NEW.format(directory) + 'fusion, fusion_norm, decoder_audio, decoder_video.' in task.notes
    theirs = load_params(directory)[0]
    for modality, tokens in (('audio', 2 * 8), ('video', 8)):
        encoder = before[f'encoder_{modality}']
        assert 'class_token' not in encoder
        stored = theirs[f'encoder_{modality}']['positions'][:tokens]
        # Neither the gradient nor weight decay changes them.
        np.testing.assert_array_equal(encoder['positions'], stored)
        np.testing.assert_array_equal(after[f'encoder_{modality}']['positions'], stored)
        jax.tree.map(
            np.testing.assert_array_equal, encoder['layers'], theirs[f'encoder_{modality}']['layers']
        )
        moved = jax.tree.map(
            lambda a, b: (a != b).any(), encoder['layers'], after[f'encoder_{modality}']['layers']
        )
        assert all(jax.tree.leaves(moved))


def test_one_encoder_and_its_front_end_are_all_that_an_import_of_one_decides(tiny, imports, started):
    config = starting(tiny, imports['mae'])
    assert (config.audio.num_mel_bins, config.data.frame_size) == (32, 24)
    task, before = started(config)
    assert any('new: encoder_audio, audio_pool_norm, fusion,' in note for note in task.notes)
    theirs = load_params(imports['mae'])[0]
    jax.tree.map(np.testing.assert_array_equal, before['encoder_video'], theirs['encoder_video'])
    assert before['encoder_audio']['positions'].shape == (4, 128)


def test_the_fusion_is_loaded_where_there_is_one(tiny, imports, started):
    config = starting(tiny, imports['mavil'])
    assert config.model.fusion_layers == 3
    task, before = started(config)
    assert NEW.format(imports['mavil']) + 'decoder_audio, decoder_video.' in task.notes
    theirs = load_params(imports['mavil'])[0]['fusion']
    jax.tree.map(np.testing.assert_array_equal, before['fusion'], theirs)


def test_pretraining_goes_on_from_an_export(tiny, make_run, started, tmp_path):
    run = make_run()
    export(run, tmp_path / 'export', 'safetensors', licence='', overwrite=False)
    config = starting(tiny, str(tmp_path / 'export'))
    task, before = started(config)
    assert NEW.format(config.init) + 'decoder_audio, decoder_video.' in task.notes
    theirs = load_params(run)[0]
    for part in ('encoder_video', 'audio_pool_norm', 'fusion'):
        jax.tree.map(np.testing.assert_array_equal, before[part], theirs[part])


def test_a_clip_longer_than_the_positions_is_refused_or_they_are_interpolated(tiny, imports, started):
    longer = {'data': {'seconds': 1.0, 'frames': 4}, 'audio': {'num_frames': 96}}
    config = starting(tiny, imports['cavmae'], **longer)
    with pytest.raises(
        ConfigError, match=r'of encoder_audio: they are for 4 x 8 patches .time first., and 6 x 8'
    ):
        started(config)
    config = starting(tiny, imports['cavmae'], **longer, finetune={'positions': 'interpolate'})
    _, before = started(config)
    assert before['encoder_audio']['positions'].shape == (48, 128)


def test_pictures_of_another_size_are_refused_likewise(tiny, imports, started):
    with pytest.raises(ConfigError, match='of encoder_video: they are for 2 x 2 x 2 patches'):
        started(starting(tiny, imports['mavil'], data={'frame_size': 24}))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, write_prepared):
    """A prepared dataset: noise, in two classes."""
    rng = np.random.default_rng(0)

    def example(i):
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(picture, 'JPEG')
        return {
            'id': f'{i}@0.000',
            'start_s': 0.0,
            'audio': rng.integers(-9_000, 9_000, 16_000).astype(np.int16),
            'frames': [picture.getvalue()] * 4,
            'labels': [i % 2],
            'source_hash': '',
        }

    examples = {split: [example(i) for i in range(8)] for split in ('train', 'test')}
    return write_prepared(tmp_path_factory.mktemp('noise'), examples, 'noise', frames=4, frame_size=16)


class TestFineTuning:
    CONFIG = {
        'objective': 'classification',
        'batch': {'size': 8, 'max_size': 8},
        'finetune': {'validation_fraction': 0.0, 'drop_path': 0.1},
        'optimizer': {'warmup_samples': 0, 'weight_decay': 1.0},
    }

    def config(self, tiny, directory, dataset, **finetune):
        changes = self.CONFIG | {'finetune': self.CONFIG['finetune'] | finetune}
        changes['data'] = {'source': 'tfds', 'path': dataset, 'train_split': 'train', 'eval_split': 'test'}
        values = json.loads(json.dumps(to_dict(tiny(init=directory, **changes))))
        return from_dict(inherit(values, set()))

    @pytest.mark.parametrize(('layout', 'modality'), [('cavmae', 'audio'), ('mavil', 'both')])
    def test_layers_learn_and_positions_do_not(
        self, tiny, imports, dataset, tmp_path, layout, modality, started
    ):
        config = self.config(tiny, imports[layout], dataset, modality=modality)
        task, before, after = started(config, step=True)
        assert not any('and so new' in note for note in task.notes)
        theirs = load_params(imports[layout])[0]['encoder_audio']
        encoder = after['encoder_audio']
        np.testing.assert_array_equal(encoder['positions'], theirs['positions'][:16])
        jax.tree.map(np.testing.assert_array_equal, before['encoder_audio']['layers'], theirs['layers'])
        assert ('class_token' in encoder) == (layout == 'mavil')
        # The head was zero, so that no gradient passed through it: only weight decay moves the layers.
        assert np.abs(after['head']['kernel']).max() > 0
        mlp = [network['layers']['block']['mlp']['wide']['kernel'] for network in (theirs, encoder)]
        assert (np.abs(mlp[1]) < np.abs(mlp[0])).mean() > 0.99

    def test_the_encoder_that_is_not_trained_needs_no_clips_of_its_own(self, tiny, imports, dataset, started):
        config = self.config(tiny, imports['cavmae'], dataset, modality='audio')
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, frame_size=8))
        _, before = started(config)
        assert 'encoder_video' not in before

    def test_a_fusion_that_is_not_there_begins_new(self, tiny, imports, dataset, started):
        config = self.config(tiny, imports['cavmae'], dataset, modality='both')
        task, before = started(config)
        assert NEW.format(imports['cavmae']) + 'fusion.' in task.notes and 'fusion' in before

    def test_an_encoder_that_is_not_there_is_an_error(self, tiny, imports, dataset, started):
        config = self.config(tiny, imports['mae'], dataset, modality='both')
        with pytest.raises(
            ConfigError, match="finetune.modality = 'both': must be one that .* none for audio"
        ):
            started(config)
