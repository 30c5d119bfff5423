"""One training of an experiment, kept on disk: a finished one is not run again.

A cell's folder holds its numbers, and of a pretraining what `config.init` starts from.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax

from diffmavil_jax.atomic import write_json
from diffmavil_jax.config.clips import DataConfig
from diffmavil_jax.config.schema import Config, from_dict, to_dict
from diffmavil_jax.config.training import EvaluationConfig
from diffmavil_jax.data.clip import Clip, ClipSource, Sources
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.evaluation.classification import ClassifierSuite
from diffmavil_jax.evaluation.suite import flatten, make_suite
from diffmavil_jax.models.attention import for_this_machine
from diffmavil_jax.parallel.mesh import make_mesh
from diffmavil_jax.plan.buckets import Plan, make_plan
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.tasks.classification import classification_task, split
from diffmavil_jax.tasks.folds import folds
from diffmavil_jax.tasks.pretraining import pretraining_task
from diffmavil_jax.tasks.program import make_batches, make_program
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training.checkpoint import CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.state import TrainState

Numbers = dict[str, float]
_NUMBERS = 'numbers.json'


def pretrain(config: Config, folder: pathlib.Path) -> Numbers:
    """Pretrains, and returns every number of the evaluation suite by flat name.

    Besides: `clips` seen, `macs` of a forward pass of all of them, and `train_s` in seconds.

    Raises:
        ValueError: the folder has the numbers of another config.
    """
    known = _known(config, folder)
    if known is not None:
        return known
    plan, sources = make_plan(config), _sources(config.data, config.seed)
    task = pretraining_task(on_this_machine(config), plan, sources, folder)
    state, seconds = _train(config, task, plan)
    store = CheckpointStore(folder / 'checkpoints', keep_latest=1, keep_best=0, best_metric=None)
    store.save(plan.total_samples, state, {}, block=True)
    store.close()
    measured = flatten(make_suite(config, task.objective, sources).measured(state.params))
    facts = {'clips': float(plan.total_samples), 'macs': float(plan.macs), 'train_s': seconds}
    return _keep(config, folder, measured | facts)


def finetune(config: Config, folder: pathlib.Path) -> Numbers:
    """Trains on labels, and returns the scores of the test clips: their mean where there are folds."""
    known = _known(config, folder)
    if known is not None:
        return known
    parts = [part for _, part in folds(config)] if config.finetune.folds else [config]
    scores = [_finetune_one(part) for part in parts]
    return _keep(config, folder, mean(scores))


def on_this_machine(config: Config) -> Config:
    """The config with `compute` as it suits this machine."""
    return for_this_machine(config)[0]


def mean(parts: list[Numbers]) -> Numbers:
    """The mean of each number over the parts, which all have it."""
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def _finetune_one(config: Config) -> Numbers:
    plan, sources = make_plan(config), open_sources(config)
    task = classification_task(on_this_machine(config), plan, sources, pathlib.Path())
    state, _ = _train(config, task, plan)
    options = {'batch_size': config.evaluation.batch_size, 'threads': config.data.threads}
    test = split(config, sources)[2]
    return dict(ClassifierSuite(jax.jit(task.objective.probabilities), test, **options)(state.evaluated))


def _train(config: Config, task: Task, plan: Plan) -> tuple[TrainState, float]:
    """The trained state, and the seconds that its steps took."""
    mesh = make_mesh(config.parallel)
    program = make_program(config, task, plan, mesh)
    steps = CompiledSteps(program.lower, len(plan.buckets))
    steps.prepare(0)
    state = task.start(program.init())
    batches = make_batches(config, task, plan, mesh)(0)
    seconds = 0.0
    for index, bucket in enumerate(plan.buckets):
        step = steps.get(index, lambda: False)
        steps.prepare(index + 1)
        began = time.perf_counter()
        for _ in range(bucket.steps):
            state, metrics = step(state, next(batches)[0])
            if metrics['skipped'][0] > 0:
                raise FloatingPointError(f'{config.name}: the loss is not finite.')
        seconds += time.perf_counter() - began
    jax.clear_caches()  # the steps of a hundred cells would fill the memory
    return state, seconds


def is_finished(folder: pathlib.Path) -> bool:
    """Whether the folder has the numbers of a cell."""
    return (folder / _NUMBERS).exists()


def _known(config: Config, folder: pathlib.Path) -> Numbers | None:
    """The numbers of a cell that is finished."""
    if not is_finished(folder):
        return None
    if from_dict(read_config(folder)) != config:
        raise ValueError(f'{folder} holds another experiment; take another --out, or remove it.')
    return json.loads((folder / _NUMBERS).read_text())


def _keep(config: Config, folder: pathlib.Path, numbers: Numbers) -> Numbers:
    """Writes the numbers last: they say that a cell is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'config.json', to_dict(config))
    write_json(folder / _NUMBERS, numbers)
    return numbers


class Remembered:
    """A source (a ClipSource) whose clips are made once: each method of a seed learns from the same."""

    def __init__(self, source: ClipSource) -> None:
        self._source, self._clips = source, dict[int, Clip]()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        if index not in self._clips:
            self._clips[index] = self._source[index]
        return self._clips[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@functools.lru_cache(maxsize=1)
def _sources(data: DataConfig, seed: int) -> Sources:
    # No other section changes the clips of a pretraining.
    fewest = EvaluationConfig(retrieval_clips=2)
    sources = open_sources(Config(data=data, seed=seed, evaluation=fewest))
    return dataclasses.replace(
        sources, train=Remembered(sources.train), held_out=Remembered(sources.held_out)
    )


def with_samples(config: Config, samples: int) -> Config:
    """The same config with another length; the warm-up keeps its share."""
    share = config.optimizer.warmup_samples / config.train.samples
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, samples=samples),
        optimizer=dataclasses.replace(config.optimizer, warmup_samples=round(share * samples)),
    )
