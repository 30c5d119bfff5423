"""`diffmavil reconstruct`: what it writes for which files, and which options it refuses."""

import json
import os
import pathlib

import numpy as np
import pytest
import scipy.io.wavfile
from PIL import Image

from diffmavil_jax import cli
from diffmavil_jax.config.schema import from_dict, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import Refusal
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.inference.reconstruct import Options, Reconstructor, visible_counts
from diffmavil_jax.inference.reconstruction_files import _stems, reconstruct
from tests.data.film import grey, tone_from, write


@pytest.fixture(scope='module')
def run(make_run):
    return str(make_run())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A film of 2.5 s, a sound of 0.6 s, pictures without sound, pictures with silence, and no film."""
    root = tmp_path_factory.mktemp('media')
    write(root / 'film.mkv', [grey(i % 20) for i in range(20)], tone_from(0, 2.5))
    write(root / 'sound.mkv', sound=tone_from(0.0, 0.6))
    write(root / 'pictures.mkv', [grey(i) for i in range(8)])
    write(root / 'silent.mkv', [grey(i) for i in range(8)], tone_from(2.0, 1.0))
    (root / 'broken.mp4').write_text('no film')
    return root


def command(run, output, *flags):
    return cli.main(['reconstruct', *map(str, flags), f'--run={run}', f'--output={output}'])


def names(output):
    return sorted(path.name for path in output.iterdir())


def wav(path):
    rate, sound = scipy.io.wavfile.read(path)
    assert rate == 16_000 and sound.dtype == np.int16
    return sound


def test_everything_is_written(run, folder, tmp_path, capsys):
    assert command(run, tmp_path, folder / 'film.mkv', '--steps=3', '--sampler=ancestral') == 0
    ends = ('.gif', '.png', '_reconstruction.wav', '_target.wav')
    assert names(tmp_path) == [f'film{end}' for end in ends]
    out = capsys.readouterr().out
    assert all(str(tmp_path / f'film{end}') in out for end in ends)
    assert Image.open(tmp_path / 'film.png').width == 11 * 160
    with Image.open(tmp_path / 'film.gif') as gif:
        assert gif.n_frames > 1 and gif.height == 192
    made, target = wav(tmp_path / 'film_reconstruction.wav'), wav(tmp_path / 'film_target.wav')
    assert len(made) == len(target) == 31 * 160 + 400  # 32 frames
    assert (made != target).any()


def test_bad_files_are_named_and_the_others_written(run, folder, tmp_path, capsys):
    files = [folder / name for name in ('broken.mp4', 'film.mkv', 'sound.mkv', 'pictures.mkv', 'gone.mp4')]
    assert command(run, tmp_path, *files, folder / 'silent.mkv', '--video=mp4') == 1
    assert names(tmp_path) == ['film.mp4', 'film.png', 'film_reconstruction.wav', 'film_target.wav']
    assert media.probe(tmp_path / 'film.mp4').duration_s == pytest.approx(1.0, abs=0.05)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(': ')[0] for line in lines] == [
        f'refused {folder / name}'
        for name in ('broken.mp4', 'sound.mkv', 'pictures.mkv', 'gone.mp4', 'silent.mkv')
    ]
    reasons = [line.split(': ', 1)[1] for line in lines]
    assert reasons[0].startswith('unreadable') and reasons[3].startswith('unreadable')
    assert (reasons[1], reasons[2], reasons[4]) == ('no video', 'no audio', 'silent')


@pytest.mark.parametrize(
    ('drop', 'files', 'written'),
    [
        ('audio', ('pictures', 'silent'), ('.gif', '.png', '_reconstruction.wav')),
        ('video', ('sound',), ('.gif', '.png', '_reconstruction.wav', '_target.wav')),
    ],
)
def test_what_is_dropped_need_not_be_there(run, folder, tmp_path, drop, files, written):
    paths = [folder / f'{name}.mkv' for name in files]
    assert command(run, tmp_path, *paths, f'--drop={drop}') == 0
    assert names(tmp_path) == sorted(f'{name}{end}' for name in files for end in written)


def test_names_are_told_apart_and_the_clip_begins_where_it_is_told(run, folder, tmp_path):
    film = str(folder / 'film.mkv')
    assert command(run, tmp_path, film, film, '--start_s=1') == 0
    assert {'film.png', 'film_2.png'} <= set(names(tmp_path))
    assert (tmp_path / 'film.png').read_bytes() == (tmp_path / 'film_2.png').read_bytes()
    (refusal,) = reconstruct([film], run, tmp_path / 'late', Options(), start_s=3.0)
    assert refusal == Refusal(film, 'too short: 2.50 s, to begin at 3 s')


@pytest.mark.parametrize('overwrite', [(), ('--overwrite',)])
@pytest.mark.parametrize(('name', 'source'), [('mine.mp4', 'mine.mp4'), ('x_target.wav', 'x.mp4')])
def test_an_input_is_never_replaced(tmp_path, capsys, monkeypatch, overwrite, name, source):
    monkeypatch.chdir(tmp_path)
    for file in {name, source}:
        pathlib.Path(file).write_bytes(b'my film')
    assert command('nowhere', '.', source, name, '--video=mp4', *overwrite) == 2
    line = capsys.readouterr().err
    assert 'error: --output=.: ' in line and 'is an input, and no output replaces one; give another.' in line
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b'my film'}


def test_a_file_that_is_there_is_replaced_only_when_asked_for(run, folder, tmp_path, capsys):
    (tmp_path / 'film.png').write_bytes(b'my picture')
    assert command(run, tmp_path, folder / 'film.mkv') == 2
    assert f'{tmp_path / "film.png"} is there already' in capsys.readouterr().err
    assert names(tmp_path) == ['film.png'] and (tmp_path / 'film.png').read_bytes() == b'my picture'
    assert command(run, tmp_path, folder / 'film.mkv', '--overwrite') == 0
    assert (tmp_path / 'film.png').read_bytes() != b'my picture'


def test_every_name_has_outputs_of_its_own():
    long = 'ü' * 124
    stems = _stems([f'{long}.mp4', f'{long}.mkv', 'a.mp4', 'A.mkv', 'a_2.mp4', os.fsdecode(b'\xff.mp4')])
    assert stems[0] == 'ü' * 110 and stems[1] == 'ü' * 110 + '_2'
    assert stems[2:] == ['a', 'A_2', 'a_2_2', os.fsdecode(b'\xff')]


def filled(run, folder, name='film', **options):
    reconstructor = Reconstructor(run, Options(**options))
    with DecodePool(1) as pool:
        return reconstructor(reconstructor.read(pool, str(folder / f'{name}.mkv'), 0.0))


def test_what_is_visible_stays_and_what_is_hidden_is_filled_in(run, folder):
    result = filled(run, folder, steps=2)
    for modality, hidden in (('audio', 2 / 4), ('video', 4 / 8)):
        shown = result.stages[modality]
        visible = np.isfinite(shown.masked)
        assert np.mean(~visible) == hidden
        np.testing.assert_allclose(shown.prediction[visible], shown.target[visible], atol=1e-5)
        np.testing.assert_allclose(shown.masked[visible], shown.target[visible], atol=1e-5)
        assert np.isfinite(shown.prediction).all()
        assert np.abs(shown.prediction - shown.target)[~visible].min() > 0


def test_the_seed_draws_masks_and_noise(run, folder):
    first, same, other = (filled(run, folder, steps=2, seed=seed).stages['video'] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.prediction, same.prediction)
    assert (np.isnan(first.masked) != np.isnan(other.masked)).any()


def test_a_dropped_modality_is_hidden_wholly_and_the_other_seen(run, folder):
    result = filled(run, folder, drop='audio')
    assert np.isnan(result.stages['audio'].masked).all() and np.isfinite(result.stages['audio'].target).all()
    assert np.isfinite(result.stages['video'].masked).all()
    result = filled(run, folder, 'pictures', drop='audio')
    assert (
        np.isnan(result.stages['audio'].target).all() and np.isfinite(result.stages['audio'].prediction).all()
    )


def test_a_short_sound_keeps_its_length(run, folder, tmp_path):
    (written,) = reconstruct([str(folder / 'sound.mkv')], run, tmp_path, Options(drop='video'))
    (target,) = (path for path in written.files if path.name == 'sound_target.wav')
    assert len(wav(target)) == min(31, (9_600 - 400) // 160) * 160 + 400


def test_visible_tokens(tiny):
    config = tiny()  # 4 and 8 tokens
    assert visible_counts(config, None, '') == {'audio': 2, 'video': 4}
    assert visible_counts(config, 0.75, '') == {'audio': 1, 'video': 2}
    assert visible_counts(config, 0.999, '') == {'audio': 1, 'video': 1}
    assert visible_counts(config, None, 'audio') == {'audio': 0, 'video': 8}
    assert visible_counts(config, 0.25, 'video') == {'audio': 3, 'video': 0}


def test_normalised_patches_get_their_mean_and_scale_back(make_run, folder):
    run = str(make_run(loss={'normalize_targets': True}, diffusion={'enabled': False}))
    shown = filled(run, folder).stages['video']
    hidden = np.isnan(shown.masked)
    # Patches of the film are almost of one grey each, from 20 to 160 of 255.
    assert 0 < np.abs(shown.prediction - shown.target)[hidden].max() < 0.15
    with pytest.raises(ConfigError, match="drop = 'audio': must be empty for this network"):
        Reconstructor(run, Options(drop='audio'))
    with pytest.raises(ConfigError, match='steps = 2: must be 1'):
        Reconstructor(run, Options(steps=2))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--mask_ratio=1'], 'mask_ratio = 1: must be between 0 and 1'),
        (['--mask_ratio=1', '--drop=audio'], 'mask_ratio = 1: must be from 0 to below 1 with drop'),
        (['--mask_ratio=0'], 'mask_ratio = 0: must be between 0 and 1'),
        (['--drop=sound'], "drop = 'sound': must be audio or video, or empty"),
        (['--steps=0'], 'steps = 0: must be from 1 to 1000'),
        (['--sampler=euler'], "sampler = 'euler': must be one of ddim, ancestral"),
        (['--video=avi'], "video = 'avi': must be one of gif, mp4"),
        (['--start_s=-1'], 'start_s = -1: must be from 0'),
        (['--run=nowhere'], 'must be the workdir of a run'),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(run, folder, tmp_path, capsys, flags, message):
    target = tmp_path / 'out'
    argv = ['reconstruct', str(folder / 'film.mkv'), f'--run={run}', f'--output={target}', *flags]
    assert cli.main(argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: ') and message in line
    assert not target.exists()


def test_an_output_that_is_no_folder(run, folder, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert command(run, tmp_path / 'file', folder / 'film.mkv') == 2
    assert 'must be a folder to write to' in capsys.readouterr().err


def test_a_network_that_predicts_no_patches(run, tmp_path):
    values = json.loads((pathlib.Path(run) / 'config.json').read_text())
    for objective, rest in (('stage2', {'teacher': run}), ('classification', {})):
        config = to_dict(from_dict(values | {'objective': objective} | rest))
        (tmp_path / 'config.json').write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=f'objective={objective}: must be a run of pretraining'):
            Reconstructor(tmp_path, Options())
