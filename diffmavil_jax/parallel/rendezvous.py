"""Where processes meet before JAX connects them, so that the one that is missing can be named.

JAX would wait in silence, name nobody, and end the interpreter when its time is over. Process 0 listens at
the coordinator's address until all are there, and then leaves the address to JAX. The others send one line,
`NUMBER COUNT`, and read lines: `missing 1,3` whenever that changes, and `go` or `refused REASON` at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from diffmavil_jax.config.tree import ConfigError

_LOOK_EVERY_S = 0.2
_TELL_EVERY_S = 0.2
_LINE_WITHIN_S = 2.0  # what connects and says nothing is not one of the processes
_CONNECT_WITHIN_S = 5.0
_NAMED = 8  # of many missing processes


@dataclasses.dataclass
class Patience:
    """Says that something is waited for, after ten seconds and then every minute, until time is over.

    Attributes:
        limit_s: how long is waited.
        say: is given a line of text.
        first_s: when the first line is due.
        every_s: the time between later lines.
    """

    limit_s: float
    say: Callable[[str], None]
    first_s: float = 10.0
    every_s: float = 60.0

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._next_s = self.first_s

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() - self._began > self.limit_s

    def is_due(self) -> bool:
        """Whether it is time to say something; true once for each time."""
        seconds = time.monotonic() - self._began
        if seconds < self._next_s:
            return False
        self._next_s = self.every_s * (seconds // self.every_s + 1)
        return True

    def tell(self, what: str) -> None:
        """Says what is waited for, and for how long already."""
        self.say(f'Waiting for {what}: {time.monotonic() - self._began:.0f} s so far.')


def meet(address: str, count: int, number: int, patience: Patience) -> None:
    """Returns when all processes are there.

    Args:
        address: HOST:PORT of process 0.
        count: of the processes.
        number: of this process, from 0.
        patience: how long is waited.

    Raises:
        ConfigError: some process is missing at the end, another has this one's number, they differ in their
            count, or process 0 can't listen at the address.
    """
    if count == 1:
        return
    if number:
        _Guest(address, count, number, patience).wait()
        return
    with _listening(address) as listener:
        guests = _receive(listener, address, count, patience)
    # The address is free again before the others hear that they may connect to JAX there.
    for guest in guests:
        _send(guest, 'go')
        guest.close()


def spell_processes(numbers: Iterable[int], count: int) -> str:
    """Such as `process 1 of 2`, or `processes 1, 3 of 8`."""
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return f'process {numbers[0]} of {count}'
    more = f' and {len(numbers) - _NAMED} others' if len(numbers) > _NAMED else ''
    return f'processes {", ".join(map(str, numbers[:_NAMED]))}{more} of {count}'


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    """A socket at the port of the address, on all interfaces, as JAX's own is."""
    port = int(os.environ.get('JAX_COORDINATOR_BIND_ADDRESS', address).rpartition(':')[2])
    dual = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ('', port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=1024
        )
    except OSError as error:
        raise ConfigError(
            f'config.parallel.coordinator = {address!r}: must have a port that is free on the host of '
            f'process 0 ({error.strerror}).'
        ) from None
    with listener:
        yield listener


def _receive(listener: socket.socket, address: str, count: int, patience: Patience) -> list[socket.socket]:
    """The connections of all other processes; one that goes away before all are there is missing again."""
    guests: dict[int, socket.socket] = {}
    told: list[int] | None = None
    next_telling = 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while missing := sorted(set(range(1, count)) - guests.keys()):
            for key, _ in selector.select(_LOOK_EVERY_S):
                if key.fileobj is listener:
                    _admit(listener, guests, count, selector)
                else:
                    _drop(guests, key.data, selector)  # a guest says nothing more: it has gone
            if patience.is_due():
                patience.tell(f'{spell_processes(missing, count)} at {address}')
            if missing != told and time.monotonic() > next_telling:
                for guest in guests.values():
                    _send(guest, 'missing ' + ','.join(map(str, missing)))
                told, next_telling = missing, time.monotonic() + _TELL_EVERY_S
            if patience.is_over:
                reason = _not_reached(address, f'{spell_processes(missing, count)} did not come', patience)
                for guest in guests.values():
                    _send(guest, f'refused {reason}')
                    guest.close()
                raise ConfigError(reason)
    return list(guests.values())


def _admit(
    listener: socket.socket,
    guests: dict[int, socket.socket],
    count: int,
    selector: selectors.BaseSelector,
) -> None:
    guest, _ = listener.accept()
    guest.settimeout(_LINE_WITHIN_S)
    try:
        number, theirs = map(int, guest.makefile(encoding='ascii').readline(64).split())
    except (OSError, ValueError):
        guest.close()
        return
    if theirs != count or not 0 < number < count:
        _send(
            guest,
            f'refused config.parallel: process {number} of {theirs} came to process 0 of {count}; all '
            f'processes must have the same config.parallel.processes, and each its own number.',
        )
        guest.close()
        return
    if number in guests:  # one that was started again, perhaps, while the first is only out of sight
        _send(guests[number], f'refused config.parallel.process = {number}: another process has it.')
        _drop(guests, number, selector)
    guests[number] = guest
    selector.register(guest, selectors.EVENT_READ, number)


def _drop(guests: dict[int, socket.socket], number: int, selector: selectors.BaseSelector) -> None:
    guest = guests.pop(number)
    selector.unregister(guest)
    guest.close()


class _Guest:
    """A process other than the first, on its way to it."""

    def __init__(self, address: str, count: int, number: int, patience: Patience) -> None:
        self._address, self._count, self._number, self._patience = address, count, number, patience

    def wait(self) -> None:
        """Comes to process 0, again and again, until that says that all are there."""
        while True:
            try:
                connection = self._connect()
            except OSError as error:
                reason, first = error.strerror or str(error), f'process 0 of {self._count}'
                self._look(
                    f'{first} at {self._address} ({reason})', f'{first} did not answer there: {reason}'
                )
                time.sleep(_LOOK_EVERY_S)
                continue
            with connection:
                _send(connection, f'{self._number} {self._count}')
                all_here = self._listen(connection)
            if all_here:
                self._wait_for_jax()
                return
            time.sleep(_LOOK_EVERY_S)

    def _connect(self) -> socket.socket:
        host, _, port = self._address.rpartition(':')
        return socket.create_connection((host.strip('[]'), int(port)), _CONNECT_WITHIN_S)

    def _wait_for_jax(self) -> None:
        """Returns when JAX listens at the address: JAX's own first attempt would be followed by a pause."""
        end = time.monotonic() + _CONNECT_WITHIN_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                self._connect().close()
                return
            time.sleep(0.02)

    def _listen(self, connection: socket.socket) -> bool:
        """Whether all are there; False if process 0 went away before."""
        connection.settimeout(_LOOK_EVERY_S)
        received, missing = b'', 'some process'
        while True:
            try:
                part = connection.recv(4096)
            except TimeoutError:
                part = None
            except OSError:
                part = b''
            if part == b'':
                return False
            received += part or b''
            *lines, received = received.split(b'\n')
            for line in lines:
                word, _, rest = line.decode().partition(' ')
                if word == 'go':
                    return True
                if word == 'refused':
                    raise ConfigError(rest)
                missing = spell_processes(map(int, rest.split(',')), self._count)
            self._look(f'{missing} at {self._address}', f'{missing} did not come')

    def _look(self, what: str, reason: str) -> None:
        if self._patience.is_due():
            self._patience.tell(what)
        if self._patience.is_over:
            raise ConfigError(_not_reached(self._address, reason, self._patience))


def _not_reached(address: str, reason: str, patience: Patience) -> str:
    return (
        f'config.parallel.coordinator: {address} was not reached by all processes within '
        f'{patience.limit_s:.0f} s ({reason}). Start the same command on every host; '
        f'config.parallel.processes=1 runs on this host alone.'
    )


def _send(connection: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # who has gone is missed later
        connection.sendall(f'{line}\n'.encode())
