"""From a config to a finished run: the composition root."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterator

from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import choose
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.parallel.mesh import check_batch, describe_devices, make_mesh
from diffmavil_jax.plan.buckets import Plan, make_plan
from diffmavil_jax.saved.workdir import Workdir, join_workdir, open_workdir, write_environment
from diffmavil_jax.tasks.folds import folds
from diffmavil_jax.tasks.program import Program, make_batches, make_program
from diffmavil_jax.tasks.registry import make_task
from diffmavil_jax.tasks.reports import folds as crossvalidation
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training import loop
from diffmavil_jax.training.background import Background
from diffmavil_jax.training.cadence import Cadence
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.step_metrics import TrainingError
from diffmavil_jax.training.stop import StopSignal

USER_ERRORS = (ConfigError, DataError, CheckpointMismatchError)
RUN_ERRORS = (TrainingError, CheckpointError)


def run_experiment(config: Config, *, workdir: str, overwrite: bool, command: str, started: float) -> None:
    """Trains, evaluates and reports; resumes the run that the workdir holds.

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
    run_one = functools.partial(_run_one, overwrite=overwrite, command=command, started=started)
    if not config.finetune.folds:
        run_one(config, workdir)
        return
    root = pathlib.Path(workdir).expanduser()
    for name, fold in folds(config):
        if not run_one(fold, str(root / name)):
            return
    if hosts.is_first():
        _say(f'Report: {crossvalidation.write(config, root, command)}')


def _run_one(config: Config, workdir: str, *, overwrite: bool, command: str, started: float) -> bool:
    """Trains and reports one network; returns whether it came to its end."""
    plan = make_plan(config)
    mesh = make_mesh(config.parallel)
    for bucket in plan.buckets:
        check_batch(bucket.batch_size, config.batch.microbatches, mesh)
    sources = open_sources(config)  # first: a folder without media leaves no workdir behind
    with _output(workdir) as output:
        attention, reason = choose(config.compute.attention, config.compute.dtype)
        compute = dataclasses.replace(config.compute, attention=attention)
        task = make_task(dataclasses.replace(config, compute=compute), plan, sources, output)
        directory = _open_shared(workdir, config, overwrite=overwrite)
        environment = write_environment(
            output, describe_devices(mesh) | {'attention': f'{attention}: {reason}'}
        )
        use_compilation_cache(config.parallel.compilation_cache)
        buckets = f'{len(plan.buckets)} buckets' if len(plan.buckets) > 1 else '1 bucket'
        _say(f'{config.name}: {plan.total_samples:,} clips in {buckets}, in {directory.path}')
        for note in task.notes:
            _say(note)

        program = make_program(config, task, plan, mesh)
        # CPU: the first execution is slow. Elsewhere there is memory for one state only, and with several
        # devices collectives have to run in the same order everywhere.
        rehearse = mesh.size == 1 and mesh.devices.item().platform == 'cpu'
        steps = CompiledSteps(program.lower, len(plan.buckets), rehearse=rehearse, say=_say)
        with StopSignal() as stop, _stores(config, task, directory, output) as (store, writer):
            begun = _restore_or_init(program, steps, plan, task, store, directory, stop)
            if begun is None:
                _say('Stopped before the first step, with nothing to save; the same command starts again.')
                return False
            state, timings = begun
            report = directory.path / 'report' / 'index.html'
            if int(state.samples_seen) >= plan.total_samples and report.exists():
                _say(f'The run is complete; its report is {report}')
                return True
            batches = make_batches(config, task, plan, mesh)
            setup = loop.Setup(plan, steps, batches, task.evaluate, store, writer, directory.path, stop)
            cadence = Cadence(config.train, config.checkpoint, config.evaluation.every_samples)
            state = loop.train(state, setup, cadence, timings)
            if int(state.samples_seen) < plan.total_samples:
                _say(f'Stopped and saved at clip {int(state.samples_seen):,}; the same command resumes.')
                return False
            if task.select_best:
                state = store.restore_best(program.abstract) or state
        facts = Facts(command, environment, timings, started, notes=sources.notes)
        _say(f'Report: {task.finish(state, program.init, facts)}')
        return True


@contextlib.contextmanager
def _output(workdir: str) -> Iterator[pathlib.Path]:
    """Where this process writes report and metrics: the first into the workdir, the others aside."""
    if hosts.is_first():
        yield pathlib.Path(workdir).expanduser().absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def _open_shared(workdir: str, config: Config, *, overwrite: bool) -> Workdir:
    """The run's directory, which the first process makes for all."""
    opened = open_workdir(workdir, config, overwrite=overwrite) if hosts.is_first() else None
    hosts.wait_for_all('workdir')
    return opened or join_workdir(workdir)


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
    stop: StopSignal,
) -> tuple[TrainState, Timings] | None:
    """The newest readable checkpoint, or a new state; the first step compiles meanwhile.

    None if told to stop before a new state was there: making one has to compile as well.
    """
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
    state = Background(lambda: task.start(program.init()), 'init').result(
        stop.is_set, lambda seconds: _say(f'Making the parameters: {seconds:.0f} s so far.')
    )
    return None if state is None else (state, Timings())


def _say(text: str) -> None:
    print(text, flush=True)
