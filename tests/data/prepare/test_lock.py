"""The lock keeps two runs apart, and leaves nothing behind."""

import fcntl
import os

import pytest
from etils import epath

from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepare import lock


def test_a_lock_is_of_one_run_and_leaves_nothing(tmp_path):
    path, lines = epath.Path(tmp_path / '.work' / 'mine.lock'), []
    with lock.locked(path, 'mine', lines.append):
        with pytest.raises(
            DataError, match=f'mine is being prepared by another run, process {os.getpid()} on'
        ):
            lock.locked(path, 'mine', lines.append).__enter__()
        with lock.locked(path.parent / 'other.lock', 'other', lines.append):
            pass
    assert lines == [] and list(tmp_path.iterdir()) == []
    with lock.locked(path, 'mine', lines.append):
        (path.parent / 'mine-1').mkdir()  # the unfinished work of another list
    assert [other.name for other in path.parent.iterdir()] == ['mine-1']


def test_a_lock_that_its_owner_has_just_removed_is_taken_anew(tmp_path, monkeypatch):
    path, flock, calls = epath.Path(tmp_path / 'mine.lock'), fcntl.flock, []

    def late(*args):
        if not calls:
            path.unlink()
        calls.append(args)
        flock(*args)

    monkeypatch.setattr(fcntl, 'flock', late)
    with lock.locked(path, 'mine', print):
        assert len(calls) == 2 and path.exists()


def test_where_there_can_be_no_lock_it_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError('No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    for path, reason in (('gs://bucket/mine.lock', 'it is remote'), (tmp_path / 'x', 'No locks available')):
        lines = []
        with lock.locked(epath.Path(path), 'mine', lines.append):
            pass
        assert f"mine can't be locked ({reason})" in lines[0]
