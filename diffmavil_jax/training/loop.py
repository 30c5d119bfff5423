"""The training loop, which is policy only: data, steps, evaluators and stores are handed in."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import jax

from diffmavil_jax.parallel import agreement, hosts
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.storage.run_files import SOON_S, RunFiles
from diffmavil_jax.training.background import Background
from diffmavil_jax.training.cadence import Cadence, due_after
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Evaluator, Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.profiling import StepProfiler
from diffmavil_jax.training.progress import Progress, ProgressPrinter
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.step_metrics import StepMetrics
from diffmavil_jax.training.watchdog import Watchdog

T = TypeVar('T')
DeviceBatch = Mapping[str, jax.Array]

# The last state is saved at once or, if storage refuses it, after pauses of so many seconds.
_LAST_SAVE_PAUSES_S = (0.0, 1.0, 5.0, 25.0)

# Metrics that the progress line shows beside the loss.
_SHOWN = ('audio', 'video', 'inter', 'sigmoid', 'intra', 'accuracy')


class Stop(Protocol):
    """Whether the run was told to stop."""

    def is_set(self) -> bool:
        """May be called at any time; only ever true of a process that is alone."""
        ...

    def before_step(self) -> bool:
        """Called once before each step; the answer is the same on all hosts."""
        ...

    def wait_for(self, get: Callable[[], T]) -> T | None:
        """What a function gives that may wait for long; None if told to stop meanwhile."""
        ...


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the loop works with.

    Attributes:
        plan: its buckets.
        steps: a compiled step for each bucket.
        batches: from samples seen to the batches that follow, each with the names of its clips.
        evaluate: measures parameters.
        store: checkpoints.
        writer: lines of metrics.
        files: the small files of the run.
        stop: tells when to stop.
    """

    plan: Plan
    steps: CompiledSteps
    batches: Callable[[int], Iterator[tuple[DeviceBatch, list[str]]]]
    evaluate: Evaluator
    store: CheckpointStore
    writer: MetricsWriter
    files: RunFiles
    stop: Stop


def train(state: TrainState, setup: Setup, cadence: Cadence, timings: Timings) -> TrainState:
    """Trains from the state to the end of the plan, or until told to stop; adds to the timings.

    The last state is checkpointed before this returns, also if the run was told to stop.

    Raises:
        TrainingError: after `max_nonfinite_steps` in a row whose loss is not finite.
        CheckpointError: the last state could not be saved.
    """
    trainer = _Trainer(state, setup, cadence, timings)
    with trainer.watchdog:
        trainer.train_buckets()
        trainer.finish()
    return trainer.state


class _Trainer:
    def __init__(self, state: TrainState, setup: Setup, cadence: Cadence, timings: Timings) -> None:
        self.state, self.setup, self.cadence, self.timings = state, setup, cadence, timings
        self.seen = int(state.samples_seen)
        nonfinite = setup.files.path / hosts.own_name('nonfinite.jsonl')
        self.metrics = StepMetrics(cadence.train.max_nonfinite_steps, nonfinite, setup.files.shown(nonfinite))
        self.last_checkpoint = time.perf_counter()
        self.progress = ProgressPrinter()
        profile = setup.files.path / 'profile'
        self.profiler = StepProfiler(cadence.train.profile_steps, profile, setup.files.shown(profile))
        self.watchdog = Watchdog(cadence.train.stuck_minutes, cadence.train.stuck_pause_minutes)

    def train_buckets(self) -> None:
        """Trains bucket after bucket, and compiles the next one's step meanwhile."""
        plan, steps, batches = self.setup.plan, self.setup.steps, self.setup.batches(self.seen)
        while self.seen < plan.total_samples:
            index = plan.index_at(self.seen)
            self.watchdog.pause()
            begin = time.perf_counter()
            step = steps.get(index, self.setup.stop.is_set)
            self.timings.compile_s += time.perf_counter() - begin
            if step is None:
                return
            self.timings.compilations += 1
            steps.prepare(index + 1)
            if self._train_bucket(index, step, batches):
                return
            steps.release(index)

    def finish(self) -> None:
        """Writes the last line and the last checkpoint before the process may end."""
        if self.metrics.pending:
            values = self._take_metrics(self.setup.plan.index_at(self.seen - 1))
            self.setup.writer.write(self.seen, values)
        self.progress.end()
        self.profiler.end()
        self._save_last()

    def _train_bucket(self, index: int, step: Any, batches: Iterator[tuple[DeviceBatch, list[str]]]) -> bool:
        """Returns whether the run was told to stop."""
        bucket = self.setup.plan.buckets[index]
        self.metrics.start_clock(self.seen)
        while self.seen < bucket.last_sample:
            if self.setup.stop.before_step():
                return True
            self.profiler.before_step(self.state)
            self.watchdog.step()
            begin = time.perf_counter()
            read = self.setup.stop.wait_for(lambda: next(batches))
            if read is None:
                return True
            batch, ids = read
            self.timings.data_wait_s += time.perf_counter() - begin
            with jax.transfer_guard('disallow'):  # a copy from or to the host would wait for the device
                self.state, metrics = step(self.state, batch)
            before, self.seen = self.seen, self.seen + bucket.batch_size
            self.metrics.add(self.seen, metrics, ids)
            self.timings.train_s += time.perf_counter() - begin
            self._after_step(before, index)
        return False

    def _after_step(self, before: int, index: int) -> None:
        due = due_after(before, self.seen, self.setup.plan.total_samples, self.cadence)
        if due.log and agreement.any_of('whether to save', self._save_now()):
            due = dataclasses.replace(due, save=True)
        if due.nothing:
            return
        values = self._take_metrics(index)
        self.watchdog.pause()
        if due.evaluate:
            values |= self._evaluate()
        self.setup.writer.write(self.seen, values)
        if due.save:
            self._save(values)
        self.metrics.start_clock(self.seen)

    def _save_now(self) -> bool:
        """Whether a checkpoint can't wait for its number of samples."""
        minutes = (time.perf_counter() - self.last_checkpoint) / 60
        return minutes >= self.cadence.checkpoint.every_minutes or bool(self.setup.store.failure())

    def _take_metrics(self, index: int) -> dict[str, float]:
        """Waits for all steps so far; shows and returns their means since the last line."""
        begin = time.perf_counter()
        self.metrics.fetch_all()
        self.timings.train_s += time.perf_counter() - begin
        bucket = self.setup.plan.buckets[index]
        means, clips_per_second = self.metrics.take(self.seen)
        self.progress.show(
            Progress(
                samples=self.seen,
                total_samples=self.setup.plan.total_samples,
                loss=means.get('loss', math.nan),  # all steps since the last line may have been skipped
                loss_parts={name: means[name] for name in _SHOWN if name in means},
                mask_ratio=bucket.mask_ratio,
                batch_size=bucket.batch_size,
                clips_per_second=clips_per_second,
            )
        )
        return means | {
            'mask_ratio': bucket.mask_ratio,
            'batch_size': float(bucket.batch_size),
            'clips_per_second': clips_per_second,
        }

    def _evaluate(self) -> dict[str, float]:
        """Scores on held-out clips; none if the run is told to stop meanwhile."""
        begin = time.perf_counter()
        params = self.state.evaluated
        evaluation = Background(lambda: self.setup.evaluate(params), 'evaluate')
        # A notice of preemption leaves half a minute: the checkpoint does not wait for the scores.
        scores = evaluation.result(self.setup.stop.is_set) or {}
        self.timings.evaluation_s += time.perf_counter() - begin
        return {f'eval/{name}': value for name, value in scores.items()}

    def _save(self, values: Mapping[str, float], block: bool = False) -> None:
        # First: a run that resumes at this checkpoint does not write the lines before it again.
        self.setup.files.keep(SOON_S)
        metadata = {'timings': dataclasses.asdict(self.timings)}
        self.setup.store.save(self.seen, self.state, metadata, values, block)
        self.last_checkpoint = time.perf_counter()

    def _save_last(self) -> None:
        """Returns when the last state is on disk; tries again where storage refuses it."""
        store, reason = self.setup.store, ''
        for pause in _LAST_SAVE_PAUSES_S:
            time.sleep(pause)
            reason = store.settle()  # first: what one host could not write is then missing on all
            if store.latest() != self.seen:
                self._save({}, block=True)
                reason = store.settle()
            if not reason:
                return
        raise CheckpointError(
            f'The state at clip {self.seen:,} could not be saved ({reason}). Make room; '
            f'the same command resumes from clip {store.latest() or 0:,}.'
        )
