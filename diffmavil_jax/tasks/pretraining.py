"""Pretraining, stage 1 or 2, as a task: how it starts, is measured and reported."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.data.clip import ARRAYS, ClipSpec, Sources, require_modalities
from diffmavil_jax.evaluation.suite import make_suite
from diffmavil_jax.parallel import agreement
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.saved.params import missing_parts
from diffmavil_jax.saved.start import check_start, load_for, new_parts, start_from
from diffmavil_jax.tasks.reports import pretraining as report
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.tasks.stage2 import make_objective, with_teacher
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training.optimizer import make_optimizer
from diffmavil_jax.training.state import TrainState


def pretraining_task(config: Config, plan: Plan, sources: Sources, workdir: pathlib.Path) -> Task:
    """Masked reconstruction (or, in stage 2, the teacher's features) and contrast of both modalities.

    Raises:
        ConfigError: the run can't start from config.init or config.teacher.
        DataError: the clips lack a modality.
    """
    missing = missing_parts(config.loaded)
    check_start(config, MODALITIES)
    require_modalities([sources.train, sources.held_out], MODALITIES, 'Pretraining')
    present = {'present': ((2,), jnp.float32)} if config.data.missing_modality == 'mask' else {}
    objective = make_objective(config)
    suite = make_suite(config, objective, sources)

    def start(state: TrainState) -> TrainState:
        state = with_teacher(state, config)
        if not config.loaded:
            return state
        with agreement.together('parameters', ConfigError):
            loaded = load_for(config, MODALITIES)
        return start_from(state, loaded, new=missing, run=config.loaded)

    def finish(state: TrainState, initial: Callable[[], Any], facts: Facts) -> pathlib.Path:
        print('Evaluating the trained and the untrained network ...', flush=True)
        return report.write(config, plan, suite, sources, state.params, initial(), workdir, facts)

    return Task(
        objective=objective,
        optimizer=make_optimizer(config.optimizer),
        source=sources.train,
        batch=clip_shapes(config, MODALITIES) | present,
        evaluate=suite,
        best_metric='eval/retrieval/a2v/r10',
        start=start,
        finish=finish,
        notes=tuple(
            filter(None, (sources.coverage, *sources.notes, new_parts(config, missing), _negatives(config)))
        ),
    )


def _negatives(config: Config) -> str:
    """What microbatches change in the contrastive loss; empty without them."""
    count, size = config.batch.microbatches, config.batch.size
    if count == 1:
        return ''
    return (
        f'The gradient of a batch is computed in {count} microbatches: each clip is contrasted with '
        f'those of its microbatch, {size // count} at the last mask ratio, not with {size}.'
    )


def clip_shapes(config: Config, modalities: tuple[str, ...]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each of a clip's arrays in a batch."""
    shapes = ClipSpec.of(config.data).shapes
    return {ARRAYS[m]: shapes[ARRAYS[m]] for m in modalities} | {'position': ((), jnp.int32)}
