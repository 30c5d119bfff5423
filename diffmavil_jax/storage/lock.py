"""A lock that keeps two runs out of one place, on one host or on several that share storage.

It is a file, or an object in a bucket, that names its owner: host, process, and when it began. The owner
gives a sign of life every few seconds. On the same host it is known whether the owner's process is alive. Of
an owner on another host only its signs are seen, and clocks may differ: it counts as ended if no new sign
comes for a while.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.storage.lock_file import LockFile
from diffmavil_jax.storage.lock_object import LockObject
from diffmavil_jax.storage.owner import Owner, Seen
from diffmavil_jax.storage.paths import is_remote
from diffmavil_jax.units import duration

SIGN_EVERY_S = 15.0
# Several signs may be late, and a network file system may show them a minute later.
ENDED_AFTER_S = 90.0

_LOST = 1  # exit code


class Lock(Protocol):
    """A lock where it lies; its methods raise OSError if storage refuses them.

    Attributes:
        path: where.
    """

    path: pathlib.Path

    def make_owner(self) -> Owner:
        """This process as the owner of a lock."""
        ...

    def read(self) -> Seen | None:
        """The lock; None if there is none."""
        ...

    def create(self, mine: Owner) -> bool:
        """Writes a lock where none is; returns whether it did."""
        ...

    def replace(self, seen: Seen, mine: Owner) -> bool:
        """Writes a lock over one whose owner has ended; returns False if another process was faster."""
        ...

    def restore(self, mine: Owner) -> None:
        """Writes the lock again, which somebody removed by hand."""
        ...

    def give_sign(self, mine: Owner) -> None:
        """Shows that the owner is alive."""
        ...

    def remove(self) -> None:
        """Removes the lock."""
        ...


@contextlib.contextmanager
def locked(path: pathlib.Path, busy: str, advice: str, say: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock until the end of the block.

    If the lock is lost, because this process was held up for long and another took it over, the process
    ends at once with exit code 1, before both write to the same files.

    Args:
        path: of the lock, whose folder exists, or in a bucket; it is removed at the end.
        busy: how the error begins, such as `runs/a is in use`.
        advice: how the error ends: what to do.
        say: takes lines: that a lock was taken over, that a sign of life is waited for, or that the storage
            can't hold a lock; the block then runs without one.

    Raises:
        ConfigError: another run holds the lock.
    """
    try:
        lock = _open(path)
        mine = lock.make_owner()
        _take(lock, mine, busy, advice, say)
    except OSError as error:
        say(f"{path} can't be written ({error}): make sure that no other run is at work there")
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_give_signs, args=(lock, mine, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(SIGN_EVERY_S)  # a bucket may not answer
        with contextlib.suppress(OSError):
            seen = lock.read()
            if seen is not None and seen.is_of(mine):
                lock.remove()


def check_free(path: pathlib.Path, busy: str) -> None:
    """Raises ConfigError if the lock is there and its owner may be alive; waits for no sign of life."""
    seen = _open(path).read()
    if seen is None:
        return
    if seen.owner is not None and seen.owner.is_of_this_host():
        alive = seen.owner.is_alive()
    else:
        alive = time.time() - seen.sign < ENDED_AFTER_S
    if alive:
        raise ConfigError(f'{busy} by a run, {seen}.')


def _open(path: pathlib.Path) -> Lock:
    return LockObject(path) if is_remote(path) else LockFile(path)


def _take(lock: Lock, mine: Owner, busy: str, advice: str, say: Callable[[str], None]) -> None:
    while not lock.create(mine):
        seen = lock.read()
        if seen is None:
            continue  # its owner has just removed it
        if not _has_ended(lock, seen, say):
            raise ConfigError(f'{busy} by another run, {lock.read() or seen}. {advice}')
        if lock.replace(seen, mine):
            say(f'{lock.path} was left by {seen}, which has ended: it is taken over.')
            return


def _has_ended(lock: Lock, seen: Seen, say: Callable[[str], None]) -> bool:
    """Whether the owner has ended; of one on another host only its signs tell."""
    if seen.owner is not None and seen.owner.is_of_this_host():
        return not seen.owner.is_alive()
    if time.time() - seen.sign > 10 * ENDED_AFTER_S:
        return True  # more than clocks differ
    say(f'{lock.path} is held by {seen}: waiting up to {duration(ENDED_AFTER_S)} for a sign of life.')
    end = time.monotonic() + ENDED_AFTER_S
    while time.monotonic() < end:
        time.sleep(min(1.0, SIGN_EVERY_S / 2))
        now = lock.read()
        if now is None:
            return True
        if now != seen:
            return False
    return True


def _give_signs(lock: Lock, mine: Owner, ended: threading.Event) -> None:
    while not ended.wait(SIGN_EVERY_S):
        try:
            seen = lock.read()
            if seen is None:
                lock.restore(mine)
                continue
            if seen.owner is not None and not seen.is_of(mine):
                _end(
                    f'{lock.path} was taken over by another run, {seen}, for this one had given no sign of '
                    'life.'
                )
                return
            lock.give_sign(mine)
        except OSError:
            continue  # storage may be away for a while


def _end(message: str) -> None:
    print(f'error: {message}', file=sys.stderr, flush=True)
    os._exit(_LOST)
