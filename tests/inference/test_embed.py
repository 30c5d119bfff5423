"""Features of files equal those of the front end and network in training, for any mixture of files."""

import json
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet
import pytest

import diffmavil_jax
from diffmavil_jax import cli
from diffmavil_jax.config.schema import from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.inference.batching import bucket_sizes
from diffmavil_jax.inference.embed import Model, Progress
from diffmavil_jax.models.frontend import pixels, spectrogram
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from diffmavil_jax.models.pretraining import PretrainingModel

COMPILED = '/jax/core/compile/backend_compile_duration'
KINDS = ('audio', 'video', 'fused')


def reference(config, params, waveform, frames):
    """Features of one clip, from the front end and the network."""
    audio = spectrogram(waveform[None], config.audio, config.data.sample_rate)
    video = pixels(frames[None], config.video)
    patches = {
        'audio': patchify_audio(audio, config.audio.patch),
        'video': patchify_video(video, config.video.patch_frames, config.video.patch),
    }
    features = PretrainingModel(config).apply({'params': params}, patches, method='features')
    return {kind: np.asarray(x)[0] for kind, x in features.items()}


@pytest.fixture
def count():
    """Counts the compilations from here on."""
    compiled = []

    def listen(name, seconds, **_):
        if name == COMPILED:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: len(compiled)
    jax.monitoring.clear_event_listeners()


def clips(model, number, seed=0):
    rng = np.random.default_rng(seed)
    clip = model.clip
    return {
        'waveform': rng.integers(-9_000, 9_000, (number, clip.num_samples)).astype(np.int16),
        'frames': rng.integers(0, 256, (number, clip.frames, clip.frame_size, clip.frame_size, 3)).astype(
            np.uint8
        ),
    }


def test_importing_the_package_does_not_import_jax():
    code = 'import sys, diffmavil_jax; diffmavil_jax.load; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_whole_window_has_the_features_that_evaluation_gives(model, config, params, files, embeddings):
    assert model.modalities == ('audio', 'video') and model.config.audio == config.audio
    assert embeddings.ids[:3] == [f'{files[0]}@0.000', f'{files[0]}@1.000', f'{files[0]}@2.000']
    for row in (0, 1):
        expected = reference(config, params, *media.decode(files[0], float(row), model.clip))
        for kind in KINDS:
            np.testing.assert_allclose(getattr(embeddings, kind)[row], expected[kind], atol=1e-5)


def test_the_last_window_is_padded_by_the_front_end(model, config, params, files, embeddings):
    assert embeddings.start_s[2] == 2.0 and embeddings.end_s[2] == pytest.approx(2.5, abs=0.01)
    samples = round((embeddings.end_s[2] - 2.0) * 16_000)
    waveform, frames = media.decode(files[0], 1.5, model.clip)
    # Only half a second of sound, and the two pictures of that time, the second of them three times.
    late = reference(config, params, waveform[8_000 : 8_000 + samples], frames[[2, 3, 3, 3]])
    for kind in KINDS:
        np.testing.assert_allclose(getattr(embeddings, kind)[2], late[kind], atol=1e-4)  # another resampling


def test_a_row_that_lacks_a_modality_is_zero_and_says_so(embeddings):
    assert embeddings.has_audio.tolist() == [True, True, True, True, False]
    assert embeddings.has_video.tolist() == [True, True, True, False, True]
    for kind in KINDS:
        there = np.abs(getattr(embeddings, kind)).sum(axis=1) > 0
        np.testing.assert_array_equal(there, embeddings.has(kind))
    assert embeddings.has('fused').tolist() == [True, True, True, False, False]


def test_one_modality_has_the_same_features_alone(model, files, embeddings):
    for modality in ('audio', 'video'):
        alone = model.embed(files[0], modality, workers=1)
        together = getattr(embeddings, modality)[:3]
        np.testing.assert_allclose(getattr(alone, modality), together, atol=1e-5)
        assert alone.fused is None
        assert (alone.video if modality == 'audio' else alone.audio) is None


@pytest.mark.parametrize('modality', ['audio', 'video'])
def test_one_modality_needs_no_parameters_of_the_other(model, config, params, modality):
    names = (f'encoder_{modality}', f'{modality}_pool_norm')
    alone = Model(config, {name: params[name] for name in names})
    assert alone.modalities == (modality,)
    arrays = clips(model, 3)
    np.testing.assert_allclose(
        getattr(alone.embed(arrays), modality), getattr(model.embed(arrays), modality), atol=1e-5
    )
    with pytest.raises(ConfigError, match=rf"modality = 'both': must be auto or {modality}; .* no encoder"):
        alone.embed(arrays, 'both')


def test_encoders_without_fusion_and_norms_have_features_of_their_own(model, config, params):
    apart = Model(config, {name: params[name] for name in ('encoder_audio', 'encoder_video')})
    embeddings = apart.embed(clips(model, 2))
    assert embeddings.fused is None
    # The norms of this network are plain ones as well.
    np.testing.assert_allclose(embeddings.video, model.embed(clips(model, 2)).video, atol=1e-5)


def test_the_mean_of_the_tokens_are_the_features(model, files, embeddings):
    tokens = model.embed(files, pool='tokens', workers=1)
    width = model.config.model.vit.width
    audio = model.config.audio.num_tokens
    assert tokens.audio.shape == (5, audio, width)
    assert tokens.fused.shape == (5, audio + model.config.video_tokens, width)
    for kind in ('audio', 'video'):
        np.testing.assert_allclose(getattr(tokens, kind).mean(axis=1), getattr(embeddings, kind), atol=1e-5)
    halves = [tokens.fused[:, :audio].mean(axis=1), tokens.fused[:, audio:].mean(axis=1)]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), embeddings.fused, atol=1e-5)


def test_features_do_not_depend_on_the_batch(model):
    arrays = clips(model, 7)
    one, four = model.embed(arrays, batch_size=1), model.embed(arrays, batch_size=4)
    assert one.ids == four.ids == [str(i) for i in range(7)]
    for kind in KINDS:
        np.testing.assert_allclose(getattr(one, kind), getattr(four, kind), atol=1e-5)


def test_nothing_compiles_again(config, params, files, count):
    model = Model(config, params)
    before = count()
    for number in range(1, 11):
        model.embed(clips(model, number), batch_size=4)
    assert count() - before == len(bucket_sizes(4)) == 2  # batches of 1 and 4
    model.embed(files * 2, workers=1, batch_size=4)
    mixed = count() - before
    assert mixed <= 3 * len(bucket_sizes(4))  # for both modalities, sound alone and pictures alone
    model.embed(files * 2, workers=1, batch_size=4)
    assert count() - before == mixed


@pytest.mark.parametrize(('batch_size', 'sizes'), [(1, (1,)), (3, (1, 3)), (4, (1, 4)), (32, (1, 4, 16, 32))])
def test_bucket_sizes(batch_size, sizes):
    assert bucket_sizes(batch_size) == sizes


def test_bad_files_are_listed_and_progress_is_reported(model, folder, files):
    told = []
    paths = [files[0], folder / 'zbroken.mp4', files[1]]
    embeddings = model.embed(paths, workers=1, progress=told.append)
    assert [refusal.path for refusal in embeddings.refused] == [str(folder / 'zbroken.mp4')]
    assert told == [Progress(1, 3, 3, 0), Progress(2, 3, 3, 1), Progress(3, 3, 4, 1)]


def test_no_usable_file_gives_no_rows(model, folder):
    embeddings = model.embed(folder / 'zbroken.mp4', workers=1)
    assert len(embeddings) == 0 and embeddings.audio is None and embeddings.has('fused').shape == (0,)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'waveform': np.zeros((2, 999), np.int16)},
            r'waveform: must be int16 \[n, 16000\], .* int16 \[2, 999',
        ),
        ({'waveform': np.zeros((2, 16_000))}, r'there is float64 \[2, 16000\]'),
        ({'waveform': np.zeros((1, 16_000), np.int16)}, 'both of one length'),
    ],
)
def test_arrays_of_another_shape_are_an_error(model, changes, message):
    with pytest.raises(DataError, match=message):
        model.embed(clips(model, 2) | changes)


def test_arrays_that_lack_a_modality_are_an_error(model):
    with pytest.raises(DataError, match='frames: must be uint8 .* there is none'):
        model.embed({'waveform': clips(model, 1)['waveform']}, 'both')
    with pytest.raises(DataError, match='must be waveform or frames'):
        model.embed({'sound': np.zeros(3)})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'modality': 'sound'}, "modality = 'sound': must be one of auto, audio, video, both"),
        ({'pool': 'max'}, "pool = 'max': must be one of mean, tokens"),
        ({'batch_size': 0}, 'batch_size = 0: must be at least 1'),
    ],
)
def test_wrong_arguments_are_errors(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        model.embed(clips(model, 1), **arguments)


def test_a_classifier_is_refused(config, tmp_path):
    values = to_dict(config) | {'objective': 'classification', 'init': 'RUN'}
    (tmp_path / 'config.json').write_text(json.dumps(to_dict(from_dict(values))))
    with pytest.raises(ConfigError, match=r'is a classifier: .* such as the one it began with \(RUN\)'):
        diffmavil_jax.load(tmp_path)


class TestCommand:
    def test_a_folder_with_a_bad_file(self, run, folder, tmp_path, capsys):
        output = tmp_path / 'x.npz'
        assert cli.main(['embed', str(folder), f'--model={run}', f'--output={output}', '--workers=1']) == 1
        said = capsys.readouterr()
        assert said.out == f'{output}: 5 windows of 4 files\n'
        assert f'refused {folder}/zbroken.mp4: unreadable' in said.err and '4/4 files' in said.err
        assert set(np.load(output)['ids']) > {f'{folder}/film.mkv@2.000'}

    def test_files_that_are_all_good(self, run, files, tmp_path):
        flags = ['--modality=audio', '--pool=tokens', '--batch_size=2', '--workers=1']
        output = tmp_path / 'x.parquet'
        assert cli.main(['embed', *files[:2], f'--model={run}', f'--output={output}', *flags]) == 0
        assert pyarrow.parquet.read_table(output).num_rows == 4

    @pytest.mark.parametrize(
        ('change', 'code', 'message'),
        [
            ({'--output': 'x.csv'}, 2, 'must end in .npz or .parquet'),
            ({'--modality': 'sound'}, 2, "modality = 'sound': must be one of"),
            ({'--model': 'nowhere'}, 2, 'must be the workdir of a run'),
        ],
    )
    def test_what_is_wrong_is_one_line(self, run, files, tmp_path, capsys, change, code, message):
        flags = {'--model': run, '--output': str(tmp_path / 'x.npz')} | change
        assert cli.main(['embed', files[1], *(f'{name}={value}' for name, value in flags.items())]) == code
        line = capsys.readouterr().err
        assert line.startswith('error: ') and message in line and line.count('\n') == 1

    def test_nothing_usable_writes_nothing(self, run, folder, tmp_path, capsys):
        output = tmp_path / 'x.npz'
        assert cli.main(['embed', str(folder / 'zbroken.mp4'), f'--model={run}', f'--output={output}']) == 1
        assert 'nothing could be used of 1 files' in capsys.readouterr().err
        assert not output.exists()
        assert cli.main(['embed', str(tmp_path), f'--model={run}', f'--output={output}']) == 2
        assert 'no media in it' in capsys.readouterr().err
