"""One compiled step for each bucket, the next one compiled while the current one trains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax


class CompiledSteps:
    """Compiles on demand and ahead, each bucket exactly once.

    A daemon thread does the compiling, so that a run that is told to stop need not wait
    for the compiler.
    """

    def __init__(self, lower: Callable[[int], jax.stages.Lowered], count: int) -> None:
        """Args: `lower` gives the lowered step of a bucket's index, for `count` buckets."""
        self._lower = lower
        self._count = count
        self._jobs: dict[int, _Job] = {}

    def prepare(self, index: int) -> None:
        """Starts to compile the step of a bucket, unless that was done or there is no such bucket."""
        if index < self._count and index not in self._jobs:
            self._jobs[index] = _Job(lambda: self._lower(index).compile())

    def get(self, index: int, should_stop: Callable[[], bool]) -> Any | None:
        """The compiled step of a bucket; waits for it. None if told to stop while waiting."""
        self.prepare(index)
        job = self._jobs[index]
        while not job.done.wait(timeout=0.2):
            if should_stop():
                return None
        if job.error is not None:
            raise job.error
        return job.result

    def release(self, index: int) -> None:
        """Forgets the step of a bucket that is over."""
        self._jobs.pop(index, None)


class _Job:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(work,), daemon=True, name='compile').start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.result = work()
        except BaseException as error:  # raised again in the thread that waits
            self.error = error
        self.done.set()
