"""A run keeps an existing dataset, and continues where an earlier run failed or was killed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data import media
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepare.settings import Settings
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.storage.lock import locked
from tests.data.film import DATA, MEDIA, TOS
from tests.data.prepare.datasets import builder, examples, prepare
from tests.data.prepare.rows import SMALL, SOUND


def test_a_dataset_that_is_there_is_left_alone(tmp_path):
    first = prepare('folder', MEDIA, tmp_path, eval_fraction=0.5)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'folder/1.0.0').iterdir()}
    again = prepare('folder', MEDIA, tmp_path, eval_fraction=0.5)
    assert again.was_there and again.report == first.report
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'folder/1.0.0').iterdir()}
    other = dataclasses.replace(SMALL, frames=3)
    with pytest.raises(DataError, match='other clips or other settings'):
        prepare('folder', MEDIA, tmp_path, other, eval_fraction=0.5)
    prepare('folder', MEDIA, tmp_path, other, eval_fraction=0.5, overwrite=True)
    assert len(examples(tmp_path / 'folder/1.0.0')['train'][0]['frames']) == 3


def test_overwrite_removes_no_folder_that_is_no_dataset_and_no_input(tmp_path):
    folder = tmp_path / 'folder' / '1.0.0'
    folder.mkdir(parents=True)
    shutil.copy(MEDIA / TOS, folder / 'mine.webm')
    with pytest.raises(DataError, match='is no dataset, so --overwrite does not remove it'):
        prepare('folder', tmp_path, tmp_path, overwrite=True)
    (folder / 'dataset_info.json').touch()
    with pytest.raises(DataError, match='is, or holds, the input'):
        prepare('folder', folder, tmp_path, overwrite=True)
    assert (folder / 'mine.webm').exists()


def test_two_runs_do_not_make_the_same_dataset(tmp_path):
    (tmp_path / '.work').mkdir()
    with locked(tmp_path / '.work' / 'folder.lock', '', '', print):
        message = (
            f'folder is being prepared by another run, process {os.getpid()} on .*or choose another --name'
        )
        with pytest.raises(ConfigError, match=message):
            prepare('folder', MEDIA, tmp_path)
    assert not (tmp_path / 'folder').exists()


def test_a_run_that_fails_while_it_publishes_loses_nothing(tmp_path, monkeypatch):
    settings = dataclasses.replace(SOUND, shard_clips=2)
    with monkeypatch.context() as patch:
        patch.setattr(builder, 'link_or_copy', lambda source, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare('spoken_digit', DATA / 'fsdd', tmp_path, settings)
    leftover = tmp_path / 'spoken_digit' / 'incomplete.ABCDEF_1.0.0'  # as kill -9 leaves it
    leftover.mkdir(parents=True)
    monkeypatch.setattr(DecodePool, 'call', lambda *args: 1 / 0)
    prepared = prepare('spoken_digit', DATA / 'fsdd', tmp_path, settings)
    assert prepared.report['shards_of_an_earlier_run'] == prepared.report['shards'] == 6
    assert sum(map(len, examples(prepared.folder).values())) == 12
    assert [path.name for path in (tmp_path / 'spoken_digit').iterdir()] == ['1.0.0']


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    root, output = tmp_path / 'in', tmp_path / 'out'
    root.mkdir()
    for i in range(16):
        shutil.copy(MEDIA / TOS, root / f'{i}.webm')
    settings = Settings(seconds=2.0, frame_size=128, shard_clips=1)
    command = [
        sys.executable, '-m', 'diffmavil_jax.cli', 'prepare', '--source=folder', f'--input={root}',
        f'--output={output}', '--workers=1', '--seconds=2', '--frame_size=128', '--shard_clips=1',
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    done = lambda: {p: p.read_bytes() for p in (output / '.work').glob('*/*.done.jsonl')}  # noqa: E731
    deadline = time.monotonic() + 300
    while len(done()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    busy = f'folder is being prepared by another run, process {process.pid} on'
    with pytest.raises(ConfigError, match=busy):
        prepare('folder', root, output, settings)
    os.killpg(process.pid, signal.SIGKILL)
    message = process.communicate()[1].decode()
    before = done()
    assert 3 <= len(before) < 16, message
    assert not (output / 'folder' / '1.0.0').exists()

    called = []
    call = DecodePool.call
    monkeypatch.setattr(DecodePool, 'call', lambda self, *args: called.append(args) or call(self, *args))
    lines = []
    prepared = prepare('folder', root, output, settings, lines=lines)
    finished = {json.loads(p.splitlines()[1])[1] for p in before.values()}
    assert f'{len(before)} shards are done already' in lines
    decoded = [args[1].name for args in called if args[0] is not media.probe]
    assert set(decoded) == {f'{i}.webm' for i in range(16)} - finished
    assert len(decoded) == 3 * (16 - len(before))
    assert prepared.report['written'] == 48 and prepared.report['duplicates']['files'] == 15
    found = examples(prepared.folder)
    assert sorted(e['id'].decode() for part in found.values() for e in part) == sorted(
        f'{i}.webm@{start}.000' for i in range(16) for start in (0, 2, 4)
    )
    assert sorted(p.name for p in output.iterdir()) == ['folder']
