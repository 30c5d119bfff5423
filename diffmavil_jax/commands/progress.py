"""The progress line of a command, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

# Seconds between progress lines, on a terminal and elsewhere.
_QUICK_S, _SLOW_S = 0.2, 10.0


class ProgressLine:
    """A line that is renewed now and then, and at the end."""

    def __init__(self) -> None:
        from diffmavil_jax.training.progress import ProgressPrinter

        self._printer = ProgressPrinter(sys.stderr)
        self._every_s = _QUICK_S if sys.stderr.isatty() else _SLOW_S
        self._started = self._shown = time.monotonic()

    def show(self, done: int, total: int, text: Callable[[float], str]) -> None:
        """Shows the share that is done and the text, unless a line was shown a moment ago.

        Args:
            done: how much is done.
            total: how much there is to do.
            text: makes the rest of the line from the seconds since the start.
        """
        now = time.monotonic()
        if now - self._shown < self._every_s and done < total:
            return
        self._shown = now
        self._printer.write(f'{100 * done // total:4d} %  {text(now - self._started)}')

    def end(self) -> None:
        """Moves below the line, so that something else can be printed."""
        self._printer.end()
