"""Processes that meet: all are there, or the one that is missing is named, and waiting has an end."""

import socket
import threading
import time

import pytest

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.parallel import rendezvous
from diffmavil_jax.parallel.rendezvous import Patience, meet, spell_processes


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(rendezvous, '_CONNECT_WITHIN_S', 0.3)  # nobody listens there after they have met
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return f'localhost:{listener.getsockname()[1]}'


class Process(threading.Thread):
    """One of the processes: what it said, and how it ended."""

    def __init__(self, address, count, number, limit_s=20.0):
        super().__init__(daemon=True)
        self.said, self.error, self._arguments = [], None, (address, count, number)
        self._patience = Patience(limit_s, self.said.append, first_s=0.3, every_s=0.4)
        self.start()

    def run(self):
        try:
            meet(*self._arguments, self._patience)
        except ConfigError as error:
            self.error = str(error)

    def ended(self):
        self.join(timeout=20)
        assert not self.is_alive(), self.said
        return self.error


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0)])
def test_all_meet_whoever_comes_first_and_the_address_is_free_again(address, order):
    processes = [Process(address, 3, number) for number in order]
    assert [process.ended() for process in processes] == [None] * 3
    with socket.create_server(('', int(address.split(':')[1]))):
        pass


def test_all_say_who_is_missing_and_go_on_when_it_comes(address):
    first, second = Process(address, 3, 0), Process(address, 3, 1)
    wait_until(lambda: len(first.said) >= 2 and second.said)
    assert all(f'Waiting for process 2 of 3 at {address}: ' in line for line in first.said[1:])
    assert f'Waiting for process 2 of 3 at {address}: ' in second.said[-1]
    assert [process.ended() for process in (first, second, Process(address, 3, 2))] == [None] * 3


def test_without_the_first_process_that_is_said_and_at_last_an_error(address):
    alone = Process(address, 2, 1, limit_s=0.8)
    assert f'{address} was not reached by all processes within 1 s (process 0 of 2 did not' in alone.ended()
    assert f'Waiting for process 0 of 2 at {address} (Connection refused): ' in alone.said[0]


def test_at_the_end_all_name_who_did_not_come(address):
    processes = [Process(address, 3, number, limit_s=1.0) for number in (0, 1)]
    for error in [process.ended() for process in processes]:
        assert f'{address} was not reached by all processes within 1 s (process 2 of 3 did not come)' in error


def test_one_that_dies_while_it_waits_is_missing_again(address):
    first = Process(address, 2, 0)
    host, port = address.split(':')

    def come():
        return socket.create_connection((host, int(port)), timeout=5)

    wait_until(lambda: first.said)
    for hello in (b'1 3\n', b'7 2\n', b'GET / HTTP/1.1\n'):  # strangers, and one of another run
        with come() as stranger:
            stranger.sendall(hello)
            stranger.makefile().read()
    with come() as dying:
        dying.sendall(b'1 3\n')
    assert first.is_alive()
    assert [process.ended() for process in (Process(address, 2, 1), first)] == [None, None]


def test_of_two_with_one_number_the_last_counts_and_the_first_is_told(address):
    first, twin = Process(address, 3, 0), Process(address, 3, 1)
    wait_until(lambda: twin.said)
    last = Process(address, 3, 1)
    assert 'config.parallel.process = 1: another process has it' in twin.ended()
    assert [process.ended() for process in (Process(address, 3, 2), last, first)] == [None] * 3


def test_another_count_of_processes_is_refused_with_both_numbers(address):
    first, other = Process(address, 2, 0), Process(address, 4, 3)
    assert 'process 3 of 4 came to process 0 of 2' in other.ended()
    assert [process.ended() for process in (Process(address, 2, 1), first)] == [None, None]


def test_a_port_in_use_is_an_error(address):
    with socket.create_server(('', int(address.split(':')[1]))):
        error = Process(address, 2, 0).ended()
    assert f"config.parallel.coordinator = '{address}': must have a port that is free" in error


def test_many_are_named_in_one_line():
    assert spell_processes(range(1, 12), 64) == 'processes 1, 2, 3, 4, 5, 6, 7, 8 and 3 others of 64'


def test_it_is_said_after_ten_seconds_and_every_minute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    patience, due = Patience(300, print), []
    for second in range(302):
        now[0] = 100.0 + second
        due += [second] if patience.is_due() else []
    assert due == [10, 60, 120, 180, 240, 300]
    assert patience.is_over
