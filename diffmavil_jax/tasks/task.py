"""A task: the parts in which pretraining and classification differ."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import optax

from diffmavil_jax.data.clip import ClipSource
from diffmavil_jax.objectives.pretraining import TokenCounts
from diffmavil_jax.parallel.metrics import Metrics
from diffmavil_jax.tasks.reports.facts import Facts
from diffmavil_jax.training.interfaces import Evaluator
from diffmavil_jax.training.state import TrainState


class Objective(Protocol):
    """What is minimised; see `PretrainingObjective`."""

    def init(
        self, key: jax.Array, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]
    ) -> Any: ...

    def loss(
        self, params: Any, batch: Mapping[str, jax.Array], counts: Mapping[str, TokenCounts]
    ) -> tuple[jax.Array, Metrics]: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that a run needs besides plan, mesh and stores.

    Attributes:
        objective: what is minimised.
        optimizer: of the objective's parameters.
        source: training clips.
        batch: shape and dtype of each array of a clip in a batch, by name.
        evaluate: measures parameters while the run trains.
        best_metric: name of the score of `evaluate` that ranks checkpoints.
        start: from the initialised state to the state that training begins with.
        keep_ema: whether an exponential moving average (EMA) of the parameters is kept.
        notes: sentences that are printed at the start.
        finish: measures the trained state, which has no optimizer any more, and writes the report, whose path
            it returns. It is given a function that makes the initial parameters again.
        select_best: whether the run finishes with the state of the best checkpoint, not with the last state.
    """

    objective: Objective
    optimizer: optax.GradientTransformationExtraArgs
    source: ClipSource
    batch: Mapping[str, tuple[tuple[int, ...], Any]]
    evaluate: Evaluator
    best_metric: str
    start: Callable[[TrainState], TrainState]
    finish: Callable[[TrainState, Callable[[], Any], Facts], pathlib.Path]
    keep_ema: bool = False
    select_best: bool = False
    notes: tuple[str, ...] = ()
