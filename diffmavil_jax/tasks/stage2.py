"""Stage 2 of pretraining: its objective, and the teacher that it starts with."""

from __future__ import annotations

import dataclasses
import functools
import operator

from diffmavil_jax.config.schema import Config, to_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.objectives.pretraining import PretrainingObjective
from diffmavil_jax.objectives.teacher import TeacherObjective
from diffmavil_jax.parallel import agreement
from diffmavil_jax.saved.network import open_network
from diffmavil_jax.saved.params import check_params
from diffmavil_jax.saved.start import filled_in
from diffmavil_jax.training.state import TrainState

# What teacher and student must have in common: they see the same tokens of the same clips.
_SHARED = (
    'audio',
    'video',
    'data.seconds',
    'data.video_seconds',
    'data.sample_rate',
    'data.frames',
    'data.frame_size',
)


def make_objective(config: Config) -> PretrainingObjective:
    """The objective of a pretraining run (stage 1 or 2).

    Raises:
        ConfigError: config.teacher is not a run, or its tokens are not those of this run.
    """
    if config.objective != 'stage2':
        return PretrainingObjective(config)
    teacher = open_network(config.teacher).config
    check_params(config.teacher)
    for field in _SHARED:
        ours, theirs = (
            functools.reduce(operator.getitem, field.split('.'), to_dict(c)) for c in (config, teacher)
        )
        if ours != theirs:
            raise ConfigError(
                f'config.{field} = {ours!r}: must be {theirs!r}, as in the run of config.teacher = '
                f'{config.teacher!r}.'
            )
    return TeacherObjective(config, teacher)


def with_teacher(state: TrainState, config: Config) -> TrainState:
    """The state with the teacher's parameters; in stage 1, the state as it is."""
    if config.objective != 'stage2':
        return state
    with agreement.together("the teacher's parameters", ConfigError):
        loaded = open_network(config.teacher).params
    return dataclasses.replace(state, frozen=filled_in(state.frozen, loaded, run=config.teacher))
