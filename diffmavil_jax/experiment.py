"""The composition root: from a config to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.experimental import multihost_utils

from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.pipeline import Loader
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import choose
from diffmavil_jax.objectives.pretraining import TokenCounts
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.mesh import batch_sharding, check_batch, constrained, make_mesh
from diffmavil_jax.plan.buckets import Bucket, Plan, learning_rate_scale, make_plan
from diffmavil_jax.saved.workdir import Workdir, join_workdir, open_workdir, write_environment
from diffmavil_jax.tasks.classification import classification_task, folds
from diffmavil_jax.tasks.pretraining import pretraining_task
from diffmavil_jax.tasks.reports import folds as crossvalidation
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training import loop
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.optimizer import learning_rate
from diffmavil_jax.training.state import TrainState, abstract_and_init
from diffmavil_jax.training.step import make_step

USER_ERRORS = (ConfigError, DataError, CheckpointMismatchError)
RUN_ERRORS = (loop.TrainingError, CheckpointError)

# From samples seen to the batches that follow on the mesh, each with the names of its clips.
Batches = Callable[[int], Iterator[tuple[dict[str, jax.Array], list[str]]]]

TASKS = {'pretraining': pretraining_task, 'stage2': pretraining_task, 'classification': classification_task}


@dataclasses.dataclass(frozen=True)
class Program:
    """The state's shapes, how to make it, and its step for the bucket of an index."""

    abstract: TrainState
    init: Callable[[], TrainState]
    trace: Callable[[int], jax.stages.Traced]

    def lower(self, index: int) -> jax.stages.Lowered:
        return self.trace(index).lower()


def run(config: Config, *, workdir: str, overwrite: bool, command: str, started: float) -> None:
    """Trains, evaluates and reports; resumes what the workdir holds.

    A cross-validation is one run for each fold, in its own directory below the workdir, and a
    report over all of them.

    Args:
        config: the run.
        workdir: directory of the run.
        overwrite: whether to set aside a run that is there, and start anew.
        command: for the report.
        started: time.time() when the process began.

    Raises:
        ConfigError, DataError: before anything is compiled.
        TrainingError, CheckpointError: when the run can't go on.
    """
    run_one = functools.partial(_run, overwrite=overwrite, command=command, started=started)
    if not config.finetune.folds:
        run_one(config, workdir)
        return
    root = pathlib.Path(workdir).expanduser()
    for name, fold in folds(config):
        if not run_one(fold, str(root / name)):
            return
    if hosts.is_first():
        _say(f'Report: {crossvalidation.write(config, root, command)}')


def _run(config: Config, workdir: str, *, overwrite: bool, command: str, started: float) -> bool:
    """One run; returns whether it came to its end."""
    plan = make_plan(config)
    mesh = make_mesh(config.parallel)
    for bucket in plan.buckets:
        check_batch(bucket.batch_size, config.batch.parts, mesh)
    sources = open_sources(config)  # first: a folder without media leaves no workdir behind
    with _output(workdir) as output:
        attention, reason = choose(config.model.attention, config.model.dtype)
        model = dataclasses.replace(config.model, attention=attention)
        task = TASKS[config.objective](dataclasses.replace(config, model=model), plan, sources, output)
        directory = _open_shared(workdir, config, overwrite=overwrite)
        environment = write_environment(output, _device(mesh) | {'attention': f'{attention}: {reason}'})
        use_compilation_cache(config.parallel.compilation_cache)
        buckets = f'{len(plan.buckets)} buckets' if len(plan.buckets) > 1 else '1 bucket'
        _say(f'{config.name}: {plan.total_samples:,} clips in {buckets}, in {directory.path}')
        for note in task.notes:
            _say(note)

        program = make_program(config, task, plan, mesh)
        # Elsewhere there is memory for one state, and collectives have to run in the same order everywhere.
        rehearse = mesh.size == 1 and mesh.devices.item().platform == 'cpu'
        steps = CompiledSteps(program.lower, len(plan.buckets), rehearse=rehearse)
        with StopSignal() as stop, _stores(config, task, directory, output) as (store, writer):
            state, timings = _restore_or_init(program, steps, plan, task, store, directory)
            report = directory.path / 'report' / 'index.html'
            if int(state.samples_seen) >= plan.total_samples and report.exists():
                _say(f'The run is complete; its report is {report}')
                return True
            batches = make_batches(config, task, plan, mesh)
            parts = loop.Parts(plan, steps, batches, task.evaluate, store, writer, directory.path, stop)
            cadence = loop.Cadence(config.train, config.checkpoint, config.evaluation.every_samples)
            state = loop.run(state, parts, cadence, timings)
            if int(state.samples_seen) < plan.total_samples:
                _say(f'Stopped and saved at clip {int(state.samples_seen):,}; the same command resumes.')
                return False
            if task.select_best:
                state = store.restore_best(program.abstract) or state
        facts = Facts(command, environment, timings, started, notes=sources.notes)
        path = task.finish(state, program.init, facts)
        _say(f'Report: {path}')
        return True


def make_program(config: Config, task: Task, plan: Plan, mesh: jax.sharding.Mesh) -> Program:
    """Objective and optimizer as the steps of all buckets; the mesh may be of devices that are not here."""
    schedule = learning_rate(config.optimizer, plan.total_samples)

    def init_params(key: jax.Array) -> tuple[Any, Any]:
        batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in abstract_batch(task, mesh, 1).items()}
        variables = task.objective.init(key, batch, token_counts(plan.buckets[0]))
        return variables['params'], variables.get('frozen')

    abstract, init = abstract_and_init(init_params, task.optimizer, mesh, averaged=task.averaged)

    def trace(index: int) -> jax.stages.Traced:
        bucket = plan.buckets[index]
        counts, scale = token_counts(bucket), learning_rate_scale(bucket.batch_size, config)
        step = make_step(
            functools.partial(task.objective.loss, counts=counts),
            task.optimizer,
            lambda samples: scale * schedule(samples),
            bucket.batch_size,
            parts=config.batch.parts,
            average_decay=config.finetune.average_decay,
        )
        # Pinned, or XLA may choose another layout for what the next step takes.
        layout = (jax.tree.map(lambda leaf: leaf.sharding, abstract), None)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=layout)
        with constrained(mesh):
            return jitted.trace(abstract, abstract_batch(task, mesh, bucket.batch_size))

    return Program(abstract, lambda: init(jax.random.key(config.seed)), trace)


def make_batches(config: Config, task: Task, plan: Plan, mesh: jax.sharding.Mesh) -> Batches:
    """What this process reads of the batches."""
    host, count = hosts.share_of_batch(mesh)
    loader = Loader(
        task.source,
        seed=config.seed,
        threads=config.data.threads,
        workers=config.data.workers,
        prefetch_batches=config.data.prefetch_batches,
        largest_batch=max(bucket.batch_size for bucket in plan.buckets),
        host=host,
        hosts=count,
    )

    def batches(first_sample: int) -> Iterator[tuple[dict[str, jax.Array], list[str]]]:
        host_batches = loader.batches(first_sample, plan.batch_sizes_from(first_sample))
        return ((hosts.put_batch(batch, mesh), ids) for batch, ids in host_batches)

    return batches


def abstract_batch(task: Task, mesh: jax.sharding.Mesh, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch on the mesh."""
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batch_sharding(mesh))
        for name, (shape, dtype) in task.batch.items()
    }


def token_counts(bucket: Bucket) -> dict[str, TokenCounts]:
    """The static mask sizes of a bucket."""
    return {
        'audio': TokenCounts(bucket.audio_tokens, bucket.audio_decoded),
        'video': TokenCounts(bucket.video_tokens, bucket.video_decoded),
    }


class StopSignal:
    """SIGTERM and Ctrl-C set it; a second Ctrl-C interrupts at once.

    With several processes, SIGTERM to any of them (a pod's notice that it is preempted) is left
    to JAX, which makes them all stop before the same step.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._previous: dict[int, Any] = {}
        self._together = jax.process_count() > 1
        self._steps = 0

    def is_set(self) -> bool:
        """Whether this process, which is alone, was told to stop."""
        return self._event.is_set() and not self._together

    def before_step(self) -> bool:
        """Whether to stop before the next step; asked once a step, by every process."""
        self._steps += 1
        if self._together:
            return multihost_utils.reached_preemption_sync_point(self._steps)
        return self.is_set()

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self._event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._event.set()
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
        # print is not safe inside a signal handler: the main thread may be inside one.
        os.write(2, b'\nstopping: saving a checkpoint ...\n')


def _output(workdir: str) -> contextlib.AbstractContextManager[pathlib.Path]:
    """Where this process writes reports and metrics: into the run, or, if another does, aside."""
    if hosts.is_first():
        return contextlib.nullcontext(pathlib.Path(workdir).expanduser().absolute())
    return _scratch()


@contextlib.contextmanager
def _scratch() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def _open_shared(workdir: str, config: Config, *, overwrite: bool) -> Workdir:
    """The run's directory, made by one process."""
    if hosts.is_first():
        directory = open_workdir(workdir, config, overwrite=overwrite)
        hosts.wait_for_all('workdir')
        return directory
    hosts.wait_for_all('workdir')
    return join_workdir(workdir)


@contextlib.contextmanager
def _stores(
    config: Config, task: Task, directory: Workdir, output: pathlib.Path
) -> Iterator[tuple[CheckpointStore, MetricsWriter]]:
    store = CheckpointStore(
        directory.path / 'checkpoints',
        keep_latest=config.checkpoint.keep_latest,
        keep_best=config.checkpoint.keep_best,
        best_metric=task.best_metric,
    )
    writer = MetricsWriter(output)
    try:
        yield store, writer
    finally:
        writer.close()
        store.close()


def _restore_or_init(
    program: Program,
    steps: CompiledSteps,
    plan: Plan,
    task: Task,
    store: CheckpointStore,
    directory: Workdir,
) -> tuple[TrainState, loop.Timings]:
    """The newest readable checkpoint, or a new state; the first step compiles meanwhile."""
    first = store.latest() or 0
    if first < plan.total_samples:
        steps.prepare(plan.index_at(first))
    restored = store.restore(program.abstract)
    if restored is not None:
        state, metadata = restored
        _say(f'Resuming at clip {int(state.samples_seen):,}.')
        return state, loop.Timings(**metadata['timings'])
    if directory.resumed:
        _say('Starting again: the run that is here had not saved a checkpoint yet.')
    return task.start(program.init()), loop.Timings()


def use_compilation_cache(path: str) -> None:
    """Persistent, so that the second start of the same shapes compiles nothing."""
    if not path:
        return
    try:
        cache = pathlib.Path(path).expanduser()
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logging.warning('No compilation cache: %s can not be written (%s).', path, error.strerror)
        return
    jax.config.update('jax_compilation_cache_dir', str(cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _device(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    device = mesh.devices.flat[0]
    return {
        'device': f'{mesh.size} x {device.device_kind}',
        'backend': jax.default_backend(),
        'hosts': jax.process_count(),
        'host cores': os.cpu_count(),
    }


def _say(text: str) -> None:
    print(text, flush=True)
