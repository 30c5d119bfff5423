"""The composition root: from a config to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import choose
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.parallel.mesh import check_batch, make_mesh
from diffmavil_jax.plan.buckets import Plan, make_plan
from diffmavil_jax.saved.workdir import Workdir, join_workdir, open_workdir, write_environment
from diffmavil_jax.tasks.folds import folds
from diffmavil_jax.tasks.program import TASKS, Program, make_batches, make_program
from diffmavil_jax.tasks.reports import folds as crossvalidation
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training import loop
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.stop import StopSignal

USER_ERRORS = (ConfigError, DataError, CheckpointMismatchError)
RUN_ERRORS = (loop.TrainingError, CheckpointError)


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
        check_batch(bucket.batch_size, config.batch.microbatches, mesh)
    sources = open_sources(config)  # first: a folder without media leaves no workdir behind
    with _output(workdir) as output:
        attention, reason = choose(config.compute.attention, config.compute.dtype)
        compute = dataclasses.replace(config.compute, attention=attention)
        task = TASKS[config.objective](dataclasses.replace(config, compute=compute), plan, sources, output)
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
) -> tuple[TrainState, Timings]:
    """The newest readable checkpoint, or a new state; the first step compiles meanwhile."""
    first = store.latest() or 0
    if first < plan.total_samples:
        steps.prepare(plan.index_at(first))
    restored = store.restore(program.abstract)
    if restored is not None:
        state, metadata = restored
        _say(f'Resuming at clip {int(state.samples_seen):,}.')
        return state, Timings(**metadata['timings'])
    if directory.resumed:
        _say('Starting again: the run that is here had not saved a checkpoint yet.')
    return task.start(program.init()), Timings()


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
