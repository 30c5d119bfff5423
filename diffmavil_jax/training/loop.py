"""The training loop: policy only. Data, steps, evaluators and stores are handed in."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
from absl import logging

from diffmavil_jax.config.training import CheckpointConfig, TrainConfig
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.metrics import accumulate, finalize
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.training.background import Background
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Evaluator, Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.progress import Progress, ProgressPrinter
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.watchdog import Watchdog

DeviceBatch = Mapping[str, jax.Array]

# Metrics are fetched this many steps late, so that the device never waits for the host.
_LAG = 2

# Seconds between attempts to save the last state.
_PAUSES = (1.0, 5.0, 25.0)

# Metrics of the progress line, beside the loss.
_SHOWN = ('audio', 'video', 'inter', 'intra', 'accuracy')


class TrainingError(RuntimeError):
    """Training can't go on: says why, and where to look."""


class Stop(Protocol):
    """Whether the run was told to stop."""

    def is_set(self) -> bool:
        """Asked at any time; only ever true of a process that is alone."""
        ...

    def before_step(self) -> bool:
        """Asked once before each step; the answer is the same on all hosts."""
        ...


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the loop works with."""

    plan: Plan
    steps: CompiledSteps
    batches: Callable[[int], Iterator[tuple[DeviceBatch, list[str]]]]  # from samples seen
    evaluate: Evaluator
    store: CheckpointStore
    writer: MetricsWriter
    workdir: pathlib.Path
    stop: Stop


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often what happens, in samples seen (and minutes for checkpoints)."""

    train: TrainConfig
    checkpoint: CheckpointConfig
    evaluate_every_samples: int


def run(state: TrainState, parts: Parts, cadence: Cadence, timings: Timings) -> TrainState:
    """Trains from the state to the end of the plan, or until told to stop; adds to the timings.

    A state that is stopped early is checkpointed before this returns.

    Raises:
        TrainingError: after `max_nonfinite_steps` in a row whose loss is not finite.
    """
    return _Run(state, parts, cadence, timings).run()


class _Run:
    def __init__(self, state: TrainState, parts: Parts, cadence: Cadence, timings: Timings) -> None:
        self.state, self.parts, self.cadence = state, parts, cadence
        self.seen = int(state.samples_seen)
        self.timings = timings
        self.pending: collections.deque[tuple[int, Any, list[str]]] = collections.deque()
        self.window: dict[str, tuple[Any, Any]] = {}
        self.window_start = (time.perf_counter(), self.seen)
        self.bad_steps = 0
        self.last_checkpoint = time.perf_counter()
        self.progress = ProgressPrinter()
        self.watchdog = Watchdog(cadence.train.stuck_minutes, cadence.train.stuck_pause_minutes)

    def run(self) -> TrainState:
        with self.watchdog:
            return self._run()

    def _run(self) -> TrainState:
        plan, batches = self.parts.plan, self.parts.batches(self.seen)
        while self.seen < plan.total_samples:
            index = plan.index_at(self.seen)
            self.watchdog.pause()
            begin = time.perf_counter()
            step = self.parts.steps.get(index, self.parts.stop.is_set)
            self.timings.compile_s += time.perf_counter() - begin
            if step is None:
                break
            self.timings.compilations += 1
            self.parts.steps.prepare(index + 1)
            if self._train_bucket(index, step, batches):
                break
            self.parts.steps.release(index)
        self._finish()
        return self.state

    def _train_bucket(self, index: int, step: Any, batches: Iterator[tuple[DeviceBatch, list[str]]]) -> bool:
        """Returns whether the run was told to stop."""
        bucket = self.parts.plan.buckets[index]
        self.window_start = (time.perf_counter(), self.seen)
        while self.seen < bucket.last_sample:
            if self.parts.stop.before_step():
                return True
            self.watchdog.step()
            begin = time.perf_counter()
            batch, ids = next(batches)
            self.timings.data_wait_s += time.perf_counter() - begin
            self.state, metrics = step(self.state, batch)
            before, self.seen = self.seen, self.seen + bucket.batch_size
            self.pending.append((self.seen, metrics, ids))
            if len(self.pending) > _LAG:
                self._fetch()
            self.timings.train_s += time.perf_counter() - begin
            self._after_step(before, index)
        return False

    def _after_step(self, before: int, index: int) -> None:
        ended = self.seen >= self.parts.plan.total_samples

        def due(every: int) -> bool:
            return ended or before // every != self.seen // every

        evaluate = due(self.cadence.evaluate_every_samples)
        save = due(self.cadence.checkpoint.every_samples)
        if due(self.cadence.train.log_every_samples):
            minutes = (time.perf_counter() - self.last_checkpoint) / 60
            overdue = minutes >= self.cadence.checkpoint.every_minutes
            save |= hosts.agree(overdue or bool(self.parts.store.failure()))
        elif not (evaluate or save):
            return
        values = self._flush(index)
        self.watchdog.pause()
        if evaluate:
            begin = time.perf_counter()
            params = self.state.evaluated
            evaluation = Background(lambda: self.parts.evaluate(params), 'evaluate')
            # One that was told to stop saves without it: a notice of preemption leaves half a minute.
            held_out = evaluation.result(self.parts.stop.is_set) or {}
            values |= {f'eval/{name}': value for name, value in held_out.items()}
            self.timings.evaluation_s += time.perf_counter() - begin
        self.parts.writer.write(self.seen, values)
        if save:
            self._save(values)
        self.window_start = (time.perf_counter(), self.seen)

    def _flush(self, index: int) -> dict[str, float]:
        """The means since the last line, after all steps so far have been fetched."""
        begin = time.perf_counter()
        while self.pending:
            self._fetch()
        self.timings.train_s += time.perf_counter() - begin
        bucket = self.parts.plan.buckets[index]
        started, first = self.window_start
        values = finalize(self.window) | {
            'mask_ratio': bucket.mask_ratio,
            'batch_size': float(bucket.batch_size),
            'clips_per_second': (self.seen - first) / (time.perf_counter() - started),
        }
        self.window = {}
        self.progress.show(
            Progress(
                samples=self.seen,
                total_samples=self.parts.plan.total_samples,
                loss=values.get('loss', math.nan),  # every step of the window may have been skipped
                loss_parts={name: values[name] for name in _SHOWN if name in values},
                mask_ratio=bucket.mask_ratio,
                batch_size=bucket.batch_size,
                clips_per_second=values['clips_per_second'],
            )
        )
        return values

    def _fetch(self) -> None:
        """Takes the oldest step's metrics from the device and looks whether it was finite."""
        samples, metrics, ids = self.pending.popleft()
        metrics = jax.device_get(metrics)
        if metrics['skipped'][0] == 0:
            self.bad_steps = 0
            self.window = accumulate(self.window, metrics)
            return
        self.bad_steps += 1
        self.window = accumulate(self.window, {'skipped': metrics['skipped']})
        path = self.parts.workdir / hosts.own_name('nonfinite.jsonl')
        with path.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'samples': samples, 'ids': ids}) + '\n')
        logging.warning('The loss up to clip %d is not finite; the update was skipped (%s).', samples, path)
        if self.bad_steps >= self.cadence.train.max_nonfinite_steps:
            raise TrainingError(
                f'{self.bad_steps} steps running had a loss or gradient that is not finite, the last '
                f'at clip {samples}; the clips are listed in {path}. Lower config.optimizer.learning_rate '
                f'or set config.optimizer.clip_norm, and start again: it resumes from its last checkpoint.'
            )

    def _save(self, values: Mapping[str, float], block: bool = False) -> None:
        metadata = {'timings': dataclasses.asdict(self.timings)}
        self.parts.store.save(self.seen, self.state, metadata, values, block)
        self.last_checkpoint = time.perf_counter()

    def _finish(self) -> None:
        """Writes what is pending, and the checkpoint, before the process may end."""
        if self.pending:
            self.parts.writer.write(self.seen, self._flush(self.parts.plan.index_at(self.seen - 1)))
        self.progress.end()
        for pause in (0.0, *_PAUSES):
            time.sleep(pause)
            if self.parts.store.latest() != self.seen:
                self._save({}, block=True)
            self.parts.store.settle()
            if not self.parts.store.failure():
                return
        raise CheckpointError(
            f'The state at clip {self.seen:,} could not be saved ({self.parts.store.failure()}). Make room; '
            f'the same command resumes from clip {self.parts.store.latest() or 0:,}.'
        )
