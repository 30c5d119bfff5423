"""From a config to a finished run: the composition root."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import DataError, Sources
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.models.attention import Implementation, choose
from diffmavil_jax.parallel import agreement, hosts
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.parallel.mesh import check_batch, describe_devices, make_mesh
from diffmavil_jax.plan.buckets import Plan, make_plan
from diffmavil_jax.saved.workdir import (
    Workdir,
    check_kind,
    hold_root,
    hold_workdir,
    join_workdir,
    write_environment,
)
from diffmavil_jax.saved.written_config import difference
from diffmavil_jax.storage.paths import open_path
from diffmavil_jax.storage.run_files import PATIENT_S, RunFiles, StorageError, run_files
from diffmavil_jax.tasks.folds import folds
from diffmavil_jax.tasks.program import Program, make_batches, make_program
from diffmavil_jax.tasks.registry import make_task
from diffmavil_jax.tasks.reports import folds as crossvalidation
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training import loop, trackers
from diffmavil_jax.training.background import Background
from diffmavil_jax.training.cadence import Cadence
from diffmavil_jax.training.checkpoint import CheckpointError, CheckpointMismatchError, CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.step_metrics import TrainingError
from diffmavil_jax.training.stop import StopSignal

# Fields that may differ from host to host.
_OF_EACH_HOST = tuple(
    f'config.{field}:'
    for field in (
        'parallel.process',
        'parallel.coordinator',
        'parallel.compilation_cache',
        'data.path',
        'data.threads',
        'data.workers',
        'data.prefetch_batches',
        'data.cache_gb',
    )
)

# Files that a start adds to.
_ADDED_TO = ('metrics.jsonl', 'environment.jsonl', trackers.FILE)

USER_ERRORS = (ConfigError, DataError, CheckpointMismatchError)
RUN_ERRORS = (TrainingError, CheckpointError, StorageError)

T = TypeVar('T')


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
        TrainingError, CheckpointError, StorageError: when the run can't go on.
    """
    check_kind(workdir)
    run_one = functools.partial(_run_one, command=command, started=started)
    if not config.finetune.folds:
        run_one(config, workdir, overwrite=overwrite)
        return
    root = open_path(workdir)
    with agreement.together('folds', *USER_ERRORS):
        runs = folds(config)  # first: a missing fold leaves no workdir behind
    with _by_the_first(hold_root, workdir, config, overwrite=overwrite):
        for name, fold in runs:
            if not run_one(fold, str(root / name)):
                return
        if hosts.is_first():
            _say(f'Report: {crossvalidation.write(config, root, command)}')


def _run_one(config: Config, workdir: str, *, command: str, started: float, overwrite: bool = False) -> bool:
    """Trains and reports one network; returns whether it came to its end."""
    plan = make_plan(config)
    mesh = make_mesh(config.parallel)
    for bucket in plan.buckets:
        check_batch(bucket.batch_size, config.batch.microbatches, mesh)
    with agreement.together('trackers', *USER_ERRORS):
        trackers.check_trackers(config.train.trackers)
    with agreement.together('clips', *USER_ERRORS):
        sources = open_sources(config)  # first: a folder without media leaves no workdir behind
    _check_alike(config, sources)
    with (
        contextlib.ExitStack() as holding,  # outermost: the lock is held until the last file is written
        run_files(open_path(workdir), _say) as files,
        _output(files) as output,
    ):
        attention, reason = _attention(config)
        compute = dataclasses.replace(config.compute, attention=attention)
        with agreement.together('task', *USER_ERRORS):
            task = make_task(dataclasses.replace(config, compute=compute), plan, sources, output)
        held = holding.enter_context(_by_the_first(hold_workdir, workdir, config, overwrite=overwrite))
        with agreement.together('the same workdir', ConfigError):
            directory = held or join_workdir(workdir)
        with agreement.together('files of the run', StorageError):
            own = (hosts.own_name('nonfinite.jsonl'),)
            files.begin((*_ADDED_TO, *own) if hosts.is_first() else own)
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
        report = directory.path / 'report' / 'index.html'
        with StopSignal() as stop:
            with _stores(config, task, directory, output) as (store, writer):
                begun = _restore_or_init(program, steps, plan, task, store, directory, stop)
                if begun is None:
                    _say('Stopped before the first step: nothing to save; the same command starts again.')
                    return False
                state, timings = begun
                del begun
                reported = agreement.first('whether there is a report', report.exists())
                if int(state.samples_seen) >= plan.total_samples and reported:
                    _say(f'The run is complete; its report is {report}')
                    return True
                batches = make_batches(config, task, plan, mesh)
                setup = loop.Setup(plan, steps, batches, task.evaluate, store, writer, files, stop)
                cadence = Cadence(config.train, config.checkpoint, config.evaluation.every_samples)
                state = loop.train(state, setup, cadence, timings)
                if int(state.samples_seen) < plan.total_samples:
                    _say(f'Stopped and saved at clip {int(state.samples_seen):,}; the same command resumes.')
                    return False
                state = state.without_optimizer()  # else there might be no memory for more parameters
                if task.select_best:
                    state = store.restore_best(program.abstract.without_optimizer()) or state
            facts = Facts(command, environment, timings, started, notes=sources.notes)
            finish = Background(
                lambda: _keep(task.finish(state, program.init_params, facts), files), 'report'
            )
            written = finish.result(stop.is_set)
        if written is None:
            _say('Stopped: all is trained and saved, and the same command writes the report.')
            return False
        _say(f'Report: {files.shown(written) if hosts.is_first() else written}')
        return True


def _keep(report: pathlib.Path, files: RunFiles) -> pathlib.Path:
    """Sees to it that the report is where it is kept; returns its path."""
    reason = files.keep(PATIENT_S)
    if reason:
        raise StorageError(f'The report could not be kept ({reason}); the same command makes it again.')
    return report


def _attention(config: Config) -> tuple[Implementation, str]:
    """The attention that all processes can use, and why."""
    with agreement.together('attention', *USER_ERRORS):
        chosen, reason = choose(config.compute.attention, config.compute.dtype)
    if len(set(agreement.gather('the same attention', chosen))) > 1:
        return 'xla', 'the only one that all hosts can use'
    return chosen, reason


def _check_alike(config: Config, sources: Sources) -> None:
    """Raises ConfigError unless all processes have one config and equally many clips of the same classes."""
    clips = {
        'training': len(sources.train),
        'held out': len(sources.held_out),
        'classes': list(sources.train.label_names),
    }
    mine = {'config': to_dict(config), 'clips': clips}
    lines = difference(agreement.first('config and clips', mine), mine, 'run')
    lines = [line.removeprefix('run.') for line in lines]
    lines = [line for line in lines if not line.startswith(_OF_EACH_HOST)]
    with agreement.together('the same config and clips', ConfigError):
        if lines:
            raise ConfigError(
                'All processes must have the same config and the same clips; unlike process 0, there is\n  '
                + '\n  '.join(lines)
            )


@contextlib.contextmanager
def _output(files: RunFiles) -> Iterator[pathlib.Path]:
    """Where this process writes report and metrics: the first to the run's files, the others aside."""
    if hosts.is_first():
        yield files.path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


@contextlib.contextmanager
def _by_the_first(
    hold: Callable[..., contextlib.AbstractContextManager[T]], workdir: str, *args: Any, **options: Any
) -> Iterator[T | None]:
    """Holds a directory by the first process, for all; the others get None.

    Raises:
        ConfigError: on all processes, if the first can't hold it.
    """
    with contextlib.ExitStack() as stack:
        held = None
        with agreement.together('workdir', ConfigError):
            if hosts.is_first():
                held = stack.enter_context(hold(workdir, *args, **options, say=_say))
        yield held


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
    with contextlib.closing(store):
        with agreement.together('trackers', *USER_ERRORS):
            services = config.train.trackers if hosts.is_first() else ()
            opened = trackers.open_trackers(services, output, config.name, to_dict(config))
        with contextlib.closing(MetricsWriter(output, opened)) as writer:
            yield store, writer


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

    None if told to stop before a state was there: reading one takes long from afar, and making one compiles.
    """
    first = store.latest() or 0
    if first < plan.total_samples:
        steps.prepare(plan.index_at(first))
    restored = Background(lambda: store.restore(program.abstract), 'restore').result(
        stop.is_set, lambda seconds: _say(f'Reading the checkpoint: {seconds:.0f} s so far.')
    )
    if restored is not None:
        state, metadata = restored
        _say(f'Resuming at clip {int(state.samples_seen):,}.')
        return state, Timings(**metadata['timings'])
    if stop.is_set():
        return None
    if directory.resumed:
        _say('Starting again: the run that is here had not saved a checkpoint yet.')
    state = Background(lambda: task.start(program.init()), 'init').result(
        stop.is_set, lambda seconds: _say(f'Making the parameters: {seconds:.0f} s so far.')
    )
    return None if state is None else (state, Timings())


def _say(text: str) -> None:
    print(text, flush=True)
