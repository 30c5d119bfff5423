"""Which task each objective of a config makes."""

from __future__ import annotations

import pathlib

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import Sources
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.tasks.classification import classification_task
from diffmavil_jax.tasks.pretraining import pretraining_task
from diffmavil_jax.tasks.task import Task

_TASKS = {'pretraining': pretraining_task, 'stage2': pretraining_task, 'classification': classification_task}


def make_task(config: Config, plan: Plan, sources: Sources, workdir: pathlib.Path) -> Task:
    """The task of config.objective.

    Args:
        config: the run; attention and dtype are those of the machine it runs on.
        plan: its buckets.
        sources: its clips.
        workdir: the directory that its report is written to.

    Raises:
        ConfigError: the run can't start from config.init or config.teacher.
        DataError: the clips lack what the task needs.
    """
    return _TASKS[config.objective](config, plan, sources, workdir)
