"""Work in a thread of its own, which the main thread may stop waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

WAITING_EVERY_S = 10.0


class Background:
    """Does some work in a daemon thread, so that a process that is told to stop need not wait for it."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        """Starts the work at once, in a thread of this name."""
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._began = time.monotonic()
        threading.Thread(target=self._execute, args=(work,), daemon=True, name=name).start()

    def result(
        self, should_stop: Callable[[], bool], waiting: Callable[[float], None] = lambda seconds: None
    ) -> Any | None:
        """Waits for the result of the work; None if told to stop before. Raises what the work raised.

        Args:
            should_stop: called several times a second.
            waiting: called every ten seconds with the seconds that the work has taken so far.
        """
        told = 0
        while not self._done.wait(timeout=0.2):
            if should_stop():
                return None
            seconds = time.monotonic() - self._began
            if seconds // WAITING_EVERY_S > told:
                told = int(seconds // WAITING_EVERY_S)
                waiting(seconds)
        if self._error is not None:
            raise self._error
        return self._result

    def _execute(self, work: Callable[[], Any]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # raised again by `result`, in the thread that waits
            self._error = error
        self._done.set()
