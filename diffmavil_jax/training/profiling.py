"""A trace of a few steps, for TensorBoard's profile plugin and for Perfetto."""

from __future__ import annotations

import pathlib
from typing import Any

import jax


class StepProfiler:
    """Traces the devices and this process over some steps, which are counted from 0 at each start.

    Args:
        steps: `START:STOP`, of which STOP is the first that is left out; or empty, for no trace.
        folder: where the trace is written. Each host writes one of its own.
        shown: where a user finds that folder.
    """

    def __init__(self, steps: str, folder: pathlib.Path, shown: pathlib.Path) -> None:
        self._steps = range(*map(int, steps.split(':'))) if steps else range(0)
        self._folder, self._shown = folder, shown
        self._count = 0
        self._tracing = False

    def before_step(self, state: Any) -> None:
        """Call it before each step; `state` is what the step before gave."""
        if self._steps and self._count == self._steps.start:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._tracing = True
        elif self._tracing and self._count == self._steps.stop:
            jax.block_until_ready(state)
            self.end()
        self._count += 1

    def end(self) -> None:
        """Writes the trace, if one is being made."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            print(f'A trace of steps {self._steps.start} to {self._count - 1} is in {self._shown}')
