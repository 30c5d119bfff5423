"""Ends a process that is stuck, so that a scheduler can start it again."""

from __future__ import annotations

import faulthandler
import math
import time
from types import TracebackType


class Watchdog:
    """Prints the stacks of all threads and exits with code 1 where training takes too long.

    A reader of clips, a collective or the storage may hang, and hold the interpreter's lock while
    it does: the standard library's own timer works even then.

    Args:
        step_minutes: that a step may take; 0: as long as it takes.
        pause_minutes: that what comes between two steps may take, likewise.
    """

    def __init__(self, step_minutes: float, pause_minutes: float) -> None:
        self._step_s, self._pause_s = 60 * step_minutes, 60 * pause_minutes
        self._armed = -math.inf

    def step(self) -> None:
        """A step begins."""
        # Arming it starts a thread: not at every one of a thousand steps a second.
        if time.monotonic() - self._armed > min(1.0, self._step_s / 10):
            self._arm(self._step_s)
            self._armed = time.monotonic()

    def pause(self) -> None:
        """Something begins that takes longer than a step: an evaluation, a save, compiling."""
        self._arm(self._pause_s)
        self._armed = -math.inf

    def _arm(self, seconds: float) -> None:
        if seconds:
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        else:
            faulthandler.cancel_dump_traceback_later()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
