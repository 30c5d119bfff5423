"""Who holds a lock: a process of a host, and its newest sign of life."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import socket
import time
import uuid
from typing import Any

from diffmavil_jax.units import duration


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that holds a lock.

    Attributes:
        token: names this owner of this lock, once.
        host: its name.
        process: its number on the host.
        space: which numbers of processes it shares with others: containers on one host may have their own.
        ticks: when the process began, in the host's own count; tells it from a later one of its number.
        since: when it took the lock, in seconds of the epoch.
    """

    token: str
    host: str
    process: int
    space: str
    ticks: str
    since: float

    @staticmethod
    def here() -> Owner:
        """This process, for others that share a file system with it."""
        process = os.getpid()
        return Owner(uuid.uuid4().hex, socket.gethostname(), process, _space(), ticks(process), time.time())

    @staticmethod
    def anywhere() -> Owner:
        """This process, for others anywhere: hosts that share no file system may have one name."""
        return dataclasses.replace(Owner.here(), space=_space_of_boot())

    def __str__(self) -> str:
        return f'process {self.process} on {self.host}'

    def is_of_this_host(self) -> bool:
        """Whether its process would be seen here."""
        return self.host == socket.gethostname() and self.space in (_space(), _space_of_boot())

    def is_alive(self) -> bool:
        """Whether the process of an owner on this host is there."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is there, and another user's
        return ticks(self.process) == self.ticks


@dataclasses.dataclass(frozen=True)
class Seen:
    """A lock as it was read: its owner, None if the text can't be understood, and its newest sign of life."""

    owner: Owner | None
    sign: float  # seconds of the epoch, by the clock of the storage or, in a bucket, of the owner

    def __str__(self) -> str:
        who, now = self.owner or 'an unknown process', time.time()
        since = f', which began {duration(max(0.0, now - self.owner.since))} ago' if self.owner else ''
        return f'{who}{since} (last sign of life {duration(max(0.0, now - self.sign))} ago)'

    def is_of(self, owner: Owner) -> bool:
        """Whether this owner holds the lock."""
        return self.owner is not None and self.owner.token == owner.token


def written(owner: Owner, **more: Any) -> str:
    """The text of a lock."""
    return json.dumps(dataclasses.asdict(owner) | more) + '\n'


def read(text: str) -> tuple[Owner | None, dict[str, Any]]:
    """What the text of a lock says: its owner, None if it can't be understood, and all its fields."""
    try:
        fields = json.loads(text)
        own = {field.name: fields[field.name] for field in dataclasses.fields(Owner)}
        return Owner(**own | {'process': int(fields['process'])}), fields
    except (ValueError, TypeError, KeyError):
        return None, {}


def ticks(process: int) -> str:
    """When a process began, as Linux counts it; `ended` if it is a zombie or gone, and empty elsewhere."""
    if not os.path.isdir('/proc/self'):
        return ''
    try:
        stat = pathlib.Path(f'/proc/{process}/stat').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return 'ended'
    state, *fields = stat.rpartition(')')[2].split()
    return 'ended' if state in 'ZX' else fields[18]


def _space() -> str:
    try:
        return os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


def _space_of_boot() -> str:
    try:
        boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()
    except OSError:
        boot = f'{uuid.getnode():x}'
    return f'{boot} {_space()}'
