"""Ends a process that is stuck, so that a scheduler can start it again."""

from __future__ import annotations

import faulthandler
import time
from types import TracebackType


class Watchdog:
    """Prints the stacks of all threads and exits with code 1 where a step takes too long.

    A reader of clips, a collective or the storage may hang, and hold the interpreter's lock while
    it does: the standard library's own timer works even then.

    Args:
        minutes: that a step may take; 0 watches nothing.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._armed = 0.0

    def step(self) -> None:
        """A step begins."""
        # Arming it starts a thread: not at every one of a thousand steps a second.
        if self._seconds and time.monotonic() - self._armed > min(1.0, self._seconds / 10):
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)
            self._armed = time.monotonic()

    def pause(self) -> None:
        """Until the next step, things are done that may take as long as they take."""
        faulthandler.cancel_dump_traceback_later()
        self._armed = 0.0

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()
