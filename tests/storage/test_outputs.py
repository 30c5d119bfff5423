"""An output never replaces an input, nor a file that is there unless it is asked for."""

import os

import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage.lock import locked
from diffmavil_jax.storage.outputs import RUN_LOCK, OutputDirectory, check_files, held_inputs


def check(path, inputs=(), overwrite=False):
    check_files([path], inputs=inputs, overwrite=overwrite, flag='--output=x')


@pytest.mark.parametrize('kind', ['same', 'dots', 'symlink', 'hard link', 'linked folder'])
def test_an_input_is_known_under_every_name(tmp_path, kind):
    film = tmp_path / 'films' / 'a.mp4'
    film.parent.mkdir()
    film.write_bytes(b'film')
    output = tmp_path / 'films' / 'b.mp4'
    if kind == 'same':
        output = film
    elif kind == 'dots':
        output = tmp_path / 'films' / '..' / 'films' / 'a.mp4'
    elif kind == 'symlink':
        output.symlink_to(film)
    elif kind == 'hard link':
        os.link(film, output)
    else:
        (tmp_path / 'link').symlink_to(film.parent)
        output = tmp_path / 'link' / 'a.mp4'
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match='--output=x: .* is an input, and no output replaces one'):
            check(output, [film, tmp_path / 'gone.mp4'], overwrite)


def test_what_is_there_is_replaced_only_when_asked_for(tmp_path):
    path = tmp_path / 'a.npz'
    check(path)
    path.write_bytes(b'')
    with pytest.raises(ConfigError, match='a.npz is there already; give another, or --overwrite'):
        check(path)
    check(path, [tmp_path / 'b.npz'], overwrite=True)
    (tmp_path / 'dangling').symlink_to('nowhere')
    with pytest.raises(ConfigError, match='dangling is there already'):
        check(tmp_path / 'dangling')
    with pytest.raises(ConfigError, match='is a folder'):
        check(tmp_path, overwrite=True)


def test_a_directory_is_kept_aside_but_not_with_an_input_or_a_run_at_work(tmp_path):
    root = tmp_path / 'out'
    assert OutputDirectory(root, [], overwrite=False).open() == root
    (root / 'sub').mkdir()
    (root / 'sub' / 'weights').write_bytes(b'mine')
    with pytest.raises(ConfigError, match='is not empty'):
        OutputDirectory(root, [], overwrite=False).check()
    (tmp_path / 'link').symlink_to(root / 'sub')
    for held in (root, root / 'sub' / 'weights', tmp_path / 'link' / 'weights'):
        with pytest.raises(ConfigError, match=f'is, or holds, the input {held}'):
            OutputDirectory(root, [held], overwrite=True).open()
    with (
        locked(root / RUN_LOCK, '', '', print),
        pytest.raises(ConfigError, match='is in use by a run, process'),
    ):
        OutputDirectory(root, [], overwrite=True).open()
    assert OutputDirectory(root, [tmp_path / 'other'], overwrite=True).open() == root
    assert not list(root.iterdir()) and (tmp_path / 'out.old-1' / 'sub' / 'weights').read_bytes() == b'mine'


def test_only_inputs_that_are_there_can_be_held(tmp_path):
    (tmp_path / 'a').mkdir()
    inputs = ['', str(tmp_path / 'a'), str(tmp_path / 'gone'), str(tmp_path.parent)]
    assert list(held_inputs(tmp_path, inputs)) == [str(tmp_path / 'a')]
