"""A watchdog that ends a process that is stuck, so that a scheduler can start it again."""

from __future__ import annotations

import faulthandler
import math
import time
from types import TracebackType


class Watchdog:
    """Prints the stacks of all threads and exits with code 1 when training takes too long.

    A reader of clips, a collective or the storage may hang, and may hold the interpreter's lock
    meanwhile. faulthandler's timer works even then.

    Args:
        step_minutes: the longest that a step may take; 0 means no limit.
        pause_minutes: the longest that anything between two steps may take; 0 means no limit.
    """

    def __init__(self, step_minutes: float, pause_minutes: float) -> None:
        self._step_s, self._pause_s = 60 * step_minutes, 60 * pause_minutes
        self._armed = -math.inf

    def step(self) -> None:
        """Call it when a step begins."""
        # Arming the timer starts a thread, which is too much for each of a thousand steps a second.
        if time.monotonic() - self._armed > min(1.0, self._step_s / 10):
            self._arm(self._step_s)
            self._armed = time.monotonic()

    def pause(self) -> None:
        """Call it when something longer than a step begins: an evaluation, a checkpoint, compiling."""
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
