"""The signals that tell a run to stop."""

from __future__ import annotations

import os
import signal
import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar('T')


class _Told(BaseException):
    """Raised out of `wait_for`."""


class StopSignal:
    """Is set by SIGTERM and by Ctrl-C; a second Ctrl-C interrupts at once.

    Where there are several processes, JAX handles SIGTERM (a pod's notice of preemption): it makes all
    processes stop before the same step, whichever of them was told.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._previous: dict[int, Any] = {}
        self._together = jax.process_count() > 1
        self._steps = 0
        self._waiting = False

    def is_set(self) -> bool:
        """Whether this process was told to stop; only ever true of a process that is alone."""
        return self._event.is_set() and not self._together

    def before_step(self) -> bool:
        """Whether to stop before the next step; every process must ask once a step."""
        self._steps += 1
        if self._together:
            return multihost_utils.reached_preemption_sync_point(self._steps)
        return self.is_set()

    def wait_for(self, get: Callable[[], T]) -> T | None:
        """What a function of Python gives that may wait for long; None if told to stop meanwhile."""
        if self.is_set():
            return None
        try:
            self._waiting = True
            item = get()
            self._waiting = False
            return item
        except _Told:
            return None
        except BaseException:
            self._waiting = False
            raise

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self._event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._event.set()
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
        # Not print, which is not safe in a signal handler: the main thread may be printing.
        os.write(2, b'\nstopping: saving a checkpoint ...\n')
        if self._waiting and not self._together:
            self._waiting = False
            raise _Told
