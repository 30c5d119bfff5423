"""The compiled step of each bucket; the next one is compiled while the current one trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffmavil_jax.training.background import Background


class CompiledSteps:
    """Compiles the step of each bucket once, when it is needed or before.

    A daemon thread compiles, so that a run that is told to stop need not wait for the compiler.
    """

    def __init__(
        self,
        lower: Callable[[int], jax.stages.Lowered],
        count: int,
        *,
        rehearse: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            lower: from the index of a bucket to its lowered step.
            count: number of buckets.
            rehearse: whether each step is executed on zeros once it is compiled. CPU: XLA sets up its
                kernels in the first execution, and memory is touched for the first time, so that the
                first step would take two to three times as long.
            say: called with a line of text while a step is waited for.
        """
        self._lower = lower
        self._count = count
        self._rehearse = rehearse
        self._say = say
        self._jobs: dict[int, Background] = {}

    def prepare(self, index: int) -> None:
        """Starts to compile the step of a bucket, unless it was started before or there is no such bucket."""
        if index < self._count and index not in self._jobs:
            self._jobs[index] = Background(lambda: self._compile(index), 'compile')

    def get(self, index: int, should_stop: Callable[[], bool]) -> Any | None:
        """Waits for the compiled step of a bucket; None if told to stop meanwhile."""
        self.prepare(index)
        return self._jobs[index].result(
            should_stop,
            lambda seconds: self._say(
                f'Compiling the step of bucket {index + 1} of {self._count}: {seconds:.0f} s so far.'
            ),
        )

    def release(self, index: int) -> None:
        """Forgets the step of a bucket that is over."""
        self._jobs.pop(index, None)

    def _compile(self, index: int) -> jax.stages.Compiled:
        step = self._lower(index).compile()
        if self._rehearse:
            arguments, _ = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), step.args_info)
            jax.block_until_ready(step(*jax.device_put(arguments)))
        return step
