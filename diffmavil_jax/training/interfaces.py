"""What the loop shares with the rooms around it: the type of evaluators, and timings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol


class Evaluator(Protocol):
    """Measures parameters on held-out clips."""

    def __call__(self, params: Any) -> Mapping[str, float]: ...


@dataclasses.dataclass
class Timings:
    """Seconds spent over all starts of a run, and how many steps were compiled.

    Attributes:
        train_s: in train steps, with what they waited for data.
        compile_s: waiting for the compiler.
        data_wait_s: waiting for data.
        evaluation_s: in evaluations.
        compilations: compiled steps.
    """

    train_s: float = 0.0
    compile_s: float = 0.0
    data_wait_s: float = 0.0
    evaluation_s: float = 0.0
    compilations: int = 0
