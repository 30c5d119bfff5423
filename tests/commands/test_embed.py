"""`diffmavil embed` writes where nothing is, and replaces a file only when it is asked to, never an input."""

import os

import pytest

from diffmavil_jax import cli


def embed(*flags):
    return cli.main(['embed', '--model=nowhere', *map(str, flags)])


def test_a_file_that_is_there_stays_unless_asked_for(tmp_path, capsys):
    (tmp_path / 'x.npz').write_bytes(b'mine')
    assert embed('a.wav', f'--output={tmp_path / "x.npz"}') == 2
    assert 'x.npz is there already; give another, or --overwrite' in capsys.readouterr().err
    assert embed('a.wav', f'--output={tmp_path / "x.npz"}', '--overwrite') == 2
    assert "'nowhere': must be the workdir of a run" in capsys.readouterr().err
    assert (tmp_path / 'x.npz').read_bytes() == b'mine'


@pytest.mark.parametrize('link', [os.link, os.symlink])
def test_an_input_is_never_replaced(tmp_path, capsys, link):
    (tmp_path / 'films').mkdir()
    film = tmp_path / 'films' / 'a.mp4'
    film.write_bytes(b'film')
    link(film, tmp_path / 'x.npz')
    assert embed(tmp_path / 'films', f'--output={tmp_path / "x.npz"}', '--overwrite') == 2
    assert 'x.npz is an input, and no output replaces one' in capsys.readouterr().err
    assert film.read_bytes() == b'film'
