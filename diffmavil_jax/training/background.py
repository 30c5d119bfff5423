"""Work that goes on beside the main thread, which may stop waiting for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

WAITING_EVERY_S = 10.0


class Background:
    """Does some work in a daemon thread: a process that is told to stop need not wait for its end."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        """Begins at once; the name is that of the thread."""
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._began = time.monotonic()
        threading.Thread(target=self._execute, args=(work,), daemon=True, name=name).start()

    def result(
        self, should_stop: Callable[[], bool], waiting: Callable[[float], None] = lambda seconds: None
    ) -> Any | None:
        """What the work gave; None if told to stop before it was done. Raises what it raised.

        Args:
            should_stop: asked several times a second.
            waiting: is told every ten seconds how many seconds the work has taken so far.
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
        except BaseException as error:  # raised again in the thread that waits
            self._error = error
        self._done.set()
