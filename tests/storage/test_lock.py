"""A lock is of one run, is taken over from one that has ended, and leaves nothing behind."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage import lock, lock_object, owner
from diffmavil_jax.storage.lock_file import LockFile
from diffmavil_jax.storage.lock_object import LockObject
from diffmavil_jax.storage.paths import open_path

HOLD = (
    'import pathlib, sys, time\n'
    'from diffmavil_jax.storage.lock import locked\n'
    'with locked(pathlib.Path(sys.argv[1]), "it is in use", "", print):\n'
    '    print("held", flush=True)\n'
    '    time.sleep(60)\n'
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'run.lock'


@pytest.fixture
def remote(bucket):
    """A lock in a bucket."""
    return open_path('gs://bucket/run/run.lock')


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, 'SIGN_EVERY_S', 0.05)
    monkeypatch.setattr(lock, 'ENDED_AFTER_S', 0.4)
    monkeypatch.setattr(lock_object, 'SETTLED_AFTER_S', 0.2)


def held(path, lines=None):
    return lock.locked(path, 'runs/a is in use', 'Wait for it.', (lines or []).append)


def write_owner(path, **changes):
    path.write_text(owner.written(dataclasses.replace(owner.Owner.here(), **changes)))


def other_process(path):
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    return process


def test_a_lock_is_of_one_run_and_leaves_nothing(path):
    with held(path):
        with pytest.raises(ConfigError) as error:
            held(path).__enter__()
        assert f'runs/a is in use by another run, process {os.getpid()} on ' in str(error.value)
        assert ', which began ' in str(error.value) and str(error.value).endswith('Wait for it.')
        with held(path.with_name('other.lock')):
            pass
        with pytest.raises(ConfigError, match='in use by a run, process'):
            lock.check_free(path, 'in use')
    assert list(path.parent.iterdir()) == []
    lock.check_free(path, 'in use')


def test_the_lock_of_another_process_holds_until_that_is_killed(path):
    process, lines = other_process(path), []
    with pytest.raises(ConfigError, match=f'process {process.pid} on'):
        held(path).__enter__()
    process.send_signal(signal.SIGKILL)
    while owner.ticks(process.pid) != 'ended':
        time.sleep(0.01)
    with held(path, lines):  # it is a zombie: nobody has waited for it yet
        pass
    process.communicate()
    assert len(lines) <= 1 and not path.exists()


def test_what_was_left_is_taken_over_and_said(path):
    write_owner(path, ticks='another time', since=time.time() - 3600)  # its number is another process's now
    lines = []
    with lock.locked(path, '', '', lines.append):
        assert json.loads(path.read_text())['process'] == os.getpid()
    (line,) = lines
    assert f'was left by process {os.getpid()} on' in line and 'which began 1 h ago' in line
    assert list(path.parent.iterdir()) == []


def test_of_another_host_only_the_signs_count(path, quick):
    write_owner(path, host='elsewhere')
    lines, ended = [], threading.Event()

    def live():
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(ConfigError, match='on elsewhere'):
        lock.locked(path, '', '', lines.append).__enter__()
    ended.set()
    thread.join()
    with lock.locked(path, '', '', lines.append):
        assert LockFile(path).read().owner.host != 'elsewhere'
    assert 'waiting up to' in lines[0] and lines[-1].endswith('it is taken over.')


def test_a_sign_of_long_ago_is_not_waited_for(path):
    write_owner(path, host='elsewhere')
    os.utime(path, (0, time.time() - 11 * lock.ENDED_AFTER_S))
    begin = time.monotonic()
    with held(path):
        pass
    assert time.monotonic() - begin < 1


def test_of_many_that_find_an_owner_ended_one_takes_over(path):
    write_owner(path, ticks='another time')
    outcomes, holding, barrier = [], threading.Event(), threading.Barrier(8)

    def take():
        barrier.wait()
        try:
            with held(path):
                outcomes.append('held')
                holding.wait(10)
        except ConfigError:
            outcomes.append('refused')

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 8:
        time.sleep(0.01)
    holding.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ['held', *['refused'] * 7]


def test_an_owner_gives_signs_and_ends_if_another_took_the_lock(path, quick, monkeypatch):
    messages = []
    monkeypatch.setattr(lock, '_end', messages.append)
    with held(path):
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            time.sleep(0.01)
        write_owner(path, host='elsewhere')
        while not messages:
            time.sleep(0.01)
    assert 'was taken over by another run, process' in messages[0]
    assert path.exists()  # it is the other's


def test_a_lock_that_somebody_removed_comes_back(path, quick):
    with held(path):
        path.unlink()
        while not path.exists():
            time.sleep(0.01)
    assert not path.exists()


def test_a_file_that_is_no_lock_holds_only_while_it_changes(path, quick):
    path.write_text('process 12 on somewhere\n')
    with held(path):
        pass
    assert not path.exists()


def test_where_there_can_be_no_links_there_are_locks(path, monkeypatch):
    def refuse(*_):
        raise PermissionError('no links')

    monkeypatch.setattr(os, 'link', refuse)
    with held(path), pytest.raises(ConfigError):
        held(path).__enter__()
    assert not path.exists()


def test_where_there_can_be_no_lock_it_is_said(tmp_path):
    for path, reason in ((pathlib.Path('gs://bucket/x'), 'gs:'), (tmp_path / 'none' / 'x', 'No such file')):
        lines = []
        with lock.locked(path, '', '', lines.append):
            pass
        assert "can't be written" in lines[0] and reason in lines[0]


def write_remote_owner(remote, **changes):
    mine = dataclasses.replace(owner.Owner.anywhere(), **changes)
    remote.write_text(owner.written(mine, sign=time.time()))
    return mine


def test_in_a_bucket_a_lock_is_of_one_run_and_leaves_nothing(remote, bucket):
    with held(remote):
        with pytest.raises(ConfigError, match=f'in use by another run, process {os.getpid()} on'):
            held(remote).__enter__()
        with pytest.raises(ConfigError, match='in use by a run, process'):
            lock.check_free(remote, 'in use')
    assert not list((bucket / 'run').iterdir())
    lock.check_free(remote, 'in use')


def test_in_a_bucket_what_was_left_on_this_host_is_taken_over_and_said(remote, quick):
    write_remote_owner(remote, ticks='another time')
    lines = []
    with lock.locked(remote, '', '', lines.append):
        assert json.loads(remote.read_text())['process'] == os.getpid()
    (line,) = lines
    assert line.startswith('gs://bucket/run/run.lock was left by process')


def test_in_a_bucket_of_another_host_only_the_signs_count(remote, quick):
    # Another machine may have this one's name, and no file system in common with it.
    mine, lines, ended = write_remote_owner(remote, space='another boot'), [], threading.Event()

    def live():
        while not ended.wait(0.05):
            LockObject(remote).give_sign(mine)

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(ConfigError, match='in use by another run'):
        held(remote).__enter__()
    ended.set()
    thread.join()
    with lock.locked(remote, '', '', lines.append):
        assert LockObject(remote).read().owner.token != mine.token
    assert 'waiting up to' in lines[0] and lines[-1].endswith('it is taken over.')


def test_in_a_bucket_an_owner_gives_signs_and_ends_if_another_took_the_lock(remote, quick, monkeypatch):
    messages = []
    monkeypatch.setattr(lock, '_end', messages.append)
    with held(remote):
        begin = LockObject(remote).read().sign
        while LockObject(remote).read().sign == begin:
            time.sleep(0.01)
        remote.unlink()
        while not remote.exists():
            time.sleep(0.01)
        theirs = write_remote_owner(remote, host='elsewhere')
        while not messages:
            time.sleep(0.01)
    assert 'was taken over by another run, process' in messages[0]
    assert LockObject(remote).read().is_of(theirs)


def test_in_a_bucket_of_several_that_take_over_the_last_to_write_holds(remote, quick, monkeypatch):
    old = LockObject(remote)
    write_remote_owner(remote, ticks='another time')
    seen, outcomes = old.read(), {}
    both = threading.Barrier(2)
    write = LockObject._write

    def write_together(self, mine, **named):
        both.wait()
        write(self, mine, **named)

    monkeypatch.setattr(LockObject, '_write', write_together)

    def take(name):
        outcomes[name] = old.replace(seen, owner.Owner.anywhere())

    threads = [threading.Thread(target=take, args=(name,)) for name in 'ab']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == [False, True]


def test_in_a_bucket_an_answer_that_got_lost_is_no_other_run(remote):
    mine = owner.Owner.anywhere()
    assert LockObject(remote).create(mine)
    assert LockObject(remote).create(mine)  # the client asks again
    assert not LockObject(remote).create(owner.Owner.anywhere())
