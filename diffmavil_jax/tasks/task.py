"""What a run is for: the parts in which pretraining and classification differ."""

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
    """Everything that a run needs besides the plan, the mesh and the stores.

    Attributes:
        objective: what is minimised.
        optimizer: for its parameters.
        source: training clips.
        batch: shapes and dtypes of one clip in a batch, by name.
        evaluate: measures parameters inside the loop.
        best_metric: the name, among what it measures, that ranks checkpoints.
        start: from freshly initialised parameters to those that training begins with.
        keep_ema: whether an exponential moving average (EMA) of the parameters is kept.
        notes: to be said at the start.
        finish: measures the trained state and writes the report; can make the initial state again.
        select_best: whether the state to finish with is the best checkpoint's, not the last's.
    """

    objective: Objective
    optimizer: optax.GradientTransformationExtraArgs
    source: ClipSource
    batch: Mapping[str, tuple[tuple[int, ...], Any]]
    evaluate: Evaluator
    best_metric: str
    start: Callable[[TrainState], TrainState]
    finish: Callable[[TrainState, Callable[[], TrainState], Facts], pathlib.Path]
    keep_ema: bool = False
    select_best: bool = False
    notes: tuple[str, ...] = ()
