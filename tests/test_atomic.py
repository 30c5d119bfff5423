"""`atomic`: files are written whole or not at all, whatever happens meanwhile."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest
from etils import epath

from diffmavil_jax import atomic
from tests.bucket import FolderOfBuckets


def test_a_file_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    with atomic.replacing(path) as draft:
        draft.write_text('new')
        assert path.read_text() == 'old' and draft.parent == tmp_path
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('kind', [lambda path: path, epath.Path])
def test_nothing_is_left_of_what_fails(tmp_path, kind):
    path = tmp_path / 'a'
    path.write_text('old')
    with pytest.raises(KeyError), atomic.replacing(kind(path)) as draft:
        draft.write_text('half')
        raise KeyError
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / 'a'):
        pass
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / 'no folder' / 'a', b'')


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    code = (
        'import pathlib, sys, time\n'
        'from diffmavil_jax import atomic\n'
        'with atomic.replacing(pathlib.Path(sys.argv[1])) as draft:\n'
        '    draft.write_text("half")\n'
        '    time.sleep(60)\n'
    )
    with subprocess.Popen([sys.executable, '-c', code, str(path)]) as process:
        while process.poll() is None and not list(tmp_path.glob('.draft-*')):
            time.sleep(0.01)
        process.kill()
    assert process.returncode < 0 and path.read_text() == 'old'
    atomic.write_text(path, 'new')
    assert path.read_text() == 'new'


def test_the_mode_is_that_of_an_ordinary_file(tmp_path):
    (tmp_path / 'ordinary').write_bytes(b'')
    atomic.write_bytes(tmp_path / 'a', b'')
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('ordinary', 'a')]
    assert modes[0] == modes[1]


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    name = 'a' * os.pathconf(tmp_path, 'PC_NAME_MAX')
    atomic.write_bytes(tmp_path / name, b'data')
    assert (tmp_path / name).read_bytes() == b'data'


def test_json_is_indented_and_ends_with_a_line(tmp_path):
    atomic.write_json(tmp_path / 'a.json', {'b': [1, 2.5], 'c': 'ü'})
    text = (tmp_path / 'a.json').read_text()
    assert json.loads(text) == {'b': [1, 2.5], 'c': 'ü'}
    assert text.startswith('{\n  "b"') and text.endswith('}\n')


def test_text_may_name_a_file_whose_name_is_not_utf8(tmp_path):
    atomic.write_text(tmp_path / 'a', 'ü ' + os.fsdecode(b'\xff'))
    assert (tmp_path / 'a').read_bytes() == 'ü \\udcff'.encode()


def test_a_directory_is_set_aside_under_a_free_name(tmp_path):
    for number in (1, 2):
        (tmp_path / 'run').mkdir()
        atomic.set_aside(tmp_path / 'run')
        assert not (tmp_path / 'run').exists() and (tmp_path / f'run.old-{number}').is_dir()


def test_a_run_that_is_set_aside_in_a_bucket_is_whole_somewhere_at_any_moment(bucket, monkeypatch):
    root, remove = epath.Path('gs://bucket/run'), FolderOfBuckets.rm
    for name in ('config.json', 'checkpoints/8/a'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)

    def killed(files, path, recursive=False, **_):
        if recursive:
            raise KeyboardInterrupt
        remove(files, path)

    monkeypatch.setattr(FolderOfBuckets, 'rm', killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.set_aside(root)
    assert (root / 'config.json').exists() and not (root / 'checkpoints' / '8' / 'a').exists()
    monkeypatch.setattr(FolderOfBuckets, 'rm', remove)
    assert str(atomic.set_aside(root)) == 'gs://bucket/run.old-2' and not root.exists()
    assert (bucket / 'run.old-1' / 'checkpoints' / '8' / 'a').read_text() == 'checkpoints/8/a'
    assert (bucket / 'run.old-2' / 'config.json').exists()
