"""Metrics of the steps since the last line: fetched late, averaged, and looked at for numbers not finite."""

from __future__ import annotations

import collections
import json
import pathlib
import time

import jax
from absl import logging

from diffmavil_jax.parallel.metrics import Metrics, accumulate, finalize

# Metrics are fetched this many steps late, so that the device never waits for the host.
_LAG_STEPS = 2


class TrainingError(RuntimeError):
    """Training can't go on: says why, and where to look."""


class StepMetrics:
    """Collects the metrics of steps, and lists the clips of each step that is not finite.

    Args:
        max_nonfinite_steps: how many steps in a row may not be finite before it is an error.
        nonfinite_path: the file that the clips of such steps are added to.
        shown_path: where a user finds that file.
    """

    def __init__(
        self, max_nonfinite_steps: int, nonfinite_path: pathlib.Path, shown_path: pathlib.Path
    ) -> None:
        self._max_nonfinite_steps = max_nonfinite_steps
        self._nonfinite_path, self._shown_path = nonfinite_path, shown_path
        self._on_device: collections.deque[tuple[int, Metrics, list[str]]] = collections.deque()
        self._sums: Metrics = {}
        self._nonfinite_steps = 0
        self._any_finite = False
        self._start_s, self._start_samples = time.perf_counter(), 0

    @property
    def pending(self) -> bool:
        """Whether metrics of some steps have not been fetched yet."""
        return bool(self._on_device)

    def start_clock(self, samples: int) -> None:
        """Measures clips per second from now on."""
        self._start_s, self._start_samples = time.perf_counter(), samples

    def add(self, samples: int, metrics: Metrics, ids: list[str]) -> None:
        """Takes the metrics of a step, which may still be running, and fetches those of an earlier one.

        Args:
            samples: samples seen after the step.
            metrics: of the step, on the device; `skipped` says whether it was not finite.
            ids: names of its clips.

        Raises:
            TrainingError: too many steps in a row were not finite.
        """
        self._on_device.append((samples, metrics, ids))
        if len(self._on_device) > _LAG_STEPS:
            self._fetch()

    def fetch_all(self) -> None:
        """Waits for all steps so far; raises as `add`."""
        while self._on_device:
            self._fetch()

    def take(self, samples: int) -> tuple[dict[str, float], float]:
        """The means over the steps that were fetched, which are then forgotten, and clips per second."""
        means, self._sums = finalize(self._sums), {}
        return means, (samples - self._start_samples) / (time.perf_counter() - self._start_s)

    def _fetch(self) -> None:
        """Fetches the metrics of the oldest step."""
        samples, on_device, ids = self._on_device.popleft()
        metrics = jax.device_get(on_device)
        if metrics['skipped'][0] == 0:
            self._nonfinite_steps, self._any_finite = 0, True
            self._sums = accumulate(self._sums, metrics)
            return
        self._nonfinite_steps += 1
        self._sums = accumulate(self._sums, {'skipped': metrics['skipped']})
        with self._nonfinite_path.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'samples': samples, 'ids': ids}) + '\n')
        logging.warning(
            'The loss up to clip %d is not finite; the update was skipped (%s).',
            samples,
            self._shown_path,
        )
        if self._nonfinite_steps >= self._max_nonfinite_steps:
            remedy = (
                'Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and start again: it '
                'resumes from its last checkpoint.'
                if self._any_finite
                else 'No step of this start was finite: the parameters that it began with, those of '
                'config.init if there is one, are likelier to blame than the clips or the learning rate.'
            )
            raise TrainingError(
                f'{self._nonfinite_steps} steps running had a loss or gradient that is not finite, the last '
                f'at clip {samples}; the clips are listed in {self._shown_path}. {remedy}'
            )
